"""How a bridge module answers for a name it does not have.

A name of the real bridge that is missing here must fail loudly and name itself, never do nothing.
Every module of the bridge installs :func:`refuse` as its ``__getattr__``.
"""

from collections.abc import Callable
from typing import NoReturn

from ._refused import reason_for

__all__ = ["refuse"]


def refuse(module: str) -> Callable[[str], NoReturn]:
    """Make the module-level ``__getattr__`` (PEP 562) of ``module``.

    ``from module import name`` turns the AttributeError into an ImportError by itself, so one
    function serves both ways to ask for a name.
    """

    def missing(name: str) -> NoReturn:
        why = reason_for(f"{module}.{name}".removeprefix("habana_frameworks.torch."))
        what = f"module '{module}' has no attribute '{name}': the emulated bridge"
        message = (
            f"{what} refuses it: {why}."
            if why
            else f"{what} does not provide it. If Intel's bridge has '{module}.{name}', report it "
            "to the gaudi-emulator project; otherwise correct the name."
        )
        # Python probes packages for dunder names (__path__, __wrapped__, ...): answer briefly.
        if name.startswith("__") and name.endswith("__"):
            message = f"module '{module}' has no attribute '{name}'"
        raise AttributeError(message, name=name)

    return missing

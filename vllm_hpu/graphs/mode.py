"""The execution mode: chosen here and nowhere else.

On Gaudi a shape costs a compilation, so all modes run the same padded shapes. They differ in who
compiles: ``compile`` gives regions to ``torch.compile`` with the bridge's ``hpu_backend``,
``graphs`` captures the forward as an HPU graph (needs the bridge's lazy mode), ``eager`` does
neither.
"""

import functools
from enum import Enum

from vllm_hpu.settings import settings


class Mode(Enum):
    COMPILE = "torch.compile"
    GRAPHS = "HPU graphs"
    EAGER = "eager"


class ModeChoice:
    """A mode with the reason it was chosen, for the log."""

    def __init__(self, mode: Mode, reason: str) -> None:
        self.mode = mode
        self.reason = reason

    def described(self) -> tuple[str, str]:
        return self.mode.value, self.reason


def default_mode() -> ModeChoice:
    """The mode before a model is known: the bridge's lazy switch decides."""
    if settings().lazy_mode:
        return ModeChoice(Mode.GRAPHS, "PT_HPU_LAZY_MODE=1")
    return ModeChoice(Mode.COMPILE, "default; PT_HPU_LAZY_MODE=1 selects HPU graphs")


def choose_mode(enforce_eager: bool) -> ModeChoice:
    """The mode of an engine. ``enforce_eager`` is vLLM's ``--enforce-eager``."""
    if enforce_eager:
        return ModeChoice(Mode.EAGER, "--enforce-eager")
    return default_mode()


@functools.cache
def backend_name() -> str:
    """Name of the bridge's ``torch.compile`` backend."""
    return "hpu_backend"

"""The options of ``hpu_backend``.

They are the settings of :mod:`.config`, for one call. All of them steer how the card's graph
compiler works; since the emulated backend runs the traced graph as it is and counts a recipe for
every shape, results and counts are the same with either value. An unknown option raises.
"""

from collections.abc import Mapping
from typing import Any

from . import config

__all__ = ["OPTIONS", "check_options"]

OPTIONS = frozenset(config.configuration_flags)


def check_options(kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments of ``torch.compile`` that the backend does not have.

    ``mode`` is accepted with any value and means nothing: the bridge ignores it, too.

    Raises:
        ValueError: names the unknown argument or option.
    """
    unknown = set(kwargs) - {"mode", "options"}
    if unknown:
        raise ValueError(
            f"hpu_backend: unknown argument(s) {sorted(unknown)}; it takes 'mode' and 'options'"
        )
    strange = set(kwargs.get("options") or {}) - OPTIONS
    if strange:
        raise ValueError(
            f"hpu_backend: unknown option(s) {sorted(strange)}; it has {sorted(OPTIONS)}"
        )

"""The flag PT_COMPILE_ONLY_MODE: compile recipes without launching them.

On the card results are garbage in this mode, so that nothing may depend on a value. The emulated
device has no separate compiler: single operators, captures and compiled regions run, to know the
shapes of their results, but no launch is counted and no graph is replayed. Every read of a value by
the host is refused, which is what would go wrong on the card.
"""

from ._device import forbid_host_reads, set_compile_only
from .internal import bridge_config
from .internal.flags import FlagValue

__all__ = ["follow_flag"]

_REASON = (
    "PT_COMPILE_ONLY_MODE does not allow: nothing is launched in this mode, so the value would be "
    "garbage. Read it outside of compile-only mode"
)


def _switch(on: FlagValue) -> None:
    set_compile_only(bool(on))
    forbid_host_reads(_REASON if on else "")


def follow_flag() -> None:
    """Launch nothing and forbid host reads while the flag is set."""
    bridge_config.on_change("PT_COMPILE_ONLY_MODE", _switch)

"""The flag PT_COMPILE_ONLY_MODE: compile recipes without launching them.

On the card results are garbage in this mode, so that nothing may depend on a value. The emulated
device does run the operators (it has no separate compiler), but refuses every read of a value by
the host, which is what would go wrong on the card.
"""

from ._device import forbid_host_reads
from .internal import bridge_config

__all__ = ["follow_flag"]

_REASON = (
    "PT_COMPILE_ONLY_MODE does not allow: nothing is launched in this mode, so the value would be "
    "garbage. Read it outside of compile-only mode"
)


def follow_flag() -> None:
    """Forbid host reads whenever the flag is set, and allow them when it is not."""
    bridge_config.on_change(
        "PT_COMPILE_ONLY_MODE", lambda on: forbid_host_reads(_REASON if on else "")
    )

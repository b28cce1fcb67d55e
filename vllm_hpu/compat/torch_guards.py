"""Let ``torch.compile`` make its guards without timing them.

Replaces: ``profile_guard_manager`` in ``torch._dynamo.guards``, in compile mode.
Reason: after every compilation PyTorch 2.8 to 2.13 empties the processor's caches and runs the new
guards once, for a figure in its log: 18 ms, a tenth of tracing a decoder layer.
Unnecessary when: PyTorch does so on request only.
"""

import functools
from typing import Any


@functools.cache  # once per process
def install() -> None:
    """Answer the question for the guards' latency by 0 microseconds."""
    from torch._dynamo import guards

    def not_timed(*args: Any) -> float:
        return 0.0

    if hasattr(guards, "profile_guard_manager"):
        guards.profile_guard_manager = not_timed

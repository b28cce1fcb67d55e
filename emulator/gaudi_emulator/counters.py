"""What has the device done that would cost time on a card?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Counters:
    """A snapshot; subtract an earlier one to see what happened in between.

    Attributes:
        eager_launches: operators launched one by one.
        graph_launches: replays of captured graphs, one each.
        region_launches: runs of compiled regions, one each (see `launch_region`).
        lazy_launches: graphs that the lazy mode gathered, one each.
        captured_ops: operators recorded into graphs.
        fused_ops: operators that ran inside compiled regions or were gathered by the lazy mode.
        h2d_copies, h2d_bytes: copies from the host to a card.
        d2h_copies, d2h_bytes: copies from a card to the host.
        d2d_copies, d2d_bytes: copies on or between cards.
        host_syncs: times the host waited for a value or for the device.
        host_fallbacks: operators that ran on the host although their tensors are on a card, and
            how often each did.
        missing_synchronisations: found with GAUDI_EMULATOR_CHECK_STREAMS; no cost, but a mistake.
        compilations: number of compilations by kind: "graph_capture", "hpu_backend", "lazy_graph".
        compilation_us: microseconds spent in them, by kind.
        recipe_hits: graphs that had a recipe instead, in "memory" or on "disk".
    """

    eager_launches: int = 0
    graph_launches: int = 0
    region_launches: int = 0
    lazy_launches: int = 0
    captured_ops: int = 0
    fused_ops: int = 0
    h2d_copies: int = 0
    h2d_bytes: int = 0
    d2h_copies: int = 0
    d2h_bytes: int = 0
    d2d_copies: int = 0
    d2d_bytes: int = 0
    host_syncs: int = 0
    missing_synchronisations: int = 0
    compilations: dict[str, int] = field(default_factory=dict)
    compilation_us: dict[str, int] = field(default_factory=dict)
    recipe_hits: dict[str, int] = field(default_factory=dict)
    host_fallbacks: dict[str, int] = field(default_factory=dict)

    @property
    def launches(self) -> int:
        """Launches of any sort."""
        together = self.graph_launches + self.region_launches + self.lazy_launches
        return self.eager_launches + together

    @property
    def total_compilations(self) -> int:
        """Compilations of all kinds."""
        return sum(self.compilations.values())

    def __sub__(self, earlier: Counters) -> Counters:
        """What was counted since `earlier`; kinds that did not occur are left out."""
        values: dict = {}
        for f in fields(self):
            now, then = getattr(self, f.name), getattr(earlier, f.name)
            if isinstance(now, dict):
                change = {kind: count - then.get(kind, 0) for kind, count in now.items()}
                values[f.name] = {kind: count for kind, count in change.items() if count}
            else:
                values[f.name] = now - then
        return Counters(**values)


@dataclass(frozen=True)
class Compilation:
    """One compilation: its kind, a text that identifies it, and its duration."""

    kind: str
    detail: str
    microseconds: int


def counters() -> Counters:
    """Read the counters of this process, all threads and cards together."""
    from . import _C, recipes

    totals = _C.compilation_totals()
    return Counters(
        **_C.counters(),
        missing_synchronisations=_C.order_problems(),
        compilations={kind: count for kind, (count, _) in totals.items()},
        compilation_us={kind: us for kind, (_, us) in totals.items()},
        recipe_hits=recipes.hits(),
        host_fallbacks=_C.host_fallbacks(),
    )


def recent_compilations(limit: int = 100) -> list[Compilation]:
    """Return the latest compilations, oldest first; the process keeps the last 4096."""
    from . import _C

    return [Compilation(*entry) for entry in _C.recent_compilations(limit)]


@contextmanager
def launch_region() -> Iterator[None]:
    """Count the operators inside as one launch, as a compiled graph is on a card."""
    from . import _C

    _C.launch_region_enter()
    try:
        yield
    finally:
        _C.launch_region_exit()

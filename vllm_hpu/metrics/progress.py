"""How far warm-up has come, in numbers."""

from dataclasses import dataclass


@dataclass
class WarmupProgress:
    """Of the graphs of a plan.

    planned   graphs of the plan, those with and without adapters counted apart
    compiled  graphs that were compiled
    cached    graphs that the bridge had in a cache, so that nothing was compiled
    dropped   graphs that a limit keeps from being compiled
    seconds   spent on all of them
    bytes     device memory that they keep
    finished  whether none is left to do
    """

    planned: int
    compiled: int = 0
    cached: int = 0
    dropped: int = 0
    seconds: float = 0.0
    bytes: int = 0
    finished: bool = False

    @property
    def ready(self) -> int:
        """Graphs that steps can run in."""
        return self.compiled + self.cached

    @property
    def pending(self) -> int:
        """Graphs still to come."""
        return self.planned - self.ready - self.dropped

"""When silence is a hang: a judgement of signs of life by the reader's clock."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_hpu.liveness.pulse import Signs

ENGINE = "engine core"
FACTOR = 10
"""A step may take so many times as long as the longest before it."""


class Watch:
    """Follows the processes of one engine.

    A process is silent when its clock stands still; an engine hangs when its core is in a step and
    none of its processes has begun, ended or compiled anything. While one of them does what may
    take any time, nothing is judged.
    """

    def __init__(self, limit: float, ranks: int) -> None:
        """
        Args:
            limit: seconds that a step may take at least.
            ranks: how many the engine has. Steps are judged where all of them are seen, since one
                that is not may be compiling.
        """
        self._limit = limit
        self._ranks = ranks
        self._last: dict[str, Signs] = {}
        self._silent: dict[str, float] = {}
        self._stuck = 0.0

    def look(self, seconds: float, signs: Mapping[str, Signs]) -> str | None:
        """What hangs, in words, after ``seconds`` since the last look; None if nothing does.

        Args:
            signs: by role, "engine core" or "rank N".
        """
        last, self._last = self._last, dict(signs)
        if any(sign.away for sign in signs.values()):
            self._silent.clear()
            self._stuck = 0.0
            return None
        for role, sign in signs.items():
            quiet = role in last and last[role].beats == sign.beats
            self._silent[role] = self._silent.get(role, 0.0) + seconds if quiet else 0.0
        core = signs.get(ENGINE)
        idle = core is None or not core.in_step or _work(signs) != _work(last)
        self._stuck = 0.0 if idle else self._stuck + seconds
        limit = self._allowed(signs)
        silent = [role for role in signs if self._silent[role] > limit]
        if silent:
            return _sentence(silent, signs, "shows no sign of life", limit)
        seen = [role for role in signs if role != ENGINE]
        if self._stuck > limit and len(seen) == self._ranks:
            busy = [role for role in seen if signs[role].in_step] or seen
            return _sentence(busy, signs, "does not finish a step", limit)
        return None

    def _allowed(self, signs: Mapping[str, Signs]) -> float:
        longest = max((sign.longest_ms for sign in signs.values()), default=0) / 1e3
        return max(self._limit, min(FACTOR * longest, FACTOR * self._limit))


def _work(signs: Mapping[str, Signs]) -> dict[str, tuple[int, ...]]:
    return {role: (sign.steps, sign.compiled, sign.in_step) for role, sign in signs.items()}


def _sentence(roles: list[str], signs: Mapping[str, Signs], what: str, limit: float) -> str:
    ranks = [role for role in roles if role != ENGINE]
    named = ", ".join(f"{role} (process {signs[role].pid})" for role in ranks or roles)
    return (
        f"The engine hangs: {named} {what} for more than {limit:.0f} s. The server ends. "
        "--hpu-hang-seconds (VLLM_HPU_HANG_SECONDS) sets this time."
    )

"""Armed faults: the device fails, waits or computes nonsense at a chosen point.

A fault strikes once, at the `step`-th visit of its site by this process, counted from arming.
`arm` and `armed` are for programs; ``GAUDI_EMULATOR_FAULTS`` is for processes that a program
starts, such as a server and its workers: specifications like ``launch:100:device_error``,
separated by commas. :data:`SITES` says which kinds make sense where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["KINDS", "SITES", "Fault", "arm", "armed", "disarm", "parse", "pending", "struck"]

VARIABLE = "GAUDI_EMULATOR_FAULTS"

KINDS = {
    "device_error": "the operation raises a RuntimeError",
    "oom": "the operation raises torch.OutOfMemoryError",
    "hang": "the operation does not return, or only after `seconds`",
    "slow": "the operation takes `seconds` longer",
    "nan": "its floating-point results become NaN",
    "wrong": "a collective delivers wrong numbers",
    "rank_death": "the process is killed, as by SIGKILL",
    "corrupt": "the recipe on disk is damaged",
}
"""What can happen."""

_ANYWHERE = ("device_error", "hang", "slow", "rank_death")

SITES = {
    "launch": (*_ANYWHERE, "oom", "nan"),
    "graph_replay": (*_ANYWHERE, "oom", "nan"),
    "compile": (*_ANYWHERE, "oom"),
    "copy": (*_ANYWHERE, "nan"),
    "allocate": (*_ANYWHERE, "oom"),
    "collective": (*_ANYWHERE, "nan", "wrong"),
    "recipe_read": ("corrupt", "hang", "slow", "rank_death"),
}
"""Where: site -> the kinds that make sense there. `launch` is an operator launched on its own."""

_SLOW_S = 1.0
_MAX_S = 86400.0


@dataclass(frozen=True)
class Fault:
    """One armed fault.

    Attributes:
        site: a key of :data:`SITES`.
        step: the visit of the site at which it strikes, from 1.
        kind: a key of :data:`KINDS`.
        seconds: how long, for "slow" (1 by default) and "hang" (for ever by default).
        module: only visits on the card with this module number; None for any.

    Raises:
        ValueError: something of it makes no sense; the text says what may be there.
    """

    site: str
    step: int
    kind: str
    seconds: float | None = None
    module: int | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"fault site {self.site!r}: expected one of {', '.join(SITES)}")
        if self.kind not in KINDS:
            raise ValueError(f"fault kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.kind not in SITES[self.site]:
            raise ValueError(
                f"a fault {self.kind!r} cannot happen at {self.site!r}: expected one of "
                f"{', '.join(SITES[self.site])}"
            )
        if self.step < 1:
            raise ValueError(f"fault step {self.step}: expected a number from 1")
        if self.seconds is not None and self.kind not in ("hang", "slow"):
            raise ValueError(f"a fault {self.kind!r} takes no seconds; 'hang' and 'slow' do")
        if self.seconds is not None and not 0 <= self.seconds <= _MAX_S:
            raise ValueError(f"fault seconds {self.seconds}: expected 0 to {_MAX_S:.0f}")

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f":{self.seconds:g}"
        module = "" if self.module is None else f"@{self.module}"
        return f"{self.site}:{self.step}:{self.kind}{seconds}{module}"


_FORM = "site:step:kind[:seconds][@module]"


def _parse_one(text: str) -> Fault:
    body, at, module = text.partition("@")
    parts = [part.strip() for part in body.split(":")]
    if len(parts) not in (3, 4):
        raise ValueError(f"expected {_FORM}, such as launch:100:device_error")
    try:
        step = int(parts[1])
    except ValueError:
        raise ValueError(f"step {parts[1]!r}: expected an integer from 1") from None
    seconds = None
    if len(parts) == 4:
        try:
            seconds = float(parts[3])
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds):
            raise ValueError(f"seconds {parts[3]!r}: expected a number")
    if at and not module.strip().isdecimal():
        raise ValueError(f"module {module!r}: expected the number of a card")
    return Fault(parts[0], step, parts[2], seconds, int(module) if at else None)


def parse(text: str) -> tuple[Fault, ...]:
    """Faults from specifications ``site:step:kind[:seconds][@module]``, separated by commas.

    Raises:
        ValueError: one of them is malformed; the text quotes it and says what is expected.
    """
    faults = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            faults.append(_parse_one(part))
        except ValueError as error:
            raise ValueError(f"fault {part!r}: {error}") from None
    return tuple(faults)


def arm_visible(faults: Sequence[Fault], modules: Sequence[int]) -> None:
    """Arm faults in a process that sees the cards ``modules``; those of other cards are not."""
    from . import _C

    for fault in faults:
        if fault.module is not None and fault.module not in modules:
            continue
        card = -1 if fault.module is None else modules.index(fault.module)
        default = _SLOW_S if fault.kind == "slow" else -1.0
        seconds = default if fault.seconds is None else fault.seconds
        _C.arm_fault(fault.site, fault.step, fault.kind, seconds, card, str(fault))


def arm(*faults: Fault | str) -> None:
    """Arm faults, given as :class:`Fault` or as specifications, in this process.

    Raises:
        ValueError: a specification is malformed, or no visible card has that module number.
    """
    from . import activate

    modules = activate().modules
    parsed = [f for fault in faults for f in (parse(fault) if isinstance(fault, str) else [fault])]
    for fault in parsed:
        if fault.module is not None and fault.module not in modules:
            raise ValueError(
                f"fault {str(fault)!r}: module {fault.module} is not visible to this process, "
                f"which sees {', '.join(map(str, modules)) or 'none'}"
            )
    arm_visible(parsed, modules)


def disarm() -> None:
    """Forget all faults, armed and struck; what hangs goes on."""
    from . import _C

    _C.disarm_faults()


def pending() -> list[str]:
    """Specifications of the faults that have not struck yet."""
    from . import _C

    return _C.armed_faults()


def struck() -> list[str]:
    """Specifications of the faults that have struck since the last `disarm`, in their order."""
    from . import _C

    return _C.fired_faults()


@contextmanager
def armed(*faults: Fault | str) -> Iterator[None]:
    """`arm` for the length of a block, and `disarm` at its end."""
    arm(*faults)
    try:
        yield
    finally:
        disarm()

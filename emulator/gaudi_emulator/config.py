"""What does the environment say about the emulated cards? The only reader of it in this package."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import faults

GIB = 1 << 30
MAX_CARDS = 64
MAX_THREADS = 1024
MAX_COMPILE_SECONDS = 3600
MAX_LAUNCH_US = 1e6
# Assumed: nobody publishes what a launch costs.
DEFAULT_LAUNCH_US = 10.0
MAX_LEAK_FRAMES = 64

# Name as the card reports it -> size of its memory. The "96 GB" of product pages are GiB: what a
# Gaudi 2 shows to programs, 94.62 GiB, is more than 96 x 10^9 bytes (HabanaAI/vllm-fork issue 809).
DEVICE_MEMORY_BYTES = {"GAUDI2": 96 * GIB, "GAUDI3": 128 * GIB}

STREAMS = {"IMMEDIATE": None, "ASYNC": None, "LATE": None}
CHECKS = {"OFF": None, "LOG": None, "RAISE": None}
INDICES = {"STRICT": None, "CARD": None}

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": GIB, "TIB": 1 << 40}


@dataclass(frozen=True)
class CompileTime:
    """What a compilation costs: seconds for each, and seconds for each of its operators."""

    seconds: float
    per_operator: float


@dataclass(frozen=True)
class Config:
    """The emulated host, as seen by this process.

    Attributes:
        device_name: "GAUDI2" or "GAUDI3".
        modules: module numbers of the visible cards; `hpu:i` is the i-th of them.
        memory_bytes: accounting limit of each card, in bytes.
        poison: fill fresh memory with bytes that are NaN in floats and implausible in integers.
        streams: when queued work of a stream runs: "immediate" (when it is submitted), "async" (as
            soon as possible, in a thread of the stream's own), or "late" (there too, but not
            before somebody waits for it).
        check_streams: what a missing synchronisation does: "off", "log" or "raise".
        threads: threads of the host that do the cards' work.
        compile_time: what a compilation takes beside the recording.
        launch_us: what predictions assume that a launch costs, in microseconds.
        trace: folder into which this process writes its trace; "" writes none.
        fragmentation: allocations have addresses, so that free memory can be in pieces.
        check_freed: a graph refuses to run when the program has freed what it reads.
        check_capture: a capture refuses host reads and shapes that depend on values.
        lazy_graphs: the lazy mode gathers operators into graphs, and compiles and launches those.
        indices: an index outside of its tensor raises ("strict"), or reads 0 and writes nothing
            ("card").
        leak_frames: Python frames that `leaks()` keeps for each allocation.
        graph_files: every compiled graph leaves a file (GRAPH_VISUALIZATION).
        faults: what goes wrong, and when.
    """

    device_name: str
    modules: tuple[int, ...]
    memory_bytes: int
    poison: bool
    streams: str
    check_streams: str
    threads: int
    compile_time: CompileTime
    launch_us: float
    trace: str
    fragmentation: bool
    check_freed: bool
    check_capture: bool
    lazy_graphs: bool
    indices: str
    leak_frames: int
    graph_files: bool
    faults: tuple[faults.Fault, ...]


def _choice(env: Mapping[str, str], name: str, default: str, allowed: Mapping[str, object]) -> str:
    value = env.get(name, default).strip().upper()
    if value not in allowed:
        raise ValueError(f"{name}={env[name]!r}: expected one of {', '.join(allowed)}")
    return value


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    text = env.get(name)
    if text is None:
        return default
    value = text.strip().lower()
    if value in ("1", "true", "on"):
        return True
    if value in ("0", "false", "off", ""):
        return False
    raise ValueError(f"{name}={text!r}: expected 0 or 1")


def _bytes(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if text is None:
        return default
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match.group(2).upper() not in _UNITS:
        raise ValueError(f'{name}={text!r}: expected bytes or a size such as "2GiB" or "512MiB"')
    value = int(float(match.group(1)) * _UNITS[match.group(2).upper()])
    if not 1 << 20 <= value <= 1 << 50:
        raise ValueError(f"{name}={text!r}: a card needs between 1 MiB and 1024 TiB")
    return value


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r}: expected an integer") from None
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: expected {low} to {high}")
    return value


def _microseconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_LAUNCH_US:
        raise ValueError(f"{name}={text!r}: expected microseconds from 0 to {MAX_LAUNCH_US:g}")
    return value


def _compile_time(env: Mapping[str, str], name: str) -> CompileTime:
    """Seconds such as "2", or seconds per operator such as "0.01/op"; none if unset."""
    text = env.get(name, "0").strip()
    number, per_operator, rest = text.partition("/op")
    try:
        seconds = float(number)
    except ValueError:
        seconds = -1.0
    if rest or not 0 <= seconds <= MAX_COMPILE_SECONDS:
        raise ValueError(
            f'{name}={env[name]!r}: expected seconds such as "2", or seconds per operator such as '
            f'"0.01/op", from 0 to {MAX_COMPILE_SECONDS}'
        )
    return CompileTime(0.0, seconds) if per_operator else CompileTime(seconds, 0.0)


def _modules(env: Mapping[str, str], name: str, cards: int) -> tuple[int, ...]:
    """Module numbers from a comma-separated list; every card if unset or "all"."""
    text = env.get(name)
    if text is None or text.strip().lower() in ("", "all"):
        return tuple(range(cards))
    try:
        modules = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f'{name}={text!r}: expected "all" or numbers such as "0,1"') from None
    if len(set(modules)) != len(modules):
        raise ValueError(f"{name}={text!r}: a module is named twice")
    for module in modules:
        if not 0 <= module < cards:
            raise ValueError(
                f"{name}={text!r}: module {module} does not exist; this host emulates {cards} "
                "card(s), numbered from 0 (GAUDI_EMULATOR_CARDS)"
            )
    return modules


def _faults(env: Mapping[str, str], cards: int) -> tuple[faults.Fault, ...]:
    try:
        armed = faults.parse(env.get(faults.VARIABLE, ""))
    except ValueError as error:
        raise ValueError(f"{faults.VARIABLE}: {error}") from None
    for fault in armed:
        if fault.module is not None and fault.module >= cards:
            raise ValueError(
                f"{faults.VARIABLE}: fault {str(fault)!r}: module {fault.module} does not exist; "
                f"this host emulates {cards} card(s), numbered from 0 (GAUDI_EMULATOR_CARDS)"
            )
    return armed


def host_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory_bytes() -> int:
    """Memory of the host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def read(env: Mapping[str, str] | None = None) -> Config:
    """Read the environment.

    Raises:
        ValueError: a variable has no valid value; the text names it and what it may be.
    """
    env = os.environ if env is None else env
    device_name = _choice(env, "GAUDI_EMULATOR_DEVICE", "GAUDI3", DEVICE_MEMORY_BYTES)
    # A card cannot hold more than the host behind it; half is left for what runs beside.
    memory = min(DEVICE_MEMORY_BYTES[device_name], host_memory_bytes() // 2)
    cards = _integer(env, "GAUDI_EMULATOR_CARDS", 8, 1, MAX_CARDS)
    in_container = _modules(env, "HABANA_VISIBLE_DEVICES", cards)
    visible = _modules(env, "HABANA_VISIBLE_MODULES", cards)
    return Config(
        device_name=device_name,
        modules=tuple(module for module in visible if module in in_container),
        memory_bytes=_bytes(env, "GAUDI_EMULATOR_MEMORY", memory),
        poison=_flag(env, "GAUDI_EMULATOR_POISON", False),
        streams=_choice(env, "GAUDI_EMULATOR_STREAMS", "immediate", STREAMS).lower(),
        check_streams=_choice(env, "GAUDI_EMULATOR_CHECK_STREAMS", "off", CHECKS).lower(),
        threads=_integer(env, "GAUDI_EMULATOR_THREADS", host_cores(), 1, MAX_THREADS),
        compile_time=_compile_time(env, "GAUDI_EMULATOR_COMPILE_SECONDS"),
        launch_us=_microseconds(env, "GAUDI_EMULATOR_LAUNCH_US", DEFAULT_LAUNCH_US),
        trace=env.get("GAUDI_EMULATOR_TRACE", "").strip(),
        fragmentation=_flag(env, "GAUDI_EMULATOR_FRAGMENTATION", False),
        check_freed=_flag(env, "GAUDI_EMULATOR_CHECK_FREED", True),
        check_capture=_flag(env, "GAUDI_EMULATOR_CHECK_CAPTURE", True),
        lazy_graphs=_flag(env, "GAUDI_EMULATOR_LAZY_GRAPHS", True),
        indices=_choice(env, "GAUDI_EMULATOR_INDICES", "strict", INDICES).lower(),
        leak_frames=_integer(env, "GAUDI_EMULATOR_LEAK_FRAMES", 8, 0, MAX_LEAK_FRAMES),
        # Not one of ours: any text is allowed.
        graph_files=env.get("GRAPH_VISUALIZATION", "").strip().lower() in ("1", "true"),
        faults=_faults(env, cards),
    )

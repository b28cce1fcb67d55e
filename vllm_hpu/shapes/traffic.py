"""What a server is used for: lengths of requests, and how many are in flight at a time."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from vllm_hpu.errors import ConfigurationError

FORMAT = "vllm-hpu traffic 1"
_REMEDY = "Correct the profile, or record it again"
# Recorded lengths keep this many leading bits: at most 1/32 off, and few distinct lengths.
_LENGTH_BITS = 5


class Length(NamedTuple):
    """``number`` requests alike.

    input    prompt tokens
    output   generated tokens
    cached   prompt tokens whose keys and values a prefix cache held
    """

    input: int
    output: int
    number: float
    cached: int = 0


class Load(NamedTuple):
    """``requests`` in flight, waiting ones included, for ``share`` of the steps (in any unit)."""

    requests: int
    share: float


@dataclass(frozen=True)
class Traffic:
    """A joint histogram of lengths, and a histogram of how many requests are in flight.

    Raises ConfigurationError for an empty histogram and for numbers that cannot be.
    """

    lengths: tuple[Length, ...]
    concurrency: tuple[Load, ...]

    def __post_init__(self) -> None:
        for name in ("lengths", "concurrency"):
            if not getattr(self, name):
                raise ConfigurationError(
                    f"A traffic profile has no {name}",
                    "Without requests there is nothing to plan for",
                    _REMEDY,
                )
        for length in self.lengths:
            whole = _whole(length.input, 1) and _whole(length.output, 1) and _whole(length.cached)
            if not (whole and length.cached < length.input and _positive(length.number)):
                raise ConfigurationError(
                    f"A traffic profile has {length}",
                    "Lengths are whole numbers of at least 1, fewer tokens are cached than given, "
                    "and the number of requests is above 0",
                    _REMEDY,
                )
        for load in self.concurrency:
            if not (_whole(load.requests, 1) and _positive(load.share)):
                raise ConfigurationError(
                    f"A traffic profile has {load}",
                    "Requests in flight are a whole number of at least 1, their share is above 0",
                    _REMEDY,
                )

    @classmethod
    def from_json(cls, data: object) -> Self:
        """From the content of a profile file: see docs/shapes.md.

        Raises:
            ConfigurationError: another format, a missing or unknown name, or a number that cannot
                be.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ConfigurationError(
                "This is no traffic profile", f'Its "format" must be "{FORMAT}"', _REMEDY
            )
        try:
            lengths = tuple(Length(**row) for row in data["lengths"])
            concurrency = tuple(Load(**row) for row in data["concurrency"])
        except (KeyError, TypeError) as error:
            raise ConfigurationError(
                "A traffic profile lacks a name or has one too many",
                f"{type(error).__name__}: {error}",
                _REMEDY,
            ) from None
        return cls(lengths, concurrency)

    def to_json(self) -> dict[str, Any]:
        """The content of a profile file."""
        return {
            "format": FORMAT,
            "lengths": [length._asdict() for length in self.lengths],
            "concurrency": [load._asdict() for load in self.concurrency],
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigurationError, naming the file, for one that is missing or wrong."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The traffic profile {path} cannot be read",
                str(error),
                "Correct or unset VLLM_HPU_TRAFFIC_PROFILE",
            ) from None
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                f"{path}:{error.lineno}: not JSON", error.msg, _REMEDY
            ) from None
        try:
            return cls.from_json(data)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Write a profile file that ``read`` reads, or leave the file there as it was."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)


class TrafficRecorder:
    """Accumulates what a server serves; not for several threads at once.

    >>> recorder = TrafficRecorder()
    >>> recorder.step(in_flight=1)
    >>> recorder.finished(input_tokens=500, output_tokens=80)
    >>> recorder.traffic().lengths
    (Length(input=496, output=80, number=1, cached=0),)
    """

    def __init__(self) -> None:
        self._lengths: Counter[tuple[int, int, int]] = Counter()
        self._concurrency: Counter[int] = Counter()

    def __bool__(self) -> bool:
        """Whether there is enough for ``traffic``."""
        return bool(self._lengths and self._concurrency)

    def finished(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> None:
        """A request ended; one without output (aborted, or pooled) still had its prompt computed.

        ``cached_tokens`` of the prompt came from the prefix cache. A request without a prompt of
        at least one token is not counted.
        """
        if input_tokens < 1:
            return
        given = short(input_tokens)
        cached = min(short(max(0, cached_tokens)), given - 1)
        self._lengths[given, short(max(1, output_tokens)), cached] += 1

    def step(self, in_flight: int) -> None:
        """A step ran while ``in_flight`` requests were running or waiting."""
        if in_flight > 0:
            self._concurrency[in_flight] += 1

    def traffic(self) -> Traffic:
        """Everything so far. Raises ConfigurationError while there is nothing."""
        return Traffic(
            tuple(
                Length(given, output, number, cached)
                for (given, output, cached), number in sorted(self._lengths.items())
            ),
            tuple(Load(*item) for item in sorted(self._concurrency.items())),
        )


def short(number: int) -> int:
    """``number`` rounded to its leading bits, halves up.

    >>> [short(n) for n in (0, 15, 17, 500, 1000)]
    [0, 15, 17, 496, 992]
    """
    shift = max(0, number.bit_length() - _LENGTH_BITS)
    return (number + (1 << shift >> 1)) >> shift << shift


def _whole(number: object, least: int = 0) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _positive(number: object) -> bool:
    return (
        isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf
    )

"""The traffic a plan is made for when the user gives no profile, and traffic of any kind."""

import math
from itertools import chain, pairwise
from statistics import NormalDist

from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.traffic import Length, Load, Traffic

_QUANTILES = 8
_LOADS = 24

# An assumption, not a measurement: chat with short and long questions, a third of it with its
# history in the prefix cache, and now and then a document.
# (share, median and spread of tokens in, of tokens out, part of the prompt that is cached)
_KINDS = (
    (0.60, (350.0, 1.1), (200.0, 0.9), 0.0),
    (0.30, (1500.0, 0.9), (200.0, 0.9), 0.75),
    (0.10, (8000.0, 0.7), (300.0, 0.8), 0.0),
)


def default_traffic(limits: Limits) -> list[Traffic]:
    """Several servers, each with one kind of requests, and one with all of them.

    Up to half more than ``max_num_seqs`` requests are in flight, an octave as often as another.
    """
    kinds = [
        tuple(
            Length(given, output, share, min(given - 1, int(given * cached)))
            for given in log_normal(*tokens_in)
            for output in log_normal(*tokens_out)
        )
        for share, tokens_in, tokens_out, cached in _KINDS
    ]
    loads = _loads(limits, _LOADS)
    return [Traffic(lengths, loads) for lengths in (*kinds, tuple(chain(*kinds)))]


def any_traffic(limits: Limits) -> list[Traffic]:
    """Servers of requests of every length within the limits, half of them with cached prompts."""
    loads = _loads(limits, 8)
    longest = limits.max_model_len
    found = []
    for given in _powers(min(16, longest), longest, 6):
        for output in (8, 256):
            lengths = (
                Length(near, output, 1, cached)
                for near in sorted({max(1, given // 2), max(1, given * 3 // 4), given})
                for cached in (0, near // 2)
            )
            found.append(Traffic(tuple(lengths), loads))
    return found


def _loads(limits: Limits, number: int) -> tuple[Load, ...]:
    """Up to half more than ``max_num_seqs``, an octave as often as another."""
    loads = _powers(1, limits.max_num_seqs * 1.5, number)
    # The share of a load is the part of the octaves that is nearer to it than to the others.
    borders = [0.5, *(math.sqrt(low * high) for low, high in pairwise(loads)), loads[-1] * 1.1]
    return tuple(
        Load(load, math.log2(high / low))
        for load, (low, high) in zip(loads, pairwise(borders), strict=True)
    )


def _powers(first: float, last: float, number: int) -> list[int]:
    """Up to ``number`` whole numbers from ``first`` to ``last``, each a like factor larger."""
    factor = max(1.0, last / first) ** (1 / (number - 1))
    return sorted({max(1, round(first * factor**n)) for n in range(number)})


def log_normal(median: float, spread: float) -> list[int]:
    """Quantiles in the middle of equal shares of a log-normal distribution.

    spread: standard deviation of the logarithm.
    """
    normal = NormalDist(math.log(median), spread)
    middles = ((n + 0.5) / _QUANTILES for n in range(_QUANTILES))
    return [max(1, round(math.exp(normal.inv_cdf(middle)))) for middle in middles]

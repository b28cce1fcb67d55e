"""The case registry and the random inputs cases are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Outputs = dict[str, torch.Tensor]

CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Case:
    """One call of a launcher. `run` moves each input to the device it is called for."""

    run: Callable[[Make], Outputs]
    tolerance: float


class Make:
    """Random inputs of one case, the same in every process; `made` puts them on the device."""

    def __init__(self, name: str, device: str) -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(sum(name.encode()) * 7919)

    def ints(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32):
        """Integers low <= x < high."""
        values = torch.randint(low, high, shape, generator=self.generator, dtype=torch.int64)
        return self.made(values.to(dtype))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.made(torch.randn(shape, generator=self.generator).to(dtype))

    def uniform(self, *shape: int) -> torch.Tensor:
        return self.made(torch.rand(shape, generator=self.generator))

    def permutation(self, n: int) -> torch.Tensor:
        return self.made(torch.randperm(n, generator=self.generator))

    def made(self, values, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.as_tensor(values, dtype=dtype).to(self.device)

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return self.made(torch.zeros(shape, dtype=dtype))

    def starts(self, lengths: list[int], size: int | None = None) -> torch.Tensor:
        """[size] int32 offsets of consecutive rows, the last one repeated to fill."""
        offsets = [0]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        offsets += [offsets[-1]] * ((size or len(offsets)) - len(offsets))
        return self.made(offsets, dtype=torch.int32)


def case(*variants: tuple, tolerance: float = 0.0):
    """Register a function `(make, *variant)` as one case per variant."""

    def register(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        for variant in variants or ((),):
            label = "-".join([function.__name__, *map(str, variant)])
            assert label not in CASES, f"two cases are called {label}"
            CASES[label] = Case(lambda make, v=variant: function(make, *v), tolerance)
        return function

    return register

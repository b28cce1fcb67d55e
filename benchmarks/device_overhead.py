"""How much does the emulated device add to an operator? Microseconds per call, beside plain CPU.

Small tensors, one thread, both devices in one run, alternating, best of several rounds: the figures
of a shared machine vary, their difference less so. Says nothing about a card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import gaudi_emulator
import torch
import torch.nn.functional as F


def cases(device: str) -> dict[str, Callable[[], object]]:
    """Operators on tensors of 8 or 8 x 8 elements."""
    vector, matrix = torch.ones(8, device=device), torch.ones(8, 8, device=device)
    other = torch.ones(8, device=device)
    scalar = vector.sum()
    index = torch.tensor([1, 2], device=device)
    return {
        "add": lambda: torch.add(vector, other),
        "add_": lambda: vector.add_(other),
        "add scalar": lambda: vector + 1,
        "view": lambda: vector.view(2, 4),
        "slice": lambda: vector[2:4],
        "empty": lambda: torch.empty(8, device=device),
        "copy_": lambda: vector.copy_(other),
        "to bfloat16": lambda: vector.to(torch.bfloat16),
        "mm": lambda: matrix @ matrix,
        "linear": lambda: F.linear(matrix, matrix, vector),
        "cat": lambda: torch.cat([matrix, matrix]),
        "index": lambda: matrix[index],
        "softmax": lambda: torch.softmax(matrix, -1),
        "item": scalar.item,
    }


def microseconds(function: Callable[[], object], calls: int) -> float:
    """Mean CPU time of a call in this thread, so that other processes do not count."""
    start = time.thread_time()
    for _ in range(calls):
        function()
    return (time.thread_time() - start) / calls * 1e6


def main() -> None:
    """Print a table: operator, CPU, emulated device, difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    gaudi_emulator.activate()
    torch.set_num_threads(1)
    with torch.inference_mode():
        host, card = cases("cpu"), cases("hpu")
        print(f"{'operator':<14}{'cpu us':>9}{'hpu us':>9}{'added us':>10}")
        for name in host:
            pairs = [
                (microseconds(host[name], options.calls), microseconds(card[name], options.calls))
                for _ in range(options.rounds)
            ]
            cpu, hpu = min(p[0] for p in pairs), min(p[1] for p in pairs)
            print(f"{name:<14}{cpu:>9.2f}{hpu:>9.2f}{hpu - cpu:>10.2f}")


if __name__ == "__main__":
    main()

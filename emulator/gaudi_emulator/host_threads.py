"""The host's threads are the emulated cards' cores: how many work, and how they wait for work."""

from __future__ import annotations

import os

import torch

# About 0.1 ms: longer than the pause between two operators, shorter than a time slice.
_SPINS = "20000"


def use(threads: int) -> None:
    """Give ``threads`` threads to the processes started from here, and to this one if it can.

    OpenMP reads its environment when PyTorch is imported. By default its threads wait for work by
    spinning for long, which on a busy host takes the core from the very thread they wait for (a
    decode step of a small model: 150 ms instead of 26); threads that sleep at once are slow to wake
    (with a spin in between, decode steps of a 100 M parameter model take 0.7 of the time on two
    cores). A process that began with the default computes with one thread; those it starts spin
    shortly, then sleep, and use them all. ``OMP_NUM_THREADS``, ``OMP_WAIT_POLICY`` and
    ``GOMP_SPINCOUNT`` of the user are respected.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        sleeps = os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "passive"
        torch.set_num_threads(threads if sleeps else 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)

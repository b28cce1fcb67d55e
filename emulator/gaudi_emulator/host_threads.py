"""The host's threads are the emulated cards' cores: how many work, and how they wait for work."""

from __future__ import annotations

import os

import torch


def use(threads: int) -> None:
    """Give ``threads`` threads to the processes started from here, and to this one if it can.

    OpenMP reads its environment when PyTorch is imported. By default its threads wait for work by
    spinning, which on a busy host takes the core from the very thread they wait for (a decode step
    of a small model: 150 ms instead of 26). A process that began like that computes with one
    thread; those it starts sleep while they wait, and use them all. ``OMP_NUM_THREADS`` and
    ``OMP_WAIT_POLICY`` of the user are respected.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        sleeps = os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "passive"
        torch.set_num_threads(threads if sleeps else 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

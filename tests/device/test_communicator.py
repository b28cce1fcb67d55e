"""Collectives between two processes with a card each, over hccl."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.device.communicator_case import RANKS, SIZES, mine
from tests.device.moe_case import free_port

ROOT = Path(__file__).resolve().parents[2]
BOTH = [mine(rank, 4, 6) for rank in range(RANKS)]
TOTAL = BOTH[0] + BOTH[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each rank saw: ``results[rank][name]``."""
    folder, port = tmp_path_factory.mktemp("ranks"), str(free_port())
    files = [str(folder / f"{rank}.pt") for rank in range(RANKS)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.device.communicator_case", str(rank), port, file],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for process, output in zip(ranks, outputs, strict=True):
        assert process.returncode == 0, output
    return [torch.load(file, weights_only=True) for file in files]


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("rank", range(RANKS))
def test_all_reduce_leaves_its_input_alone(results, rank):
    same(results[rank]["all_reduce"], TOTAL)
    same(results[rank]["all_reduce input"], BOTH[rank])


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_all_gather(results, rank, dim):
    same(results[rank][f"all_gather {dim}"], torch.cat(BOTH, dim))


@pytest.mark.parametrize("rank", range(RANKS))
def test_all_gather_of_a_strided_tensor(results, rank):
    same(results[rank]["all_gather strided"], torch.cat([x.t() for x in BOTH], 0))


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_reduce_scatter(results, rank, dim):
    same(results[rank][f"reduce_scatter {dim}"], TOTAL.chunk(RANKS, dim)[rank].contiguous())


@pytest.mark.parametrize("rank", range(RANKS))
def test_gather_broadcast_send_and_receive(results, rank):
    same(results[rank]["gather"], torch.cat(BOTH, 1))
    same(results[rank]["broadcast"], BOTH[1])
    same(results[rank]["recv"], mine(1, 2, 3) if rank == 0 else BOTH[0])


@pytest.mark.parametrize("rank", range(RANKS))
def test_uneven_gather(results, rank):
    wanted = torch.cat([mine(r, SIZES[r], 2) for r in range(RANKS)])
    same(results[rank]["all_gatherv"], wanted)
    same(results[rank]["all_gatherv second"], wanted.int())
    same(results[rank]["all_gatherv even"], torch.cat(BOTH))


@pytest.mark.parametrize("rank", range(RANKS))
def test_uneven_reduce_scatter(results, rank):
    same(results[rank]["reduce_scatterv"], TOTAL.split(SIZES)[rank])
    same(results[rank]["reduce_scatterv 1"], TOTAL.split([2, 4], dim=1)[rank].contiguous())


@pytest.mark.parametrize("rank", range(RANKS))
def test_experts_see_all_tokens_and_results_come_back(results, rank):
    hidden = torch.cat([mine(r, 3, 2) for r in range(RANKS)])
    scores = torch.cat([mine(r, 3, 3) for r in range(RANKS)])
    same(results[rank]["dispatch"], hidden)
    same(results[rank]["dispatch again"], hidden)
    same(results[rank]["dispatch logits"], scores)
    same(results[rank]["dispatch weights"], scores)
    same(results[rank]["dispatch ids"].flatten(), torch.tensor([0, 0, 0, 1, 1, 1]))
    # Both ranks brought the same partial results, so the sum is twice a rank's tokens.
    same(results[rank]["combine"], 2 * mine(rank, 3, 2))

"""PT_ENABLE_INT64_SUPPORT: without it the card holds an int64 tensor in 32 bits, which wrap."""

import pytest
import torch
from gaudi_emulator.graph import Graph
from habana_frameworks.torch.internal import bridge_config

from .conftest import emulated_only, run_python

pytestmark = emulated_only

LARGE = (1 << 31) + 5
WRAPPED = 5 - (1 << 31)


@pytest.fixture
def narrow():
    with bridge_config.env_setting("PT_ENABLE_INT64_SUPPORT", False):
        yield


WRITES = {
    "copy": lambda: torch.tensor([LARGE], device="hpu"),
    "copy in place": lambda: torch.zeros(1, dtype=torch.int64, device="hpu").copy_(
        torch.tensor([LARGE])
    ),
    "copy without waiting": lambda: torch.tensor([LARGE]).pin_memory().to("hpu", non_blocking=True),
    "factory": lambda: torch.full((1,), LARGE, dtype=torch.int64, device="hpu"),
    "in place": lambda: torch.full((1,), LARGE - 7, device="hpu", dtype=torch.int64).add_(7),
    "result": lambda: torch.tensor([LARGE - 7], device="hpu") + 7,
    "reduction": lambda: torch.tensor([1 << 30, 1 << 30, 5], device="hpu").sum()[None],
    "cast": lambda: torch.tensor([float(1 << 31)], device="hpu").long() + 5,
    "a part of a tensor": lambda: torch.zeros(4, dtype=torch.int64, device="hpu")[::2].fill_(LARGE),
}


@pytest.mark.parametrize("write", WRITES)
def test_values_are_whole_with_the_flag(write):
    assert set(WRITES[write]().tolist()) == {LARGE}


@pytest.mark.parametrize("write", WRITES)
def test_values_wrap_without_it(write, narrow):
    result = WRITES[write]()
    assert result.dtype == torch.int64
    assert set(result.tolist()) == {WRAPPED}


def test_small_values_and_other_dtypes_stay(narrow):
    for dtype in (torch.int64, torch.int32, torch.float64, torch.uint8):
        values = torch.tensor([0, 1, 127], dtype=dtype)
        assert (values.to("hpu") * 1).cpu().equal(values)
    numbers = torch.tensor([-(1 << 31), (1 << 31) - 1, -1])
    assert numbers.to("hpu").cpu().equal(numbers)


def test_replays_wrap(narrow):
    x, graph = torch.tensor([1], device="hpu"), Graph()
    graph.capture_begin()
    y = (x + 3) * 2
    x.copy_(y)
    graph.capture_end()
    x.fill_((1 << 30) - 1)
    graph.replay()
    assert x.item() == y.item() == 4 - (1 << 31)


def test_the_plugin_asks_for_whole_integers():
    code = (
        "from vllm_hpu.device.info import load_bridge; load_bridge(); import torch\n"
        f"print((torch.tensor([{LARGE - 7}], device='hpu') + 7).item())"
    )
    done = run_python(code, PT_HPU_LAZY_MODE="1")
    assert done.stdout.strip() == str(LARGE), done.stderr


@pytest.mark.parametrize(
    ("environment", "whole"),
    [
        ({}, True),
        ({"PT_HPU_LAZY_MODE": "1"}, False),
        ({"PT_HPU_LAZY_MODE": "1", "PT_ENABLE_INT64_SUPPORT": "1"}, True),
        ({"PT_ENABLE_INT64_SUPPORT": "0"}, False),
    ],
)
@pytest.mark.slow
def test_the_default_depends_on_the_mode(environment, whole):
    code = (
        "import torch, habana_frameworks.torch\n"
        f"print((torch.tensor([{LARGE - 7}], device='hpu') + 7).item())"
    )
    done = run_python(code, **{"PT_HPU_LAZY_MODE": "0", **environment})
    assert done.stdout.strip() == str(LARGE if whole else WRAPPED), done.stderr

"""What the inventory says about programs for Gaudi, and how their sources are read."""

import runpy
from pathlib import Path

import habana_frameworks.torch as bridge
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
SOURCE = """
import habana_frameworks.torch as htorch
import habana_frameworks.torch.core
from habana_frameworks.torch.hpex.kernels import FusedSDPA as Attention, gone
import torch

def f(x):
    import habana_frameworks.torch.utils.experimental as exp
    htorch.core.mark_step()
    if exp._get_device_type() == exp.synDeviceType.synDeviceGaudi2:
        torch.hpu.synchronize()
    run = torch.ops.hpu.mixture_of_experts.fp8
    other.core.nothing(Attention.apply(x))
"""


def test_names_are_found_through_aliases(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "program.py").write_text(SOURCE)
    users = runpy.run_path(str(SCRIPTS / "bridge_users.py"))
    names = [name.removeprefix("habana_frameworks.torch.") for name in users["collect"](tmp_path)]
    assert names == [
        "core",
        "core.mark_step",
        "hpex.kernels.FusedSDPA",
        "hpex.kernels.FusedSDPA.apply",
        "hpex.kernels.gone",
        "hpu.synchronize",
        "ops.hpu.mixture_of_experts.fp8",
        "utils.experimental",
        "utils.experimental._get_device_type",
        "utils.experimental.synDeviceType.synDeviceGaudi2",
    ]


def test_everything_that_they_use_is_there_or_refused_with_a_reason():
    inventory = runpy.run_path(str(SCRIPTS / "bridge_inventory.py"))
    assert not inventory["resolves"]("hpex.kernels.gone")
    assert not inventory["resolves"]("ops.hpu.mixture_of_experts.gone")
    found = inventory["users"]()
    assert len(found) > 100
    unknown = [name for name, row in found.items() if row["state"] == "unknown"]
    assert not unknown
    refused = {name for name, row in found.items() if row["state"] != "implemented"}
    by_plugin = {name for name in refused if "vllm-gaudi" in found[name]["by"]}
    assert not by_plugin, "the plugin for vLLM finds everything"
    training = ("hpex.experimental", "hpex.optimizers", "hpex.normalization.FusedClipNorm")
    assert {name for name in refused if not name.startswith(training)} == {
        "hpex.kernels.Fp8Ops.cast_to_fp8_v2"
    }


def test_modules_have_the_same_things_by_several_names():
    assert bridge.torch is torch
    assert bridge.core.hpu is bridge.utils.experimental.hpu is torch.hpu


def test_older_names_of_autocast():
    before = torch.hpu.is_autocast_hpu_enabled(), torch.hpu.get_autocast_hpu_dtype()
    assert before == (False, torch.bfloat16)
    with torch.autocast("hpu", dtype=torch.float16):
        assert torch.hpu.is_autocast_hpu_enabled()
        assert torch.hpu.get_autocast_hpu_dtype() == torch.float16
    try:
        torch.hpu.set_autocast_hpu_enabled(True)
        torch.hpu.set_autocast_hpu_dtype(torch.float16)
        assert torch.is_autocast_enabled("hpu")
        a = torch.ones(2, 2, device="hpu")
        assert (a @ a).dtype == torch.float16
    finally:
        torch.hpu.set_autocast_hpu_enabled(before[0])
        torch.hpu.set_autocast_hpu_dtype(before[1])


def test_names_that_left_the_bridge_say_so():
    with pytest.raises(ImportError):
        from habana_frameworks.torch.hpex.kernels.Fp8Ops import cast_to_fp8_v2  # noqa: F401

"""The modules of ``habana_frameworks.torch``: names, modes, refusals."""

import importlib

import habana_frameworks.torch as htorch
import pytest
import torch
from habana_frameworks.torch.core import quantization
from habana_frameworks.torch.core.inference import constant_tensor_names, is_inference_mode
from habana_frameworks.torch.core.step import marked_steps
from habana_frameworks.torch.utils import internal
from habana_frameworks.torch.utils.experimental import (
    _data_ptr,
    _get_device_type,
    synDeviceType,
)

NAMES = {
    "habana_frameworks.torch": ["core", "hpu", "utils", "hpex", "distributed"],
    "habana_frameworks.torch.core": [
        "mark_step",
        "hpu_initialize",
        "hpu_inference_initialize",
        "hpu_inference_set_env",
        "hpu_set_inference_env",
        "hpu_set_env",
    ],
    "habana_frameworks.torch.hpu": [
        "HPUGraph",
        "graph",
        "wrap_in_hpu_graph",
        "ModuleCacher",
        "make_graphed_callables",
        "synchronize",
        "mem_get_info",
        "Stream",
        "Event",
        "current_stream",
        "stream",
        "is_available",
        "get_device_name",
        "get_device_properties",
        "random",
        "metrics",
        "memory",
    ],
    "habana_frameworks.torch.hpu.graphs": ["wrap_in_hpu_graph", "HPUGraph"],
    "habana_frameworks.torch.hpu.memory": ["mem_get_info", "memory_stats"],
    "habana_frameworks.torch.hpu.random": ["manual_seed_all", "get_rng_state"],
    "habana_frameworks.torch.hpex.kernels": [
        "FusedSDPA",
        "RotaryPosEmbeddingMode",
        "apply_rotary_pos_emb",
        "CustomSoftmax",
    ],
    "habana_frameworks.torch.hpex.normalization": ["FusedRMSNorm"],
    "habana_frameworks.torch.internal.bridge_config": ["env_setting", "get_pt_compile_only_mode"],
    "habana_frameworks.torch.utils.internal": ["is_lazy", "lazy_only"],
    "habana_frameworks.torch.utils.experimental": ["_get_device_type", "synDeviceType"],
    "habana_frameworks.torch.distributed.hccl": ["initialize_distributed_hpu"],
}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_names_exist_and_missing_ones_name_themselves(module):
    found = importlib.import_module(module)
    for name in NAMES[module]:
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match="warp_drive"):
        _ = found.warp_drive
    with pytest.raises(ImportError, match="warp_drive"):
        exec(f"from {module} import warp_drive")


def test_torch_hpu_is_the_bridges_module():
    assert torch.hpu is htorch.hpu
    assert torch.get_device_module("hpu") is htorch.hpu
    assert torch.hpu.device_count() >= 1
    free, total = torch.hpu.mem_get_info()
    assert 0 < free <= total
    assert set(htorch.hpu.__all__) <= set(dir(htorch.hpu)) | set(
        importlib.import_module("gaudi_emulator.torch_device").__all__
    )


def test_device_type_and_address():
    expected = {"GAUDI2": synDeviceType.synDeviceGaudi2, "GAUDI3": synDeviceType.synDeviceGaudi3}
    assert _get_device_type() == expected[torch.hpu.get_device_name()]
    x = torch.ones(4, device="hpu")
    assert _data_ptr(x) == x.data_ptr() != 0
    assert _data_ptr(x[1:]) == x.data_ptr() + 4
    assert _data_ptr(torch.ones(1)) == 0


def test_nothing_depends_on_what_programs_replace(monkeypatch):
    """vllm-gaudi puts functions of its own in the place of these; the first calls the bridge's."""
    x = torch.ones(4, device="hpu")
    address = x.data_ptr()

    def refuse(*args, **kwargs):
        raise AssertionError("the bridge asked a name that programs replace")

    kind = _get_device_type()
    monkeypatch.setattr(torch.Tensor, "data_ptr", _data_ptr)
    for name in ("get_device_name", "get_device_properties", "is_available", "synchronize"):
        monkeypatch.setattr(torch.hpu, name, refuse)
    _get_device_type.cache_clear()
    assert x.data_ptr() == _data_ptr(x) == address
    assert torch.ones(1).data_ptr() == 0  # a tensor of the host has no address on the card
    assert _get_device_type() == kind
    monkeypatch.setattr(internal._Mode, "lazy", True)
    graph = htorch.hpu.HPUGraph()
    with htorch.hpu.graph(graph):
        y = x * 2
    graph.replay()
    htorch.core.mark_step(sync=True)
    htorch.utils.debug._bridge_cleanup()
    assert htorch.utils.debug.get_tensor_info(x[1:])[0] == address
    assert y.tolist() == [2.0] * 4


def test_mark_step_counts_in_lazy_mode_only(monkeypatch):
    monkeypatch.setattr(internal._Mode, "lazy", False)
    before = marked_steps()
    htorch.core.mark_step()
    assert marked_steps() == before
    monkeypatch.setattr(internal._Mode, "lazy", True)
    htorch.core.mark_step()
    htorch.core.mark_step("hpu", sync=True)
    assert marked_steps() == before + 2


def test_step_closures_run_once_after_the_next_mark_step(monkeypatch):
    ran = []

    def first(number):
        ran.append(number)
        htorch.core.add_step_closure(ran.append, (3,))

    monkeypatch.setattr(internal._Mode, "lazy", False)
    htorch.core.add_step_closure(ran.append, (0,))
    htorch.core.mark_step()
    assert ran == [], "outside the lazy mode nothing happens"
    monkeypatch.setattr(internal._Mode, "lazy", True)
    htorch.core.add_step_closure(first, args=(1,))
    htorch.core.add_step_closure(ran.append, (2,))
    assert ran == []
    htorch.core.mark_step()
    assert ran == [1, 2]
    htorch.core.iter_mark_step()
    htorch.core.mark_step()
    assert ran == [1, 2, 3]


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("0", False), ("1", True)])
def test_lazy_mode_is_chosen_by_its_variable(value, expected, monkeypatch):
    monkeypatch.setattr(internal._Mode, "lazy", None)  # as before the first question
    if value is None:
        monkeypatch.delenv("PT_HPU_LAZY_MODE", raising=False)
    else:
        monkeypatch.setenv("PT_HPU_LAZY_MODE", value)
    assert internal.is_lazy() is expected
    monkeypatch.setenv("PT_HPU_LAZY_MODE", "0" if expected else "1")
    assert internal.is_lazy() is expected, "the mode changed after it was chosen"


def test_what_is_for_the_lazy_mode_only_is_not_called_outside_of_it(monkeypatch):
    called = []
    monkeypatch.setattr(internal._Mode, "lazy", True)
    internal.lazy_only(called.append)("lazy")
    monkeypatch.setattr(internal._Mode, "lazy", False)
    with pytest.warns(UserWarning, match="append.. has an effect in the lazy mode only"):
        elsewhere = internal.lazy_only(called.append)
    elsewhere("eager")
    assert called == ["lazy"]


def test_inference_set_up():
    module = torch.nn.BatchNorm1d(4)
    module.register_buffer("scale", torch.ones(1))
    htorch.core.hpu_inference_set_env()
    assert is_inference_mode()
    htorch.core.hpu_inference_initialize(module)
    assert set(constant_tensor_names()) == set(module.state_dict())
    quantization._check_params_as_const(module)
    htorch.core.hpu_teardown_inference_env()
    assert not is_inference_mode()
    htorch.core.hpu_initialize(module, mark_only_scales_as_const=True)
    assert constant_tensor_names() == ("scale",)
    quantization._check_params_as_const(module, only_scales=True)
    with pytest.raises(RuntimeError, match="'weight' is not marked"):
        quantization._check_params_as_const(module)
    htorch.core.hpu_teardown_inference_env()
    with pytest.raises(ValueError, match="optimizer"):
        htorch.core.hpu_initialize(module, optimizer=object())


def test_inference_set_up_fuses_convolutions():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    model[1].running_mean.uniform_()
    model[1].running_var.uniform_(0.5, 2)
    fused = htorch.core.hpu_set_inference_env(model)
    htorch.core.hpu_teardown_inference_env()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(fused.to("hpu")(x.to("hpu")).cpu(), model(x))
    with pytest.warns(UserWarning, match="training mode"):
        assert htorch.core.hpu_set_inference_env(model.train()) is model
    htorch.core.hpu_teardown_inference_env()


def test_choice_of_the_attention_kernel():
    before = torch.hpu.recompute_sdp_enabled()
    with torch.hpu.sdp_kernel(enable_recompute=not before):
        assert torch.hpu.recompute_sdp_enabled() is not before
    assert torch.hpu.recompute_sdp_enabled() is before

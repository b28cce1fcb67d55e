"""Every public name of the bridge is there, or refused by an error that names it."""

import importlib
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from habana_frameworks.torch import _refused
from habana_frameworks.torch.dynamo.compile_backend import config, options
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.utils import _debug_C, debug
from habana_frameworks.torch.utils.debug import logger as loggers
from habana_frameworks.torch.utils.internal import Timer

ROOT = Path(__file__).parents[2]


def test_the_inventory_is_up_to_date():
    command = [sys.executable, str(ROOT / "scripts" / "bridge_inventory.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ask_for(module, name):
    if module == "ops.hpu":
        return getattr(torch.ops.hpu, name)
    return getattr(importlib.import_module(f"habana_frameworks.torch.{module}"), name)


def test_what_is_missing_raises_and_names_itself():
    inventory = runpy.run_path(str(ROOT / "scripts" / "bridge_inventory.py"))["inventory"]()
    asked = 0
    for module, names in inventory.items():
        for name in (name for name, text in names.items() if text != "implemented"):
            asked += 1
            with pytest.raises((ImportError, AttributeError)) as caught:
                ask_for(module, name)
            # A module that is missing is what the error names, from the first missing part on.
            where = f"habana_frameworks.torch.{module}"
            assert name in str(caught.value) or where.startswith(str(caught.value.name))
    assert asked > 10


def test_a_refusal_gives_its_reason():
    assert _refused.reason_for("hpex.optimizers.FusedAdamW")
    assert _refused.reason_for("core.mark_step") is None
    with pytest.raises(AttributeError, match="no counterpart"):
        _ = debug._clear_jit_cache
    with pytest.raises(AttributeError, match="pass of the card's graph compiler"):
        _ = torch.hpu.enable_quantization


def test_shared_weights_stay_shared_without_the_bridges_change_to_modules():
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    two.weight = one.weight
    torch.nn.ModuleList([one, two]).to("hpu")
    assert one.weight is two.weight
    assert one.weight.device.type == "hpu"


def test_timer():
    with Timer() as timer:
        with pytest.raises(RuntimeError, match="has ended"):
            _ = timer.elapsed
        time.sleep(0.01)
    assert 0.01 <= timer.elapsed == timer.end_t - timer.start_t


def test_logging(tmp_path, monkeypatch):
    monkeypatch.setenv("HABANA_LOGS", str(tmp_path / "logs"))
    before = _debug_C.get_pt_logging_levels()["PT_PYTHON"]
    messages = debug.Logger("PT_TEST")
    try:
        loggers.enable_logging("LOG_LEVEL_ALL", "warn")
        assert not _debug_C.is_log_python_enabled(loggers.get_log_level("info"))
        messages.info("unheard")
        messages.warn("heard %d and %s", 1, "two")
        messages.error("as {} or {}", "braces", 2)
        messages.critical("plain", 3)
    finally:
        _debug_C.enable_logging("LOG_LEVEL_ALL", before)
    text = (tmp_path / "logs" / "pytorch_log.txt").read_text()
    assert [line.partition("[PT_TEST] ")[2] for line in text.splitlines()] == [
        "heard 1 and two",
        "as braces or 2",
        "plain, 3",
    ]
    messages.set_store_data(True)
    messages.trace("kept")
    assert messages.data == ["[PT_TEST] kept"]
    messages.set_store_data(False)
    messages.trace("lost")
    assert messages.data == []
    with pytest.raises(ValueError, match="choose one of trace"):
        loggers.get_log_level("loud")
    with pytest.raises(ValueError, match="no logger"):
        loggers.enable_logging("LOG_LEVEL_SYN", "info")


def test_settings_of_the_compiler_backend():
    flags = config.configuration_flags
    assert frozenset(flags) == options.OPTIONS
    before = flags["use_eager_fallback"]
    flags["use_eager_fallback"] = not before
    assert config.use_eager_fallback is not before
    flags["use_eager_fallback"] = before
    with config.patch(inference=False):
        assert flags["inference"] is False
    assert flags["inference"] is True
    with pytest.raises(AttributeError, match="use_nothing"):
        config.use_nothing = True


def test_switches_of_torch_hpu():
    assert not torch.hpu.get_dynamic_shape_status()
    torch.hpu.enable_dynamic_shape()
    assert bridge_config.get_pt_hpu_enable_refine_dynamic_shapes()
    torch.hpu.disable_dynamic_shape()
    assert not torch.hpu.get_dynamic_shape_status()
    inference = importlib.import_module("habana_frameworks.torch.core.inference")
    torch.hpu.enable_inference_mode()
    assert inference.is_inference_mode()
    torch.hpu.disable_inference_mode()
    assert not inference.is_inference_mode()


def test_where_a_tensor_lies():
    x = torch.ones(3, device="hpu")
    assert debug.get_tensor_info(x) == (
        x.untyped_storage().data_ptr(),
        x.untyped_storage().nbytes(),
    )
    assert debug.get_tensor_info(torch.ones(3)) is None
    debug._bridge_cleanup()
    assert torch.equal(x.cpu(), torch.ones(3))

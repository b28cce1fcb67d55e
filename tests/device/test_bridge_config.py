"""``habana_frameworks.torch.internal.bridge_config``: reading and setting the bridge's flags."""

import os
import subprocess
import sys

import pytest
import torch
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.internal.flags import FLAGS, parse


def in_new_process(code, **environment):
    """What a fresh process prints with these variables set."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_values_come_from_the_environment():
    code = """
import habana_frameworks.torch
from habana_frameworks.torch.internal import bridge_config as c
from habana_frameworks.torch.utils.internal import is_lazy
print(is_lazy(), c.get_pt_hpu_lazy_mode(), c.get_pt_hpu_enable_lazy_collectives(),
      c.get_pt_hpu_recipe_cache_config(), c.get_pt_hpu_pool_strategy(),
      c.get_pt_enable_int64_support())
"""
    assert in_new_process(
        code,
        PT_HPU_LAZY_MODE="1",
        PT_HPU_ENABLE_LAZY_COLLECTIVES="Yes",
        PT_HPU_RECIPE_CACHE_CONFIG="/tmp/r,true,9",
        PT_HPU_POOL_STRATEGY="0x2",
    ) == ["True", "1", "True", "/tmp/r,true,9", "2", "False"]


def test_getters_have_the_flags_type():
    for name, flag in FLAGS.items():
        value = getattr(bridge_config, f"get_{name.lower()}")()
        assert type(value) is type(flag.default), name


def test_setting_returns_on_every_exit():
    get = bridge_config.get_pt_hpu_enable_eager_cache
    before = get()
    with bridge_config.env_setting("PT_HPU_ENABLE_EAGER_CACHE", not before):
        assert get() is not before
    assert get() is before
    with (
        pytest.raises(ZeroDivisionError),
        bridge_config.env_setting("PT_HPU_ENABLE_EAGER_CACHE", not before),
    ):
        raise ZeroDivisionError
    assert get() is before
    bridge_config.set_pt_hpu_enable_eager_cache(not before)
    assert get() is not before
    bridge_config.set_pt_hpu_enable_eager_cache(before)


@pytest.mark.parametrize("name", ["PT_HPU_WARP_DRIVE", "PT_HPU_LAZY_MODE"])
def test_unknown_or_fixed_flags_raise_key_error(name):
    with pytest.raises(KeyError, match=name), bridge_config.env_setting(name, True):
        pass


@pytest.mark.parametrize(
    "name", ["get_pt_hpu_warp_drive", "set_pt_hpu_lazy_mode", "reset_pt_hpu_lazy_mode"]
)
def test_unknown_functions_name_themselves(name):
    with pytest.raises(AttributeError, match=name):
        getattr(bridge_config, name)


def test_a_number_that_is_none():
    with pytest.raises(ValueError, match="PT_HPU_POOL_STRATEGY='many' is not an integer"):
        parse("PT_HPU_POOL_STRATEGY", "many")


def test_compile_only_mode_forbids_host_reads():
    x = torch.arange(3.0, device="hpu")
    with bridge_config.env_setting("PT_COMPILE_ONLY_MODE", True):
        assert bridge_config.get_pt_compile_only_mode() is True
        y = x * 2
        with pytest.raises(RuntimeError, match="PT_COMPILE_ONLY_MODE"):
            y.sum().item()
        with pytest.raises(RuntimeError, match="PT_COMPILE_ONLY_MODE"):
            y.cpu()
    assert y.tolist() == [0, 2, 4]


def test_sink_can_be_switched_off():
    """PT_HPU_ENABLE_FUSED_SDPA_SINK=false: the feature is not there, so asking for it raises."""
    q = torch.randn(1, 1, 2, 4, device="hpu")
    sink = torch.zeros(1, device="hpu")
    arguments = (q, q, q, None, 0.0, 0.5, False, False, "none", None, "left", [-1, -1], sink)
    torch.ops.hpu.sdpa_recomp_fwd(*arguments)
    with (
        bridge_config.env_setting("PT_HPU_ENABLE_FUSED_SDPA_SINK", False),
        pytest.raises(ValueError, match="PT_HPU_ENABLE_FUSED_SDPA_SINK"),
    ):
        torch.ops.hpu.sdpa_recomp_fwd(*arguments)

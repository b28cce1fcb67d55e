"""What a program finds before it imports the bridge: its metadata, and `import torch` itself."""

import os
import shutil
from pathlib import Path

import pytest

from tests.device.conftest import emulated_only, run_python

pytestmark = emulated_only

METADATA = Path(__file__).resolve().parents[2] / "emulator" / "bridge_metadata"


def run_installed(folder: Path, code: str, **environment: str) -> str:
    """Output of a process that sees the metadata which the emulator's package installs."""
    release = next(
        line[9:]
        for line in (METADATA / "PKG-INFO").read_text().splitlines()
        if line.startswith("Version: ")
    )
    shutil.copytree(
        METADATA, folder / f"habana_torch_plugin-{release}.egg-info", dirs_exist_ok=True
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = run_python(code, PYTHONPATH=path, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_metadata_name_the_release_and_do_not_look_like_another_bridge(tmp_path):
    code = """
from importlib import metadata
from packaging.version import Version
release = metadata.version("habana-torch-plugin")
assert Version(release) >= Version("1.24"), release
assert metadata.metadata("habana-torch-plugin")["Version"] == release
assert "habana-torch-plugin" in {d.metadata["Name"] for d in metadata.distributions()}
# The emulator refuses another provider of habana_frameworks; this is none.
assert "habana-torch-plugin" not in metadata.packages_distributions().get("habana_frameworks", ())
import gaudi_emulator
from vllm_hpu.device.info import software
print(software())
"""
    assert run_installed(tmp_path, code).startswith("gaudi-emulator ")


@pytest.mark.parametrize(
    ("environment", "comes"),
    [
        ({}, True),
        ({"PT_HPU_LAZY_MODE": "0"}, True),
        ({"PT_HPU_LAZY_MODE": "1"}, False),
        ({"PT_HPU_LAZY_MODE": "1", "PT_HPU_AUTOLOAD": "1"}, True),
        ({"PT_HPU_AUTOLOAD": "0"}, False),
        ({"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, False),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_import_torch_brings_the_device(tmp_path, environment, comes):
    code = """
import sys, torch
print("habana_frameworks.torch" in sys.modules, hasattr(torch, "hpu"))
"""
    assert run_installed(tmp_path, code, **environment) == f"{comes} {comes}"


@pytest.mark.parametrize("first", ["gaudi_emulator", "habana_frameworks.torch", "torch"])
def test_the_order_of_imports_does_not_matter(tmp_path, first):
    """Each of them is there once and whole, whichever begins; nobody asks too early."""
    code = f"""
import warnings
warnings.simplefilter("error")
import {first}
import gaudi_emulator
gaudi_emulator.activate()
import habana_frameworks.torch, torch
assert torch.accelerator.current_accelerator().type == "hpu"
torch.Generator(device="hpu").manual_seed(1)
print(torch.ones(2, device="hpu").sum().item())
"""
    assert run_installed(tmp_path, code) == "2.0"


def test_who_asks_too_early_is_told():
    code = """
import torch, warnings
torch.accelerator.is_available()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import habana_frameworks.torch
print(any("PT_HPU_AUTOLOAD=1" in str(w.message) for w in told))
try:
    torch.Generator(device="hpu")
except RuntimeError as error:
    print("getNewGenerator" in str(error))
"""
    done = run_python(code, PT_HPU_AUTOLOAD="0")
    assert done.stdout.split() == ["True", "True"], done.stderr

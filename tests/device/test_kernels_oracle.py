"""Our kernels against vLLM's own, which Triton's interpreter runs on the CPU."""

import subprocess
import sys
from pathlib import Path

import habana_frameworks.torch  # noqa: F401
import pytest
import torch
from safetensors.torch import load_file

from vllm_hpu.kernels import register

register()  # before the cases bind vLLM's launchers

from tests.oracle.case import Make  # noqa: E402
from tests.oracle.cases import CASES  # noqa: E402

REFERENCE = Path(__file__).parents[1] / "oracle" / "reference.py"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Outputs of all cases from vLLM's kernels, by "case/output"."""
    path = tmp_path_factory.mktemp("oracle") / "reference.safetensors"
    command = [sys.executable, str(REFERENCE), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(path)


@pytest.mark.parametrize("name", CASES)
def test_same_as_triton(name, reference):
    case = CASES[name]
    outputs = case.run(Make(name, "hpu"))
    expected = {key for key in reference if key.startswith(f"{name}/")}
    assert {f"{name}/{key}" for key in outputs} == expected
    for key, value in outputs.items():
        torch.testing.assert_close(
            value.cpu(),
            reference[f"{name}/{key}"],
            rtol=case.tolerance,
            atol=case.tolerance,
            equal_nan=True,
            msg=lambda message, key=key: f"{name}/{key}: {message}",
        )

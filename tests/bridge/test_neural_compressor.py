"""neural-compressor, as it comes from PyPI, quantises a model on the emulated card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from habana_frameworks.torch.utils.experimental import _set_scale_attributes

SCRIPT = Path(__file__).with_name("quantize_model.py")


# Weights fill half the range when scales may be any number: the other half is a reserve.
@pytest.mark.parametrize(
    ("card", "method", "largest"),
    [
        ("GAUDI2", "maxabs_arbitrary", 120.0),
        ("GAUDI3", "maxabs_arbitrary", 224.0),
        pytest.param("GAUDI2", "maxabs_hw", 240.0, marks=pytest.mark.slow),
        pytest.param("GAUDI3", "maxabs_hw", 448.0, marks=pytest.mark.slow),
        pytest.param(
            "GAUDI3", "act_maxabs_hw_weights_pcs_maxabs_pow2", 448.0, marks=pytest.mark.slow
        ),
        pytest.param("GAUDI2", "unit_scale", 240.0, marks=pytest.mark.slow),
    ],
)
def test_measure_and_quantise(card, method, largest, tmp_path):
    environment = os.environ | {"GAUDI_EMULATOR_DEVICE": card, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), method],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["dtypes"] == dict.fromkeys(("qkv.weight", "out.weight"), "torch.float8_e4m3fn")
    assert found["attention"].startswith("Patched")
    assert found["largest"] <= largest
    if method == "maxabs_arbitrary":
        assert found["largest"] == largest
    # Three FP8 products in a row. One rounds its operands by up to 2**-4, evenly spread: about
    # 2**-4 / 3**0.5 each; six operands add up to less than 0.09.
    assert max(found["errors"]) < 0.09
    assert min(found["errors"]) > 1e-3, "nothing was quantised"


def test_scale_methods_count_from_one():
    _set_scale_attributes(True, 1)
    with pytest.raises(ValueError, match="counts from 1"):
        _set_scale_attributes(True, 0)


def test_a_type_of_padding_is_needed_only_with_lengths():
    """Programs without ``valid_seq_len`` pass any type; the card does not look at it."""
    x = torch.randn(1, 2, 4, 8, device="hpu")
    arguments = (x, x, x, None, 0.0, 0.5, True, False, "none")
    plain = torch.ops.hpu.sdpa_recomp_fwd(*arguments, None, "left")[0]
    assert torch.equal(torch.ops.hpu.sdpa_recomp_fwd(*arguments, None, "none")[0], plain)
    lengths = torch.tensor([3], dtype=torch.int32, device="hpu")
    with pytest.raises(ValueError, match="seq_padding_type 'none'"):
        torch.ops.hpu.sdpa_recomp_fwd(*arguments, lengths, "none")

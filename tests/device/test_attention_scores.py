"""Scores far larger than their differences, in 16 bits: the softmax sees them unrounded."""

from collections.abc import Callable
from typing import Any

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch

from . import test_attention_decoder as decoder
from . import test_attention_mla as latent
from .attention_case import Case, Row, Step, make, reference

# Of 16 elements: products near 20,000, of which bfloat16 keeps multiples of 128, and near 83,000,
# beyond float16.
LOUD = {torch.bfloat16: 35.5, torch.float16: 72.0}
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 4e-3}

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"heads": 2, "kv_heads": 2},
    "grouped": {"heads": 4, "kv_heads": 2},
    "sliding": {"window": 40},
    # Where the cap bends: scores near 3,500 (bfloat16) or 15,000.
    "capped": {"soft_cap": 2e4},
    "latent": {"heads": 4, "kv_heads": 1, "width": latent.LATENT + latent.ROPE},
}
STEPS: dict[str, dict[str, Any]] = {
    "prefill": {"rows": [Row(0, 70), Row(0, 33)]},
    "prefill after a context": {"rows": [Row(600, 20), Row(50, 33)]},
    "decode": {"rows": [Row(600, 1), Row(37, 1)]},
    "verification": {"rows": [Row(600, 4), Row(37, 3)], "queries": 4},
    "mixed": {"rows": [Row(90, 1), Row(37, 1), Row(50, 33)]},
}


def check(kind: str, step: Step) -> None:
    """The layer's result is finite and near attention in float64 of the same operands."""
    case = step.case
    run: Callable[[Step], torch.Tensor] = latent.run if kind == "latent" else decoder.run
    found = run(step)
    assert torch.isfinite(found).all()
    expected = reference(step)[..., : found.shape[-1]]
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        found[: case.tokens].double(), expected, rtol=0, atol=TOLERANCE[case.dtype] * scale
    )


@pytest.mark.parametrize("dtype", LOUD, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", STEPS)
def test_large_scores(phase: str, kind: str, dtype: torch.dtype) -> None:
    case = Case(**STEPS[phase], **KINDS[kind], dtype=dtype, loud=LOUD[dtype], padding_tokens=2)
    check(kind, make(case, "hpu", parts=1 if kind == "latent" else 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["prefill after a context", "decode"])
def test_sums_of_large_values_stay_in_range(phase: str, kind: str) -> None:
    """Float16: the sum of a long context's values is out of range, their mean is not."""
    options = KINDS[kind] | ({"scaled": 1e-3} if kind == "latent" else {})
    case = Case(**STEPS[phase], **options, dtype=torch.float16)
    step = make(case, "hpu", parts=1 if kind == "latent" else 2)
    # In each block and head, values follow the keys; a latent is both.
    blocks, heads = step.cache.shape[:2]
    cached = step.cache.view(blocks, heads, 1 if kind == "latent" else 2, -1)[:, :, -1]
    for values in (cached, step.value, *step.full_values):
        values.abs_().mul_(2000)
    if kind == "latent":
        step.key = step.value
        step.query.div_(2000)
    check(kind, step)

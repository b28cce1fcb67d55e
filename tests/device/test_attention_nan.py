"""What is NaN stays with its own token: padding, and a request that has gone wrong."""

from typing import Any

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from vllm.v1.attention.backend import AttentionType

from vllm_hpu.attention.impl import HpuAttentionImpl

from . import test_attention_decoder as decoder
from . import test_attention_mla as latent
from .attention_case import Case, Row, Step, make, reference

NAN, INF = float("nan"), float("inf")

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sliding": {"window": 20},
    "capped": {"soft_cap": 5.0},
    "sinks": {"sinks": True},
    "latent": {"heads": 4, "kv_heads": 1, "width": latent.LATENT + latent.ROPE},
    "encoder": {"causal": False, "kv_heads": 4},
}
STEPS: dict[str, dict[str, Any]] = {
    "prefill": {"rows": [Row(0, 40), Row(0, 33)]},
    "prefill after a context": {"rows": [Row(60, 20), Row(50, 33)]},
    "decode": {"rows": [Row(60, 1), Row(37, 1)]},
    "verification": {"rows": [Row(60, 4), Row(37, 3)], "queries": 4},
    "mixed": {"rows": [Row(90, 1), Row(37, 1), Row(50, 33)]},
}
# Encoders have no cache; what windows, caps and sinks change is the same in every phase.
PHASES = {"encoder": ["prefill"], "plain": [*STEPS], "latent": [*STEPS]}
CASES = [(kind, phase) for kind in KINDS for phase in PHASES.get(kind, ["prefill", "decode"])]


def encode(step: Step) -> torch.Tensor:
    case = step.case
    impl = HpuAttentionImpl(
        case.heads, case.width, case.scale, case.kv_heads, attn_type=AttentionType.ENCODER_ONLY
    )
    output = torch.full_like(step.query, NAN)
    nothing = torch.empty(0, device="hpu")
    impl.forward(None, step.query, step.key, step.value, nothing, step.metadata, output)
    return output.cpu()


def prepared(kind: str, phase: str) -> Step:
    options = STEPS[phase] | ({"queries": 40} if kind == "encoder" else {})
    case = Case(**options, **KINDS[kind], padding_tokens=5, padding_rows=2, spare_blocks=3)
    return make(case, "hpu", parts=1 if kind == "latent" else 2)


def spoil(step: Step, tokens: slice) -> None:
    """What memory that nobody has written holds, and what a request gets that overflows."""
    for tensor in (step.query, step.key, step.value):
        tensor[tokens] = NAN
        tensor[tokens, :, ::3] = INF


def run(kind: str, step: Step) -> torch.Tensor:
    return {"latent": latent.run, "encoder": encode}.get(kind, decoder.run)(step)


@pytest.mark.parametrize(("kind", "phase"), CASES)
def test_padding_tokens_reach_nobody(kind: str, phase: str) -> None:
    step = prepared(kind, phase)
    spoil(step, slice(step.case.tokens, None))
    expected = reference(step)
    for _ in range(2):  # the second time, what the first wrote to the null block is there
        found = run(kind, step)[: step.case.tokens].double()
        torch.testing.assert_close(found, expected[..., : found.shape[-1]], rtol=0, atol=3e-6)
        assert torch.isfinite(step.cache.cpu()).all()


@pytest.mark.parametrize(("kind", "phase"), CASES)
def test_a_request_that_is_nan_spoils_no_other(kind: str, phase: str) -> None:
    """Its own tokens say so; what it leaves in the cache is finite for who gets the block next."""
    step = prepared(kind, phase)
    first = step.case.rows[0].new
    spoil(step, slice(0, first))
    found = run(kind, step)[: step.case.tokens].double()
    expected = reference(step)[first:, :, : found.shape[-1]]
    torch.testing.assert_close(found[first:], expected, rtol=0, atol=3e-6)
    assert found[:first].isnan().all()
    assert torch.isfinite(step.cache.cpu()).all()

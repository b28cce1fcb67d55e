"""Encoder-only attention: all tokens of a sequence see each other, nothing is cached."""

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from vllm.v1.attention.backend import AttentionType

from vllm_hpu.attention.impl import HpuAttentionImpl

from .attention_case import Case, Row, make, reference


@pytest.mark.parametrize("lengths", [[1], [7, 1, 30], [300, 5, 280]])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("padding", [0, 11])
def test_sequences_see_themselves_whole(
    lengths: list[int], window: int | None, padding: int
) -> None:
    case = Case(
        [Row(0, n) for n in lengths],
        heads=2,
        kv_heads=2,
        queries=max(lengths),
        causal=False,
        window=window,
        padding_tokens=padding,
        padding_rows=2,
    )
    step = make(case, "hpu")
    impl = HpuAttentionImpl(
        2, case.width, case.scale, 2, sliding_window=window, attn_type=AttentionType.ENCODER_ONLY
    )
    output = torch.full_like(step.query, float("nan"))
    nothing = torch.empty(0, device="hpu")
    impl.forward(None, step.query, step.key, step.value, nothing, step.metadata, output)
    assert torch.isfinite(output.cpu()).all()
    torch.testing.assert_close(
        output.cpu()[: case.tokens].double(), reference(step), rtol=0, atol=2e-6
    )

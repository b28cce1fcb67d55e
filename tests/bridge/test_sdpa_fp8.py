"""FP8 attention against attention in double precision."""

import pytest
import torch
from habana_frameworks.torch.hpex.kernels import fp8_fused_sdpa

E4M3 = torch.float8_e4m3fn


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("number", [False, True])
def test_scales_and_maxima(kv_heads, causal, number):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 6, 8, generator=g) for heads in (4, kv_heads, kv_heads))
    narrow = [(x * 16).to(E4M3) for x in (q, k, v)]
    exact = [x.double() / 16 for x in narrow]
    scales = {f"d_scale_{name}": 1 / 16 for name in "qkv"}
    scales |= {"q_scale_s": 128.0, "d_scale_s": 1 / 128, "q_scale_o": 32.0}
    if not number:
        scales = {name: torch.tensor([scale], device="hpu") for name, scale in scales.items()}
    out, amax_s, amax_o = fp8_fused_sdpa(
        *(x.to("hpu") for x in narrow),
        is_causal=causal,
        **scales,
        is_amax_s=True,
        is_amax_o=True,
    )
    wide = [x.repeat_interleave(4 // x.shape[1], 1) for x in exact]
    scores = wide[0] @ wide[1].transpose(-1, -2) / 8**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(6, 6).triu(1) == 1, -torch.inf)
    weights = scores.softmax(-1)
    expected = weights @ wide[2]
    assert out.dtype == E4M3
    # Half a step of e4m3 is 1/16 of a value, once for the weights and once for the result.
    torch.testing.assert_close(out.cpu().double() / 32, expected, rtol=0.07, atol=0.15)
    assert amax_s.item() == pytest.approx(weights.max().item(), rel=1e-4)
    assert amax_o.item() == pytest.approx(expected.abs().max().item(), rel=0.07)


def test_without_scales_the_result_is_bfloat16_and_refusals_explain():
    x = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(1)).to(E4M3)
    on_card = x.to("hpu")
    out, _, amax_o = fp8_fused_sdpa(on_card, on_card, on_card)
    expected = torch.nn.functional.scaled_dot_product_attention(*[x.double()] * 3)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0.01, atol=0.01)
    assert amax_o.item() == 0.0
    with pytest.raises(NotImplementedError, match="recompute=False"):
        fp8_fused_sdpa(on_card, on_card, on_card, recompute=False)
    with pytest.raises(ValueError, match="valid_seq_len needs"):
        fp8_fused_sdpa(on_card, on_card, on_card, valid_seq_len=torch.tensor([3], device="hpu"))

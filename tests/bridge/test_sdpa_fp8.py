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
    with pytest.raises(ValueError, match="recompute=False"):
        fp8_fused_sdpa(on_card, on_card, on_card, recompute=False, is_amax_o=True)
    with pytest.raises(ValueError, match="valid_seq_len needs"):
        fp8_fused_sdpa(on_card, on_card, on_card, valid_seq_len=torch.tensor([3], device="hpu"))


def keeping(q, k, v, p=0.0, **given):
    """``fp8_sdpa_fwd`` with causal attention and no mask."""
    scales = ("d_scale_q", "d_scale_k", "d_scale_v", "q_scale_s", "q_scale_o", "d_scale_s")
    tensors = [
        torch.tensor([given[name]], device="hpu") if name in given else None for name in scales
    ]
    return torch.ops.hpu.fp8_sdpa_fwd(
        q, k, v, None, p, q.shape[-1] ** -0.5, True, "none", *tensors, True, None, "left"
    )


@pytest.mark.parametrize("dtype", [E4M3, torch.float8_e5m2, torch.bfloat16])
def test_the_kernel_that_keeps_the_probabilities(dtype):
    g = torch.Generator().manual_seed(2)
    q, k, v = ((torch.randn(2, 3, 6, 8, generator=g) * 16).to(dtype) for _ in range(3))
    scales = {f"d_scale_{name}": 1 / 16 for name in "qkv"}
    scales |= {"q_scale_s": 128.0, "d_scale_s": 1 / 128, "q_scale_o": 32.0}
    on_card = [x.to("hpu") for x in (q, k, v)]
    out, weights, mask, amax = keeping(*on_card, **scales)
    scores = (q.double() @ k.double().transpose(-1, -2)) / 256 / 8**0.5
    exact = scores.masked_fill(torch.ones(6, 6).triu(1) == 1, -torch.inf).softmax(-1)
    expected = exact @ v.double() / 16
    assert out.dtype == weights.dtype == dtype
    step = {E4M3: 1 / 16, torch.float8_e5m2: 1 / 8, torch.bfloat16: 1 / 256}[dtype]
    kept = weights.cpu().double() / (1 if dtype == torch.bfloat16 else 128)
    torch.testing.assert_close(kept, exact, rtol=step, atol=1e-4)
    # The weights are multiplied with the values in e4m3, whatever the dtype of the inputs.
    torch.testing.assert_close(out.cpu().double() / 32, expected, rtol=step + 1 / 16, atol=0.15)
    assert (amax.shape, mask.tolist()) == ((1,), [0])
    assert amax.item() == pytest.approx(exact.max().item(), rel=1e-3)
    fake = torch.ops.hpu.fp8_sdpa_fwd
    meta = [x.to("meta") for x in (q, k, v)]
    shapes = fake(*meta, None, 0.0, 1.0, True, "none", *[None] * 6, True, None, "left")
    assert [x.shape for x in shapes] == [x.shape for x in (out, weights, mask, amax)]
    if dtype != torch.bfloat16:
        assert shapes[0].dtype == keeping(*on_card)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("scaled", [False, True])
def test_dropout_of_the_kernel_that_keeps_the_probabilities(scaled):
    x = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    scales = {"q_scale_s": 128.0, "d_scale_s": 1 / 128} if scaled else {}
    out, weights, mask, _ = keeping(*[x.to("hpu")] * 3, p=0.5, **scales)
    assert mask.shape == weights.shape
    assert 0.3 < mask.float().mean().item() < 0.7
    expected = (weights.cpu().double() * mask.cpu() * 2) @ x.double()
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0.07, atol=0.05)


def test_both_kernels_have_one_result():
    g = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, h, 5, 8, generator=g).to(E4M3).to("hpu") for h in (4, 2, 2))
    first, _, _ = fp8_fused_sdpa(q, k, v, is_causal=True, recompute=True)
    second, _, amax_o = fp8_fused_sdpa(q, k, v, is_causal=True, recompute=False)
    assert amax_o is None
    torch.testing.assert_close(first.cpu(), second.cpu(), rtol=0.01, atol=0.01)

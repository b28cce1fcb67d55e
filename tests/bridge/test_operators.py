"""The smaller operators of the bridge against double precision."""

import itertools

import habana_frameworks.torch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def close(actual, expected, dtype):
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        actual.cpu().double(), expected.double(), atol=tolerance, rtol=tolerance
    )


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sqrt", "rsqrt"])
def test_fast_maths(name, dtype):
    x = random(3, 5, dtype=dtype).abs() + 0.1
    out = getattr(torch.ops.hpu, f"{name}_fast_math")(x.to("hpu"))
    assert out.dtype == dtype
    close(out, getattr(torch, name)(x.double()), dtype)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 9),
    st.floats(0.25, 2.0),
)
def test_triangular_softmax(dtype, batch, queries, earlier, scale):
    keys = queries + earlier
    x = random(batch, queries, keys, seed=queries, dtype=dtype)
    hidden = torch.ones(queries, keys).tril(earlier) == 0
    scores = (x.double() * scale).masked_fill(hidden, -torch.inf)
    expected = scores.softmax(-1)
    out, inverse, highest = torch.ops.hpu.scaled_triangular_softmax_retain(x.to("hpu"), scale)
    close(out, expected, dtype)
    again = torch.ops.hpu.scaled_triangular_softmax(x.to("hpu"), scale, inverse, highest)
    assert torch.equal(again, out)
    assert torch.equal(torch.ops.hpu.scaled_triangular_softmax(x.to("hpu"), scale), out)


def test_masked_softmax_and_window():
    x, mask = random(4, 6, 6), random(4, 1, 6, seed=1)
    out = torch.ops.hpu.scaled_masked_softmax(x.to("hpu"), mask.to("hpu"), 0.5)
    close(out, (x.double() * 0.5 + mask).softmax(-1), torch.float32)
    windows = torch.tensor([[1, 4], [0, 6]])
    out = torch.ops.hpu.scaled_masked_triangular_softmax(
        x.to("hpu"), windows.to("hpu"), 0.5, 2, True, 0
    ).cpu()
    for entry, query in itertools.product(range(4), range(6)):
        start, end = windows[entry // 2].tolist()
        seen = [key for key in range(start, end) if key <= query]
        expected = torch.zeros(6, dtype=torch.double)
        if seen:
            expected[seen] = (x[entry, query, seen].double() * 0.5).softmax(-1)
        close(out[entry, query], expected, torch.float32)
    with pytest.raises(ValueError, match="start_end covers 3"):
        torch.ops.hpu.scaled_masked_triangular_softmax(
            x.to("hpu"), windows.to("hpu").repeat(2, 1)[:3], 0.5, 1, True, 0
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 2**31))
def test_cache_follows_its_beams(batch, positions, seed):
    g = torch.Generator().manual_seed(seed)
    cache = torch.randn(batch, 4, 2, positions, 3, generator=g)
    bounds = torch.randint(0, positions + 1, (2, batch), generator=g, dtype=torch.int32)
    start, end = bounds.sort(0).values
    source = torch.randint(0, 4, (batch, 4), generator=g)
    packed = (source * torch.tensor([64, 16, 4, 1])).sum(-1).to(torch.uint8)
    expected = cache.clone()
    for i in range(batch):
        span = slice(int(start[i]), int(end[i]))
        expected[i, :, :, span] = cache[i, source[i]][:, :, span]
    on_card = cache.to("hpu")
    arguments = start.to("hpu"), end.to("hpu"), packed.to("hpu")
    assert torch.equal(torch.ops.hpu.kv_reorder(on_card, *arguments).cpu(), expected)
    assert torch.equal(on_card.cpu(), cache)
    torch.ops.hpu.kv_reorder_(on_card, *arguments)
    assert torch.equal(on_card.cpu(), expected)


def test_rows_that_move():
    x = random(8, 3)
    interleaved = x.to("hpu")
    torch.ops.hpu.in_place_interleave_(interleaved)
    assert torch.equal(interleaved.cpu(), x[[0] * 4 + [1] * 4])
    index = [torch.tensor([[7], [0]]), torch.tensor([1, 2])]
    out = torch.ops.hpu.plain_index(x.to("hpu"), [i.to("hpu") for i in index])
    assert torch.equal(out.cpu(), x[index[0], index[1]])
    with pytest.raises(TypeError, match="signed integers"):
        torch.ops.hpu.plain_index(x.to("hpu"), [torch.ones(8, dtype=torch.bool, device="hpu")])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("single", [False, True])
def test_ctc_loss_and_its_gradient(reduction, single):
    kernels = habana_frameworks.torch.hpex.kernels
    shape = (10, 5) if single else (10, 2, 5)
    scores = random(*shape).log_softmax(-1)
    targets = torch.tensor([1, 2, 4] if single else [[1, 2, 4], [3, 3, 1]])
    lengths = torch.tensor(3) if single else torch.tensor([3, 2])
    times = torch.tensor(10) if single else torch.tensor([10, 9])
    reference = scores.double().requires_grad_()
    loss = torch.nn.functional.ctc_loss(reference, targets, times, lengths, 0, reduction)
    loss.sum().backward()
    leaf = scores.to("hpu").requires_grad_()
    out = kernels.CTCLoss.apply(
        leaf, targets.to("hpu"), times.to("hpu"), lengths.to("hpu"), 0, reduction
    )
    out.sum().backward()
    close(out.detach(), loss.detach(), torch.float32)
    close(leaf.grad, reference.grad, torch.float32)


def test_gradients_of_norm_and_rotary():
    normalization = habana_frameworks.torch.hpex.normalization
    kernels = habana_frameworks.torch.hpex.kernels
    x, gamma, grad = random(4, 3, 8), random(8, seed=1), random(4, 3, 8, seed=2)
    wide, weight = x.double().requires_grad_(), gamma.double().requires_grad_()
    (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5) * weight).backward(grad)
    leaf, scale = x.to("hpu").requires_grad_(), gamma.to("hpu").requires_grad_()
    normalization.FusedRMSNorm.apply(leaf, scale, 1e-5).backward(grad.to("hpu"))
    close(leaf.grad, wide.grad, torch.float32)
    close(scale.grad, weight.grad, torch.float32)

    cos, sin = random(3, 8, seed=3), random(3, 8, seed=4)
    wide = x.double().requires_grad_()
    first, second = wide.chunk(2, -1)
    (wide * cos + torch.cat((-second, first), -1) * sin).backward(grad)
    leaf = x.to("hpu").requires_grad_()
    turned = kernels.RotaryPosEmbeddingHelperV1.apply(leaf, cos.to("hpu"), sin.to("hpu"), 0)
    turned.backward(grad.to("hpu"))
    close(leaf.grad, wide.grad, torch.float32)

    cache = random(4, 1, 2, 2, seed=5)
    heads = x.reshape(4, 1, 3, 8)
    wide = heads.double().requires_grad_()
    angle = torch.view_as_complex(cache.double().contiguous()).unsqueeze(2)
    turned = torch.view_as_complex(wide[..., :4].reshape(4, 1, 3, 2, 2)) * angle
    expected = torch.cat((torch.view_as_real(turned).flatten(-2), wide[..., 4:]), -1)
    expected.backward(grad.reshape(4, 1, 3, 8))
    leaf = heads.to("hpu").requires_grad_()
    out = kernels.apply_rotary_pos_emb(leaf, cache.to("hpu"))
    out.backward(grad.reshape(4, 1, 3, 8).to("hpu"))
    close(out.detach(), expected.detach(), torch.float32)
    close(leaf.grad, wide.grad, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_sum_softmax_and_convolution(dtype):
    x = random(2, 3, 4, 5).to(dtype)
    total = torch.ops.hpu.sum_fp8(x.to("hpu"), [1], True, torch.float32)
    close(total, x.double().sum(1, keepdim=True), torch.float32)
    out = torch.ops.hpu.softmax_fp8(x.to("hpu"), -1, 0.5, 2.0, 0.25)
    expected = (x.double() * 0.125).softmax(-1) * 2.0
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0.07, atol=0.01)
    weight, bias = random(6, 3, 2, 2, seed=1).to(dtype), random(6, seed=2)
    image = torch.ops.hpu.conv2d_fp8(
        x.to("hpu"), weight.to("hpu"), bias.to("hpu"), 1, 0, 1, 1, torch.float32, 2.0, 0.5
    )
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double())
    close(image, expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_narrow_type_without_a_host_kernel_runs_wide(dtype):
    x = random(3, 4).to(dtype)
    out = x.to("hpu").amax(dim=1)
    assert out.dtype == dtype
    assert torch.equal(out.cpu().float(), x.float().amax(dim=1))
    y = x.to("hpu")
    pointer = y.data_ptr()
    assert y.clamp_(-0.5, 0.5).data_ptr() == pointer
    assert torch.equal(y.cpu().float(), x.float().clamp(-0.5, 0.5))
    indices = x.to("hpu").argmax(dim=1)
    assert indices.dtype == torch.int64
    assert torch.equal(indices.cpu(), x.float().argmax(dim=1))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([*DTYPES, torch.float16]), st.floats(-2, 2), st.integers(0, 2**31))
def test_sum_of_rounded_products_above_zero(dtype, alpha, seed):
    """Each step rounds: a single rounding at the end gives other numbers."""
    a, b = random(4, 1, 5, seed=seed, dtype=dtype), random(3, 5, seed=seed + 1, dtype=dtype)
    alpha = torch.tensor(alpha, dtype=dtype).item()
    product = (b.double() * alpha).to(dtype)
    expected = (a.double() + product.double()).to(dtype).clamp(min=0)
    out = torch._add_relu(a.to("hpu"), b.to("hpu"), alpha=alpha)
    assert torch.equal(out.cpu(), expected)
    wide = a.expand(4, 3, 5).clone().to("hpu")
    assert torch._add_relu_(wide, b.to("hpu"), alpha=alpha).data_ptr() == wide.data_ptr()
    assert torch.equal(wide.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_an_outer_product_is_added_with_one_rounding(dtype):
    x, u, v = random(5, 7, seed=1), random(5, seed=2), random(7, seed=3)
    x, u, v = (t.to(dtype) for t in (x, u, v))
    expected = (0.5 * x.double() + 0.75 * torch.outer(u.double(), v.double())).to(dtype)
    on_card = [t.to("hpu") for t in (x, u, v)]
    found = torch.addr(*on_card, beta=0.5, alpha=0.75)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)
    view = x.t().contiguous().to("hpu").t()
    assert view.addr_(*on_card[1:], beta=0.5, alpha=0.75) is view
    assert torch.equal(view, found)
    unread = torch.full_like(on_card[0], torch.nan)
    assert torch.equal(torch.addr(unread, *on_card[1:], beta=0), torch.outer(*on_card[1:]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_norms_round_once(dtype):
    """PyTorch's general form of them rounds before it scales."""
    x, weight, bias = random(6, 8, 5, seed=1), random(8, seed=2), random(8, seed=3)
    x, weight, bias = (t.to(dtype) for t in (x, weight, bias))
    x = x * 3 + 1
    nn = torch.nn.functional
    for norm in (
        lambda x, w, b: nn.layer_norm(x.transpose(1, 2), (8,), w, b, 1e-2),
        lambda x, w, b: nn.group_norm(x, 4, w, b, 1e-2),
    ):
        found = norm(x.to("hpu"), weight.to("hpu"), bias.to("hpu")).cpu()
        wide = norm(x.double(), weight.double(), bias.double())
        half_a_step = torch.finfo(dtype).eps / 2 * 1.02
        torch.testing.assert_close(found.double(), wide, rtol=half_a_step, atol=2e-6)


@pytest.mark.parametrize("affine", [False, True])
def test_an_instance_norm_and_its_gradients(affine):
    x, grad = random(3, 4, 5, 2, seed=1) + 2, random(3, 4, 5, 2, seed=2)
    parameters = [random(4, seed=3), random(4, seed=4)] if affine else []

    def run(device, dtype):
        tensors = [t.to(device, dtype).requires_grad_() for t in (x, *parameters)]
        norm = dict(zip(("weight", "bias"), tensors[1:], strict=False))
        result = torch.nn.functional.instance_norm(tensors[0], eps=1e-3, **norm)
        found = torch.autograd.grad(result, tensors, grad.to(device, dtype), retain_graph=True)
        again = torch.autograd.grad(result, tensors, grad.to(device, dtype), create_graph=True)
        second = torch.autograd.grad(again[0].pow(3).sum(), tensors[: 1 + affine])
        return [t.detach().cpu().double() for t in (result, *found, *again, *second)]

    found = run("hpu", torch.float32)
    for ours, theirs in zip(found, run("cpu", torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_instance_norm_with_running_statistics():
    x = random(3, 4, 5, seed=1)
    module = torch.nn.InstanceNorm1d(4, track_running_stats=True)
    expected = module(x), module.eval()(x)
    other = torch.nn.InstanceNorm1d(4, track_running_stats=True).to("hpu")
    found = other(x.to("hpu")), other.eval()(x.to("hpu"))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_dropout_of_the_card_takes_the_probability_to_drop(p):
    x = random(64, 64, seed=1).to("hpu")
    torch.manual_seed(3)
    found, mask = torch._fused_dropout(x, p)
    kept = mask.float().mean().item()
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-9
    expected = torch.where(mask.bool(), x / (1 - p) if p < 1 else x, 0)
    torch.testing.assert_close(found, expected)
    torch.manual_seed(3)
    assert torch.equal(torch._fused_dropout(x, p)[1], mask)
    if 0 < p < 1:
        torch.testing.assert_close(torch._masked_scale(x, mask.to(x.dtype), 1 / p), found)


def test_only_the_wide_fp8_format_is_rounded_stochastically():
    x = random(64, 64).to("hpu")
    wide, exact, _ = torch.ops.hpu.cast_to_fp8_hybrid(x, stochastic_rounding=True)
    nearest = torch.ops.hpu.cast_to_fp8_hybrid(x)
    assert not torch.equal(wide.float(), nearest[0].float())
    assert torch.equal(exact.float(), nearest[1].float())

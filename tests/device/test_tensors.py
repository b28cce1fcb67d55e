"""Tensors on the card: data types, views, writing in place, indexing, attention, compiling."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F

HPU = torch.device("hpu")

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.bool,
    torch.complex64,
]


def same(result: torch.Tensor, expected: torch.Tensor) -> None:
    """The result is on the card and equals what the CPU computes, bit for bit."""
    assert result.device == torch.device("hpu:0")
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_survives_copies_views_and_casts(dtype):
    host = torch.arange(8, dtype=torch.float32).to(dtype)
    card = host.to(HPU)
    same(card.view(2, 4).t().contiguous(), host.view(2, 4).t().contiguous())
    same(torch.cat([card[2:4], card]), torch.cat([host[2:4], host]))
    assert card.view(torch.uint8).nbytes == host.nbytes
    restored = torch.zeros_like(card).copy_(card)
    same(restored, host)
    assert str(dtype).split(".")[1] in repr(card) or dtype in (
        torch.float32,
        torch.int64,
        torch.bool,
        torch.complex64,
    )


def test_views_share_memory_and_keep_their_base():
    base = torch.zeros(4, 6, device=HPU)
    view = base.view(2, 12)[1:].narrow(1, 2, 4)
    view.add_(1)
    assert base.cpu().sum() == 4
    assert view._base is base
    assert base.t().data_ptr() == base.data_ptr()
    same(base.unfold(1, 3, 3)[2], base.cpu().unfold(1, 3, 3)[2])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_views_and_writes_in_every_grad_mode(mode):
    outside = torch.ones(6, device=HPU)
    with mode():
        inside = torch.ones(6, device=HPU)
        inside.view(2, 3)[0].mul_(3)
        outside.view(3, 2)[1].add_(1)
        empty = torch.empty(0, 4, device=HPU).view(4, 0)
        assert empty.is_inference() == (mode is torch.inference_mode)
    same(inside, torch.tensor([3.0, 3, 3, 1, 1, 1]))
    same(outside, torch.tensor([1.0, 1, 2, 2, 1, 1]))


def test_out_variants_resize_their_output():
    out = torch.empty(0, device=HPU)
    result = torch.abs(torch.tensor([-1.0, 2.0], device=HPU), out=out)
    assert result is out
    same(out, torch.tensor([1.0, 2.0]))
    out.resize_(3)
    assert out.shape == (3,)
    same(out[:2], torch.tensor([1.0, 2.0]))


def test_indexing_reads_and_writes():
    host = torch.arange(12.0).view(3, 4)
    card = host.to(HPU)
    rows, card_rows = torch.tensor([0, 2]), torch.tensor([0, 2], device=HPU)
    same(card[card_rows], host[rows])
    same(card[:, card_rows], host[:, rows])
    same(card[card > 3], host[host > 3])
    same(card[[0, 1], ..., None], host[[0, 1], ..., None])
    for tensor, index in ((host, rows), (card, card_rows)):
        device = tensor.device
        tensor.index_copy_(0, index, torch.full((2, 4), 7.0, device=device))
        tensor.index_put_((index, index), torch.ones(2, device=device), accumulate=True)
        tensor[tensor < 6] = -1.0
        tensor.scatter_(1, torch.zeros(3, 1, dtype=torch.long, device=device), 9.0)
        tensor[1, 1] = 5
    same(card, host)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_equals_the_cpu(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 8, 16).to(dtype) for _ in range(3))
    mask = torch.zeros(8, 8, dtype=dtype).masked_fill(torch.ones(8, 8).triu(1) > 0, -1e4)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    same(
        F.scaled_dot_product_attention(*(t.hpu() for t in (q, k, v)), attn_mask=mask.hpu()),
        expected,
    )
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    same(F.scaled_dot_product_attention(q.hpu(), k.hpu(), v.hpu(), is_causal=True), causal)


def test_foreach_operators():
    cards = [torch.full((2,), float(i), device=HPU) for i in range(3)]
    torch._foreach_add_(cards, 1.0)
    torch._foreach_mul_(cards, cards)
    assert [t.sum().item() for t in cards] == [2.0, 8.0, 18.0]


def test_convolution():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        same(copy.deepcopy(layer).hpu()(x.hpu()), layer(x))


def test_conjugate_views_are_resolved():
    host = torch.tensor([1 + 2j, 3 - 1j])
    same(host.hpu().conj() + 1, host.conj() + 1)
    same(torch.view_as_real(host.hpu()), torch.view_as_real(host))


def test_compile_calls_the_backend_once_per_shape():
    calls = []

    def backend(module, example_inputs):
        calls.append([tuple(t.shape) for t in example_inputs if isinstance(t, torch.Tensor)])
        return module.forward

    function = torch.compile(lambda x: F.silu(x) * 2 + x.sum(), backend=backend, dynamic=False)
    for size in (4, 4, 6):
        x = torch.randn(size, device=HPU)
        torch.testing.assert_close(function(x), F.silu(x) * 2 + x.sum())
    assert calls == [[(4,)], [(6,)]]


def test_fake_tensors_carry_the_device():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        product = torch.empty(3, 3, device="hpu:1") @ torch.empty(3, 2, device="hpu:1")
    assert product.device == torch.device("hpu:1")
    assert product.shape == (3, 2)


def test_saving_loading_pickling_and_copying():
    card = torch.arange(4.0, device=HPU)
    buffer = io.BytesIO()
    torch.save({"card": card, "host": torch.ones(2)}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    same(loaded["card"], card.cpu())
    buffer.seek(0)
    moved = torch.load(buffer, map_location="hpu:1", weights_only=True)
    assert {t.device for t in moved.values()} == {torch.device("hpu:1")}
    buffer.seek(0)
    assert torch.load(buffer, map_location="cpu", weights_only=True)["card"].is_cpu
    same(pickle.loads(pickle.dumps(card)), card.cpu())  # noqa: S301 - our own bytes
    same(copy.deepcopy(card), card.cpu())


def test_moving_tensors_and_modules():
    assert torch.ones(2).hpu().is_hpu
    assert not torch.ones(2).is_hpu
    module = torch.nn.Linear(2, 2).hpu()
    assert {p.device for p in module.parameters()} == {torch.device("hpu:0")}
    assert module.to("cpu").weight.is_cpu
    with torch.device("hpu"):
        assert torch.nn.Linear(2, 2).weight.is_hpu


def test_printing_shows_values_and_device():
    text = repr(torch.tensor([1.0, 2.0], dtype=torch.bfloat16, device="hpu:1"))
    assert text == "tensor([1., 2.], device='hpu:1', dtype=torch.bfloat16)"

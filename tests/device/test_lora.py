"""Multi-LoRA layers of vLLM over our products, against weights with the adapter merged in."""

import gaudi_emulator
import pytest
import torch
from vllm.config.lora import LoRAConfig
from vllm.lora.layers import LoRAMapping

from vllm_hpu.lora.punica import PunicaWrapperHPU, slots_of, with_logits_of
from vllm_hpu.lora.slots import FillsFromHost

SLOTS, RANK, HIDDEN, TOKENS, LIMIT = 3, 4, 20, 11, 32
# Adapter ids in the slots; slot 1 is empty.
IN_SLOT = [7, None, 4]


@pytest.fixture
def wrapper():
    config = LoRAConfig(max_lora_rank=8, max_loras=SLOTS, lora_dtype=torch.float32)
    return PunicaWrapperHPU(LIMIT, max_batches=8, device=torch.device("hpu"), lora_config=config)


def select(wrapper, token_ids, request_ids=(7, 0, 4)):
    mapping = LoRAMapping(tuple(token_ids), tuple(request_ids), is_prefill=True)
    wrapper.update_metadata(mapping, IN_SLOT, SLOTS + 1, 50)


def adapters(seed, *widths, fan_in=HIDDEN, rank=RANK):
    """Stacked A and B per output slice, slot 1 left empty, as vLLM lays them out."""
    generator = torch.Generator().manual_seed(seed)
    lora_a, lora_b = [], []
    for width in widths:
        a = torch.randn(SLOTS, 1, rank, fan_in, generator=generator) * fan_in**-0.5
        b = torch.randn(SLOTS, 1, width, rank, generator=generator)
        a[1], b[1] = 0, 0
        lora_a.append(a)
        lora_b.append(b)
    return tuple(lora_a), tuple(lora_b)


def merged(x, base, lora_a, lora_b, slots, scale=1.0):
    """Row by row with the merged weight ``W + scale · B A``, in float64."""
    rows = []
    for row, slot in zip(x.double(), slots, strict=True):
        parts = []
        for weight, a, b in zip(base, lora_a, lora_b, strict=True):
            total = weight.double()
            if slot >= 0:
                total = total + scale * b[slot, 0].double() @ a[slot, 0].double()
            parts.append(total @ row)
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def on_hpu(tensors):
    return tuple(tensor.to("hpu") for tensor in tensors)


TOKEN_IDS = [7, 7, 0, 4, 4, 4, 0, 0, 7, 4, 0]


@pytest.mark.parametrize(
    "widths",
    [(16,), (12, 6, 6), (10, 10)],
    ids=["linear or row parallel", "merged q k v", "merged gate up"],
)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_linear(wrapper, widths, scale):
    torch.manual_seed(1)
    x = torch.randn(TOKENS, HIDDEN)
    base = [torch.randn(width, HIDDEN) * HIDDEN**-0.5 for width in widths]
    lora_a, lora_b = adapters(2, *widths)
    select(wrapper, TOKEN_IDS)
    y = torch.cat([x @ weight.T for weight in base], dim=-1).to("hpu")
    wrapper.add_lora_linear(y, x.to("hpu"), on_hpu(lora_a), on_hpu(lora_b), scale, widths)
    wanted = merged(x, base, lora_a, lora_b, slots_of(tuple(TOKEN_IDS), IN_SLOT), scale)
    torch.testing.assert_close(y.cpu().double(), wanted, rtol=1e-5, atol=1e-5)


def test_shrink_and_expand_apart(wrapper):
    """The two halves that fully sharded LoRA calls with a collective in between."""
    torch.manual_seed(3)
    widths = (12, 6)
    x = torch.randn(TOKENS, HIDDEN)
    base = [torch.randn(width, HIDDEN) for width in widths]
    lora_a, lora_b = adapters(4, *widths)
    select(wrapper, TOKEN_IDS)
    start = 5
    y = torch.zeros(TOKENS, start + sum(widths))
    y[:, start:] = torch.cat([x @ weight.T for weight in base], dim=-1)
    y = y.to("hpu")
    buffers = torch.zeros(2, TOKENS, RANK, device="hpu")
    wrapper.add_shrink(buffers, x.to("hpu"), on_hpu(lora_a), 1.0)
    wrapper.add_expand(y, buffers, on_hpu(lora_b), widths, offset_start=start, add_input=True)
    wanted = merged(x, base, lora_a, lora_b, slots_of(tuple(TOKEN_IDS), IN_SLOT))
    torch.testing.assert_close(y.cpu()[:, start:].double(), wanted, rtol=1e-5, atol=1e-5)
    assert not y.cpu()[:, :start].any()


def test_expand_can_overwrite(wrapper):
    select(wrapper, TOKEN_IDS)
    _, lora_b = adapters(5, 6)
    buffers = torch.ones(1, TOKENS, RANK, device="hpu")
    y = torch.full((TOKENS, 6), 9.0, device="hpu")
    wrapper.add_expand(y, buffers, on_hpu(lora_b), (6,), add_inputs=False)
    slots = slots_of(tuple(TOKEN_IDS), IN_SLOT)
    wanted = torch.stack(
        [lora_b[0][slot, 0].sum(-1) if slot >= 0 else torch.zeros(6) for slot in slots]
    )
    torch.testing.assert_close(y.cpu(), wanted, rtol=1e-5, atol=1e-5)


def test_embedding(wrapper):
    """As vLLM's embedding layer calls it, with tokens padded beyond the mapping."""
    torch.manual_seed(6)
    vocabulary, padded = 50, 16
    select(wrapper, TOKEN_IDS)
    table = torch.randn(vocabulary, HIDDEN)
    lora_a = torch.randn(SLOTS, vocabulary, RANK)
    _, (lora_b,) = adapters(7, HIDDEN)
    token_ids = torch.randint(vocabulary, (padded,))
    offsets = wrapper._embeddings_indices[:padded].cpu()
    shrunk = lora_a.view(-1, RANK)[token_ids + offsets]
    y = table[token_ids].to("hpu")
    wrapper.add_lora_embedding(y, shrunk.to("hpu"), lora_b.to("hpu"), add_input=True)
    slots = [*slots_of(tuple(TOKEN_IDS), IN_SLOT), *[-1] * (padded - TOKENS)]
    for row, (token, slot) in enumerate(zip(token_ids.tolist(), slots, strict=True)):
        wanted = table[token].double()
        if slot >= 0:
            wanted = wanted + lora_b[slot, 0].double() @ lora_a[slot, token].double()
        torch.testing.assert_close(y[row].cpu().double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_padded_rows(wrapper, dtype):
    """Rows of logits belong to requests, and rows behind the requests to nobody."""
    torch.manual_seed(8)
    vocabulary, rows = 30, 6
    select(wrapper, TOKEN_IDS, request_ids=(4, 0, 7))
    x, head = torch.randn(rows, HIDDEN), torch.randn(vocabulary, HIDDEN)
    (lora_a,), (lora_b,) = adapters(9, vocabulary)
    y = (x @ head.T).to(dtype).to("hpu")
    wrapper.add_lora_logits(y, x.to("hpu"), lora_a.to("hpu"), lora_b.to("hpu"), 1.0)
    wanted = merged(x, [head], [lora_a], [lora_b], [2, -1, 0, -1, -1, -1])
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(y.cpu().double(), wanted, rtol=tolerance, atol=tolerance)


def test_logits_of_tokens_of_the_step(wrapper):
    """Prompt tokens that are scored, and draft tokens: any rows, more than there are requests."""
    torch.manual_seed(10)
    vocabulary, tokens = 30, [10, 0, 2, 3, 3, 8, 1]
    select(wrapper, TOKEN_IDS, request_ids=(4, 0, 7))
    x, head = torch.randn(len(tokens), HIDDEN), torch.randn(vocabulary, HIDDEN)
    (lora_a,), (lora_b,) = adapters(9, vocabulary)
    y = (x @ head.T).to("hpu")
    with with_logits_of([wrapper], torch.tensor(tokens, device="hpu")):
        wrapper.add_lora_logits(y, x.to("hpu"), lora_a.to("hpu"), lora_b.to("hpu"), 1.0)
    slots = slots_of(tuple(TOKEN_IDS[token] for token in tokens), IN_SLOT)
    wanted = merged(x, [head], [lora_a], [lora_b], slots)
    torch.testing.assert_close(y.cpu().double(), wanted, rtol=1e-5, atol=1e-5)
    assert wrapper.logit_tokens is None


def test_classification_head_of_an_adapter(wrapper):
    select(wrapper, TOKEN_IDS, request_ids=(4, 0, 7))
    x, y = torch.randn(3, HIDDEN), torch.randn(3, 2)
    weight, bias = torch.randn(SLOTS, 1, 2, HIDDEN), torch.randn(SLOTS, 2)
    enabled = torch.tensor([True, False, False])
    got = y.to("hpu")
    wrapper.apply_lora_full_linear(
        got, x.to("hpu"), weight.to("hpu"), bias.to("hpu"), enabled.to("hpu")
    )
    wanted = y.clone()
    wanted[2] = weight[0, 0] @ x[2] + bias[0]  # adapter 4 has no head of its own, adapter 7 has
    torch.testing.assert_close(got.cpu(), wanted, rtol=1e-5, atol=1e-5)


def test_a_step_without_adapters_computes_nothing(wrapper):
    """Weights full of NaN show that no product is taken."""
    select(wrapper, [0] * TOKENS, request_ids=(0, 0))
    assert wrapper.no_lora
    bad = torch.full((SLOTS, 1, RANK, HIDDEN), float("nan"), device="hpu")
    bad_b = torch.full((SLOTS, 1, 6, RANK), float("nan"), device="hpu")
    x, y = torch.randn(TOKENS, HIDDEN, device="hpu"), torch.zeros(TOKENS, 6, device="hpu")
    wrapper.add_lora_linear(y, x, (bad,), (bad_b,), 1.0, (6,))
    wrapper.add_lora_logits(y, x, bad, bad_b, 1.0)
    assert not y.cpu().any()


def test_the_next_step_replaces_the_mapping(wrapper):
    """Rows beyond a shorter step must not keep the adapter of a longer one."""
    select(wrapper, [7] * LIMIT, request_ids=(7,) * 8)
    select(wrapper, [4], request_ids=(4,))
    lora_a, lora_b = adapters(11, 6)
    x, y = torch.randn(5, HIDDEN, device="hpu"), torch.zeros(5, 6, device="hpu")
    wrapper.add_lora_linear(y, x, on_hpu(lora_a), on_hpu(lora_b), 1.0, (6,))
    assert y.cpu()[0].any()
    assert not y.cpu()[1:].any()


def test_an_adapter_without_a_slot_is_refused(wrapper):
    with pytest.raises(ValueError, match=r"adapter 9 .*--max-loras"):
        select(wrapper, [7, 9])


def test_a_mapping_longer_than_the_step_limit_is_refused(wrapper):
    with pytest.raises(ValueError, match="--max-num-batched-tokens"):
        select(wrapper, [7] * (LIMIT + 1))


def test_numbers_that_fill_a_slot_come_from_the_host() -> None:
    weights, switches = torch.ones(2, 3, 4, device="hpu"), torch.ones(2, device="hpu").bool()
    plain = torch.ones(2, device="hpu")
    with gaudi_emulator.measure() as work, FillsFromHost():
        weights[1] = 0
        switches[0] = False
        plain.zero_()
    assert not work.launches
    assert weights.cpu().view(2, -1).tolist() == [[1.0] * 12, [0.0] * 12]
    assert switches.tolist() == [False, True]
    assert plain.tolist() == [0.0, 0.0]

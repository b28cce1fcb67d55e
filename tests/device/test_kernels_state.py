"""What has no Triton counterpart to compare with: padding rows, raw-pointer methods, registration.

Triton's interpreter cannot run vLLM's grammar kernel, its KV zeroing or its prompt-embedding
kernel, so these are compared with plain loops.
"""

from types import SimpleNamespace

import habana_frameworks.torch  # noqa: F401
import numpy as np
import pytest
import torch

from vllm_hpu.kernels import REPLACED, register

register()

from vllm.v1.kv_cache_interface import FullAttentionSpec  # noqa: E402
from vllm.v1.worker.gpu import input_batch  # noqa: E402
from vllm.v1.worker.gpu.model_states.prompt_embeds import PromptEmbedsState  # noqa: E402
from vllm.v1.worker.gpu.structured_outputs import StructuredOutputsWorker  # noqa: E402
from vllm.v1.worker.utils import AttentionGroup, KVBlockZeroer  # noqa: E402

from vllm_hpu.kernels import registry  # noqa: E402


def ints(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device="hpu")


def test_padding_rows_sample_nothing_and_leave_the_dump_row_at_rest():
    states, dump = 4, 3
    idx = torch.tensor([1, dump, dump], device="hpu")
    lengths, prompts = ints([6, 0, 0]), ints([0, 5, 0, 0])
    sampled, rejected = input_batch.get_num_sampled_and_rejected(
        ints([1, 1, 1]), lengths, ints([0, 1, 2, 3]), idx, prompts
    )
    assert sampled.tolist() == [1, 0, 0]
    assert rejected.tolist() == [0, 0, 0]
    total, computed = ints([9, 6, 9, 0]), ints([8, 5, 8, 0])
    tokens = torch.zeros(states, 16, dtype=torch.int32, device="hpu")
    input_batch.post_update(
        idx,
        computed,
        torch.zeros(states, 1, dtype=torch.int64, device="hpu"),
        None,
        torch.tensor([[11], [12], [13]], device="hpu"),
        ints([1, 1, 1]),  # even if somebody claims that padding rows sampled
        rejected,
        ints([0, 1, 1, 1]),
        tokens,
        total,
    )
    assert total.tolist() == [9, 7, 9, 0]
    assert computed.tolist() == [8, 6, 8, 0]
    assert tokens[1].tolist() == [0] * 6 + [11] + [0] * 9
    assert not tokens[[0, 2]].any()


def test_a_full_request_does_not_spill_into_the_next_row():
    tokens = torch.zeros(3, 4, dtype=torch.int32, device="hpu")
    input_batch.post_update(
        torch.tensor([0], device="hpu"),
        ints([3, 0, 0]),
        torch.zeros(3, 1, dtype=torch.int64, device="hpu"),
        None,
        torch.tensor([[7, 8]], device="hpu"),
        ints([2]),
        ints([0]),
        None,
        tokens,
        ints([3, 0, 0]),
    )
    assert tokens[:2].tolist() == [[0, 0, 0, 7], [0, 0, 0, 0]]


def test_positions_of_padding_tokens_are_zero():
    pos = torch.full((6,), 99, device="hpu")
    lengths = ints([5, 5])
    input_batch.prepare_pos_seq_lens(
        torch.tensor([0, 2], device="hpu"), ints([0, 2, 2]), ints([4, 0, 0]), pos, lengths
    )
    assert pos.tolist() == [4, 5, 0, 0, 0, 0]
    assert lengths.tolist() == [6, 0]


@pytest.mark.parametrize("drafted", [False, True])
def test_grammar_masks_only_its_rows(drafted):
    vocab, counts = 75, [1, 3, 1, 2] if drafted else [1, 1, 1, 1]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    constrained = ["d", "b"]
    batch = SimpleNamespace(
        req_ids=["a", "b", "c", "d"],
        cu_num_logits_np=starts,
        num_draft_tokens_per_req=np.array(counts) - 1 if drafted else None,
    )
    rows = [r for name in constrained for r in range(*starts["abcd".index(name) :][:2])]
    generator = np.random.default_rng(0)
    allowed = generator.random((len(rows), 96)) < 0.5
    masks = np.packbits(allowed, axis=1, bitorder="little").view(np.int32)
    logits = torch.randn(int(starts[-1]), vocab)
    expected = logits.clone()
    for row, bits in zip(rows, allowed, strict=True):
        expected[row, ~torch.tensor(bits[:vocab])] = float("-inf")
    worker = StructuredOutputsWorker.__new__(StructuredOutputsWorker)
    worker.num_bonus_tokens, worker.mask_stride = 1, 4
    found = logits.to("hpu")
    worker.apply_grammar_bitmask(found, batch, constrained, masks)
    assert torch.equal(found.cpu(), expected)
    worker.apply_grammar_bitmask(found, batch, [], masks)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("ratio", [1, 2])
def test_zeroed_blocks_are_zero_and_others_are_not(ratio):
    blocks = 5
    spec = FullAttentionSpec(block_size=32, num_kv_heads=2, head_size=8, dtype=torch.float32)
    cache = torch.ones(blocks * ratio, 2, 32 // ratio, 16, device="hpu")
    group = AttentionGroup(
        backend=None, layer_names=["layer"], kv_cache_spec=spec, kv_cache_group_id=0
    )
    zeroer = KVBlockZeroer(
        torch.device("hpu"),
        [group],
        [32 // ratio],
        {"layer": SimpleNamespace(kv_cache=cache)},
        blocks,
    )
    zeroer.zero_block_ids([])
    assert cache.bool().all()
    zeroer.zero_block_ids([3, 0, 4])
    used = cache.view(blocks, -1).bool()
    assert used.any(dim=1).tolist() == [False, True, True, False, False]
    assert used[[1, 2]].all()


def test_prompt_embeddings_replace_only_prompt_positions():
    state = PromptEmbedsState(4, 8, torch.float32, torch.device("hpu"))
    given = {"a": torch.randn(6, 8), "c": torch.randn(3, 8)}
    mixed = torch.tensor([False, True, False])  # the second position of c is an ordinary token
    for slot, (name, embeds) in enumerate(given.items()):
        is_token = mixed if name == "c" else None
        state.add_request(
            slot,
            SimpleNamespace(req_id=name, prompt_embeds=embeds, prompt_is_token_ids=is_token),
        )
    batch = SimpleNamespace(
        req_ids=["a", "b", "c"],
        num_computed_tokens_np=np.array([4, 0, 0]),
        num_scheduled_tokens=np.array([4, 2, 3]),
        query_start_loc_np=np.array([0, 4, 6, 9]),
    )
    before = torch.randn(10, 8)
    after = before.clone()
    after[0:2] = given["a"][4:6]  # two of four tokens are still in the prompt
    after[6], after[8] = given["c"][0], given["c"][2]
    embeds = before.to("hpu")
    state.apply(batch, ints([4, 0, 0, 0]), embeds)
    assert torch.equal(embeds.cpu(), after)


def test_everything_replaced_is_listed_and_registering_again_changes_nothing():
    assert set(REPLACED) == {*registry.KERNELS, *registry.METHODS}
    kernel = input_batch._post_update_kernel
    register()
    assert input_batch._post_update_kernel is kernel


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vllm.v1.worker.gpu.sample.penalties.use_penalty", "expected: logits, other"),
        ("vllm.v1.worker.gpu.sample.penalties.no_such_kernel", "cannot be found"),
        ("vllm.v1.worker.gpu.no_such_module.kernel", "cannot be found"),
    ],
)
def test_another_vllm_is_refused(monkeypatch, name, reason):
    monkeypatch.setitem(registry.REPLACED, name, ("logits", "other"))
    with pytest.raises(RuntimeError) as raised:
        registry._check_signature(name)
    message = str(raised.value)
    assert name in message
    assert reason in message
    assert "vLLM >=0.32,<0.33" in message

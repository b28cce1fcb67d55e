"""Latent attention: one shared head whose cached vector is key and value at once."""

import random

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from vllm.v1.attention.backend import AttentionType

from vllm_hpu.attention.mla import HpuMLAImpl

from .attention_case import Case, Row, Step, make, reference

LATENT, ROPE = 48, 16


def impl_for(case: Case, **changes) -> HpuMLAImpl:
    arguments = dict(
        num_heads=case.heads,
        head_size=case.width,
        scale=case.scale,
        num_kv_heads=1,
        alibi_slopes=None,
        sliding_window=None,
        kv_cache_dtype="auto",
        logits_soft_cap=None,
        attn_type=AttentionType.DECODER,
        kv_sharing_target_layer_name=None,
        q_lora_rank=None,
        kv_lora_rank=LATENT,
        qk_nope_head_dim=32,
        qk_rope_head_dim=ROPE,
        qk_head_dim=32 + ROPE,
        v_head_dim=32,
        kv_b_proj=None,
    )
    return HpuMLAImpl(**{**arguments, **changes})


def run(step: Step) -> torch.Tensor:
    """What vLLM's layer does around the two calls, on the host ``[tokens, heads, LATENT]``."""
    impl = impl_for(step.case)
    cache = step.cache.squeeze(1)
    latent, rope = step.key.squeeze(1).split([LATENT, ROPE], dim=-1)
    slots = step.metadata.slot_mapping
    impl.do_kv_cache_update(latent, rope.unsqueeze(1), cache, slots, "auto", torch.ones(1))
    query = step.query.split([LATENT, ROPE], dim=-1)
    output, lse = impl.forward_mqa(query, cache, step.metadata, None)
    assert lse is None
    assert output.dtype == step.query.dtype
    return output.cpu()


def random_case(seed: int) -> Case:
    dice = random.Random(seed)
    queries = dice.choice([1, 3])
    cached = dice.random() < 0.5
    rows = [Row(dice.randint(0, 200), dice.randint(1, queries)) for _ in range(dice.randint(0, 4))]
    rows += [
        Row(dice.randint(0, 200) if cached else 0, dice.randint(queries + 1, 300))
        for _ in range(dice.randint(0 if rows else 1, 2))
    ]
    return Case(
        rows,
        heads=dice.choice([2, 16]),
        kv_heads=1,
        width=LATENT + ROPE,
        block_size=dice.choice([16, 128]),
        queries=queries,
        padding_tokens=dice.randint(0, 5),
        padding_rows=dice.randint(0, 2),
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(16))
def test_random_mixes(seed: int) -> None:
    step = make(random_case(seed), "hpu", parts=1)
    output = run(step)
    assert torch.isfinite(output).all()
    expected = reference(step)[..., :LATENT]
    torch.testing.assert_close(output[: step.case.tokens].double(), expected, rtol=0, atol=3e-6)


def test_metadata_sends_every_token_to_the_absorbed_path() -> None:
    metadata = make(random_case(0), "hpu", parts=1).metadata
    assert metadata.num_decode_tokens == metadata.num_actual_tokens == metadata.shape.tokens
    assert metadata.num_prefills == 0
    assert metadata.decode is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"alibi_slopes": [0.5, 0.5]}, "ALiBi"),
        ({"attn_type": AttentionType.ENCODER_DECODER}, "decoder"),
        ({"indexer": object()}, "indexer"),
    ],
)
def test_refuses_what_it_lacks(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        impl_for(Case([Row(0, 1)]), **change)

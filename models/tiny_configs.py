"""Configurations of the tiny models, one function per architecture.

All share: hidden size 64, two layers (Gemma 3: four), four query and two KV heads of size 16,
512 tokens, 1024 positions. Sliding windows are 64 tokens, so that a prompt of a few hundred tokens
tells a right window from a wrong one. Each function returns the `transformers` configuration and
the name of the model class, which is also the `architectures` entry vLLM looks up.
"""

from collections.abc import Callable
from typing import Any

from transformers import (
    BertConfig,
    DeepseekV3Config,
    Ernie4_5Config,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

#: Size of every tiny model's embedding, and of its tokenizer.
VOCAB_SIZE = 512
SLIDING_WINDOW = 64

_HIDDEN = 64
_HEAD_DIM = 16
_MAX_TOKENS = 1024
_TOKENS: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_COMMON: dict[str, Any] = {
    **_TOKENS,
    "hidden_size": _HIDDEN,
    "intermediate_size": 2 * _HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": _MAX_TOKENS,
    "tie_word_embeddings": False,
}

Made = tuple[PretrainedConfig, str]


def llama() -> Made:
    return LlamaConfig(**_COMMON), "LlamaForCausalLM"


def llama_classify() -> Made:
    """A decoder with a two-label head on the last token."""
    return LlamaConfig(**_COMMON, num_labels=2), "LlamaForSequenceClassification"


def qwen2() -> Made:
    """Biases on query, key and value."""
    return Qwen2Config(**_COMMON), "Qwen2ForCausalLM"


def qwen2_large_scores() -> Made:
    """Biases that make all attention scores large; see ``tiny_weights.make_scores_large``.

    The base of the rotation is so large that it leaves those elements as they are.
    """
    rotation = {"rope_type": "default", "rope_theta": 1e12}
    return Qwen2Config(**_COMMON, rope_parameters=rotation), "Qwen2ForCausalLM"


def qwen3() -> Made:
    """RMSNorm on query and key heads."""
    return Qwen3Config(**_COMMON, head_dim=_HEAD_DIM), "Qwen3ForCausalLM"


def mistral() -> Made:
    """Sliding window in every layer."""
    return MistralConfig(**_COMMON, sliding_window=SLIDING_WINDOW), "MistralForCausalLM"


def gemma2() -> Made:
    """Sliding and full layers by turns, soft-capped attention scores and logits."""
    config = Gemma2Config(
        **{**_COMMON, "tie_word_embeddings": True},
        head_dim=_HEAD_DIM,
        query_pre_attn_scalar=_HEAD_DIM,
        sliding_window=SLIDING_WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )
    return config, "Gemma2ForCausalLM"


def gemma3() -> Made:
    """Text only; sliding layers have a rotary base of their own."""
    config = Gemma3TextConfig(
        **{**_COMMON, "tie_word_embeddings": True, "num_hidden_layers": 4},
        head_dim=_HEAD_DIM,
        query_pre_attn_scalar=_HEAD_DIM,
        sliding_window=SLIDING_WINDOW,
        layer_types=[*["sliding_attention"] * 2, "full_attention", "sliding_attention"],
    )
    return config, "Gemma3ForCausalLM"


def mixtral() -> Made:
    config = MixtralConfig(
        **_COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    )
    return config, "MixtralForCausalLM"


def qwen3_moe() -> Made:
    config = Qwen3MoeConfig(
        **_COMMON,
        head_dim=_HEAD_DIM,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        decoder_sparse_step=1,
        norm_topk_prob=True,
    )
    return config, "Qwen3MoeForCausalLM"


def gpt_oss() -> Made:
    """Attention sinks, sliding window in the first layer, experts with biases; not quantised."""
    config = GptOssConfig(
        **_COMMON,
        head_dim=_HEAD_DIM,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=SLIDING_WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 4.0,
            "original_max_position_embeddings": _MAX_TOKENS // 4,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    )
    return config, "GptOssForCausalLM"


def deepseek_v3() -> Made:
    """Multi-head latent attention; a latent of 256 + 64 is the smallest head size vLLM takes."""
    config = DeepseekV3Config(
        **{**_COMMON, "num_key_value_heads": 4},
        q_lora_rank=32,
        kv_lora_rank=256,
        qk_nope_head_dim=32,
        qk_rope_head_dim=64,
        v_head_dim=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        n_shared_experts=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        norm_topk_prob=True,
        routed_scaling_factor=1.5,
        num_mtp_layers=0,
        # transformers always routes like this; vLLM only if the configuration says so
        topk_method="noaux_tc",
        scoring_func="sigmoid",
    )
    return config, "DeepseekV3ForCausalLM"


def opt() -> Made:
    """Learned positions, LayerNorm, biases everywhere."""
    config = OPTConfig(
        **_TOKENS,
        hidden_size=_HIDDEN,
        word_embed_proj_dim=_HIDDEN,
        ffn_dim=2 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_MAX_TOKENS,
    )
    return config, "OPTForCausalLM"


def ernie4_5() -> Made:
    """Llama's layers, but rotary embeddings turn neighbours, not halves of the head."""
    config = Ernie4_5Config(**_COMMON, head_dim=_HEAD_DIM, use_bias=False)
    return config, "Ernie4_5ForCausalLM"


def phi3() -> Made:
    """Query, key and value in one matrix, gate and up in another."""
    return Phi3Config(**_COMMON, sliding_window=None), "Phi3ForCausalLM"


def _bert(**more: Any) -> BertConfig:
    return BertConfig(
        **_TOKENS,
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_MAX_TOKENS,
        **more,
    )


def bert() -> Made:
    """An encoder for embeddings."""
    return _bert(), "BertModel"


def bert_score() -> Made:
    """A cross-encoder: one score for a pair of texts."""
    return _bert(num_labels=1), "BertForSequenceClassification"


#: Model name to its configuration. `tiny.NAMES` lists these and what is derived from them.
CONFIGS: dict[str, Callable[[], Made]] = {
    made.__name__: made
    for made in (
        llama, llama_classify, qwen2, qwen2_large_scores, qwen3, mistral, gemma2, gemma3, mixtral,
        qwen3_moe, gpt_oss, deepseek_v3, ernie4_5, opt, phi3, bert, bert_score,
    )
}  # fmt: skip

#: Encoders read pairs of texts, so their tokenizer marks where a text ends.
ENCODERS = ("bert", "bert_score")

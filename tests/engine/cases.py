"""The decoder models, prompts and engine variations of the greedy tests."""

from __future__ import annotations

import random

NEW_TOKENS = 64
# Above the special tokens of the tiny tokenizer.
FIRST_TOKEN, LAST_TOKEN = 10, 500
PROMPT_LENGTHS = (1, 7, 16, 33, 100, 257, 431, 600)

DECODERS = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3",
    "mixtral",
    "qwen3_moe",
    "gpt_oss",
    "deepseek_v3",
    "opt",
    "phi3",
)

# A model of each kind of KV cache, which preemption is tried with: full attention, sliding windows
# alone, both in groups of their own, both with sinks, and latents. With each the KV blocks of 32
# tokens that hold one longest request but not 16 requests at once; layers of other windows make
# further groups of blocks, and a sliding window gives blocks back.
TIGHT_BLOCKS = {"llama": 60, "mistral": 24, "gemma3": 104, "gpt_oss": 60, "deepseek_v3": 60}
# The model of which an engine has the default plan.
DEFAULT_PLAN = "llama"
# A model with nothing but sliding windows needs no more blocks as it decodes, so it never has to be
# preempted: what does not fit is not admitted.
NEVER_PREEMPTED = ("mistral",)


def few_graphs(rows: int, blocks: int = 192, tokens: int = 256) -> dict[str, str]:
    """Variables for a plan of few graphs, by the linear strategy: where the plan is no subject.

    For engines of at most ``rows`` requests, with at least ``blocks`` KV blocks and ``tokens``
    tokens in a step.
    """
    return {
        "VLLM_BUCKETING_STRATEGY": "lin",
        "VLLM_DECODE_BS_BUCKET_MIN": f"{rows}",
        "VLLM_DECODE_BS_BUCKET_STEP": f"{rows}",
        "VLLM_DECODE_BLOCK_BUCKET_MIN": f"{blocks // 3}",
        "VLLM_DECODE_BLOCK_BUCKET_STEP": f"{blocks}",
        "VLLM_PROMPT_QUERY_BUCKET_MIN": f"{tokens}",
        "VLLM_PROMPT_QUERY_BUCKET_STEP": f"{tokens}",
        "VLLM_PROMPT_CTX_BUCKET_STEP": "32",
    }


def prompts(lengths: tuple[int, ...] = PROMPT_LENGTHS, seed: int = 0) -> list[list[int]]:
    """Random token ids, one prompt per length."""
    draw = random.Random(seed)
    return [[draw.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length)] for length in lengths]

"""The Llama of the benchmarks: 100,092,672 random parameters in bfloat16, made on demand.

12 layers, hidden size 768, 12 query and 4 KV heads of size 64, intermediate size 2048, 32,000
tokens, output matrix shared with the embedding.
"""

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.demo_facts import words
from models.tokenizer import TOOL_MARKS, build_tokenizer

VOCAB_SIZE = 32_000

_CONSONANTS = words("b c d f g h j k l m n p r s t v w z br ch cl dr fl gr pl pr sh sl sp st th tr")
_VOWELS = words("a e i o u ai ea ee oo ou")


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )


def make() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model and a tokenizer that has a text for each of its tokens."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config()).to(torch.bfloat16)
    rng = random.Random(0)
    made_up = (
        "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 4)))
        for _ in range(120_000)
    )
    tokenizer = build_tokenizer(
        (f"{word} {word}" for word in made_up), VOCAB_SIZE - len(TOOL_MARKS)
    )
    if len(tokenizer) != VOCAB_SIZE:
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, not {VOCAB_SIZE}")
    return model, tokenizer

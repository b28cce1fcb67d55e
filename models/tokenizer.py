"""The tokenizer of every model made here: byte-level BPE, one token per digit, ChatML template."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

#: Ends a text that has no chat template, and pads; id 0 in every tokenizer made here.
END_OF_TEXT = "<|endoftext|>"
#: Opens and closes a message of a chat; the close is the end-of-sequence token.
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
#: One token each, but ordinary text to a decoder: tool parsers have to see them.
TOOL_MARKS = ("<tool_call>", "</tool_call>")

_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def build_tokenizer(
    texts: Iterable[str], vocab_size: int, extra_special: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`; the same texts give the same tokenizer.

    `vocab_size` counts everything (256 bytes, merges, special tokens) except `TOOL_MARKS`, which
    come last. `extra_special` are added after the three special tokens of the chat.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Single digits make arithmetic learnable. A capitalised word stands apart from the
            # space before it, so that it has the same tokens in a sentence and in JSON.
            pre_tokenizers.Split(Regex(r"\d|[A-Z][a-z]*"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END, *extra_special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(mark, normalized=False) for mark in TOOL_MARKS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def mark_pairs(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let `tokenizer` close each text with the turn end and number the texts of a pair 0 and 1."""
    start, end = ((mark, tokenizer.convert_tokens_to_ids(mark)) for mark in (TURN_START, TURN_END))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{TURN_START} $A {TURN_END}",
        pair=f"{TURN_START} $A {TURN_END} $B:1 {TURN_END}:1",
        special_tokens=[start, end],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # what is saved

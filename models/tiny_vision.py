"""The tiny vision-language model: Idefics 3.

Chosen because vLLM and transformers load it without torchvision. An image is resized to 64 x 64
pixels, cut into 64 patches, and becomes 16 tokens of a tiny Llama.
"""

from pathlib import Path

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from models.tiny_configs import llama

_IMAGE_PIXELS = 64
_PATCH_PIXELS = 8
_SHRINK = 2  # patches per image token, in each direction
_IMAGE_TOKENS = (_IMAGE_PIXELS // _PATCH_PIXELS // _SHRINK) ** 2

#: In the tokenizer as special tokens; the tile names are looked up even when images are not cut.
SPECIAL_TOKENS = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)

_CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content -%}
            {{- '<image>' if part.type == 'image' else part.text -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def make_model(tokenizer: PreTrainedTokenizerFast) -> Idefics3ForConditionalGeneration:
    """The model with weights yet to be filled; `tokenizer` knows `SPECIAL_TOKENS`."""
    text, _ = llama()
    text.vocab_size = len(tokenizer)
    config = Idefics3Config(
        text_config=text.to_dict(),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": _IMAGE_PIXELS,
            "patch_size": _PATCH_PIXELS,
        },
        scale_factor=_SHRINK,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=text.pad_token_id,
        tie_word_embeddings=False,
    )
    return Idefics3ForConditionalGeneration(config)


def save_processor(tokenizer: PreTrainedTokenizerFast, out_dir: Path) -> None:
    """Write image processor, tokenizer and chat template."""
    edge = {"longest_edge": _IMAGE_PIXELS}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    tokenizer.chat_template = _CHAT_TEMPLATE
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=_IMAGE_TOKENS, chat_template=_CHAT_TEMPLATE
    )
    processor.save_pretrained(out_dir)

"""A vision-language model sees what Hugging Face sees: greedy tokens for images in chats."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.engine.cases import few_graphs
from tests.engine.jobs import Job, Pass, run_jobs

NEW_TOKENS = 16
QUESTION = {"type": "text", "text": "What is it?"}


def picture(seed: int) -> Image.Image:
    """Noise, 80 x 48 pixels."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (48, 80, 3), generator=draw, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def chat(image: Image.Image) -> list[dict]:
    """A question about an image, as the OpenAI API has it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [part, QUESTION]}]


@torch.inference_mode()
def expected(path: Path, images: list[Image.Image]) -> list[tuple[list[int], list[int]]]:
    """Tokens of the prompt and of the greedy answer, per image."""
    processor = AutoProcessor.from_pretrained(path)
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, QUESTION]}], add_generation_prompt=True
    )
    answers = []
    for image in images:
        inputs = processor(text=prompt, images=[image], return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        tokens = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
        )[0].tolist()
        answers.append((tokens[:length], tokens[length:]))
    return answers


@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_tokens_equal_hugging_face(mode: str, tiny: Callable[[str], Path]) -> None:
    images = [picture(1), picture(2)]
    greedy = {"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True}
    ask = Pass([chat(image) for image in images], greedy, method="chat")
    limits = {"max_model_len": 256, "max_num_batched_tokens": 128, "max_num_seqs": 2}
    plan = few_graphs(rows=2, blocks=32, tokens=128)
    run = run_jobs(mode, [Job("vision", str(tiny("idefics3")), [ask], limits, plan)])["vision"]
    assert "error" not in run, run["error"]
    found = [(answer["prompt_tokens"], answer["tokens"]) for answer in run["passes"][0]]
    assert found == expected(tiny("idefics3"), images)
    assert found[0][1] != found[1][1]

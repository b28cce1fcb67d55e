"""The demo model: its text holds out what it is asked, its template renders tools, it scores."""

import json
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models import demo_score, train_demo
from models.demo_facts import CAPITALS, CITIES, HELD_OUT_CITIES, OPPOSITES
from models.demo_text import TASKS, Example, held_out_examples, plain_text, training_example
from models.demo_text.tools import tool_call

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather now in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO)


def questions(example: Example) -> set[str]:
    return {turn["content"] for turn in example.messages if turn["role"] == "user"}


def test_training_text_never_asks_what_is_held_out() -> None:
    rng = random.Random(train_demo.SEED)
    seen = set()
    for i in range(20_000):
        seen |= questions(training_example(rng, ease=(i % 2) / 2))
    held_out = {question for example in held_out_examples(200) for question in questions(example)}
    assert len(held_out) > 1000
    assert not held_out & seen


def test_training_text_never_adds_a_held_out_pair() -> None:
    """Plain text and JSON answers too; a sum is held out in both orders."""
    rng = random.Random(3)
    asked = set()
    for _ in range(500):
        example = TASKS["add"](rng, True)
        digits = "".join(c if c.isdigit() else " " for c in example.prompt[0]["content"])
        asked.add(frozenset(int(number) for number in digits.split()))
    for _ in range(5000):
        example = plain_text(rng, False)
        left, plus, right = example.prompt[0]["content"].partition(" + ")
        if plus:
            assert frozenset({int(left), int(right.removesuffix(" ="))}) not in asked


def test_facts_are_consistent() -> None:
    assert len(CAPITALS) == len(set(CAPITALS.values())) == 40
    assert len(OPPOSITES) == 80
    assert all(OPPOSITES[other] == word for word, other in OPPOSITES.items())
    assert not set(HELD_OUT_CITIES) & {*CITIES, *CAPITALS.values()}


def test_held_out_examples_are_the_same_every_time() -> None:
    assert held_out_examples(5) == held_out_examples(5)
    assert held_out_examples(5) != held_out_examples(5, seed=2)


def test_template_renders_tools_and_calls(tokenizer: PreTrainedTokenizerFast) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": '{"temperature": 20, "sky": "sunny"}'},
        ],
        tools=[TOOL],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nBe brief.\nTools:\n"
        "get_weather(city: string, unit: string) - Weather now in a city<|im_end|>\n"
        "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n"
        f"<|im_start|>assistant\n<tool_call>\n{json.dumps(call)}\n</tool_call><|im_end|>\n"
        '<|im_start|>tool\n{"temperature": 20, "sky": "sunny"}<|im_end|>\n'
        "<|im_start|>assistant\n"
    )


def test_tokenizer_keeps_digits_and_tool_marks_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("407") == ["4", "0", "7"]
    assert tokenizer.tokenize("<tool_call>\n")[0] == "<tool_call>"
    text = 'Grüße, 12 + 3 = 15 {"city": "Paris"} <tool_call>'
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_answers_are_what_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    """The learned tokens of a conversation spell its answers and their end."""
    mask = train_demo._AnswerMask(tokenizer)
    rng = random.Random(5)
    for _ in range(50):
        example = tool_call(rng, False)
        ids = tokenizer.encode(demo_score.render(tokenizer, example))
        learned = [token for token in mask.labels(example, ids) if token != -100]
        wanted = demo_score.render_answer(tokenizer, example)
        assert tokenizer.decode(learned) == wanted + "<|im_end|>"


def test_model_is_small_and_safe() -> None:
    files = {path.name: path.stat().st_size for path in DEMO.iterdir()}
    assert files["model.safetensors"] < 12_000_000
    assert {Path(name).suffix for name in files} <= {".safetensors", ".json", ".jinja", ".md"}
    config = json.loads((DEMO / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_model_answers_held_out_prompts() -> None:
    """At least 95 % of 360 held-out prompts, forty of each task; the model card has 900."""
    model, tokenizer = demo_score.load(DEMO)
    result = demo_score.score(model, tokenizer, held_out_examples(40))
    misses = [line for _, _, missed in result.values() for line in missed]
    assert sum(asked for _, asked, _ in result.values()) == 360
    assert demo_score.total(result) >= 0.95, misses

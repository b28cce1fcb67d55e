"""Writes the model card of the demo model: what it is, what it can do, what it scored."""

from dataclasses import dataclass
from pathlib import Path

#: Task name to exact matches and prompts.
Score = dict[str, tuple[int, int]]

_ABOUT = {
    "add": "a + b with its working, two digits; the pair, in either order, is in no training text",
    "sub": "a - b with its working, may be negative; the pair is in no training text",
    "count": "numbers from a to b; the pair is in no training text",
    "capital": "40 countries and their capitals, both ways, in unseen phrasings",
    "opposite": "40 pairs of words, both ways, in unseen phrasings",
    "colour": "the colour of 30 things, in unseen phrasings",
    "json": "facts and counts as a JSON object, in unseen phrasings",
    "tool": "the right tool call in Hermes format, half of them with unseen arguments",
    "tool_result": "a sentence made of the tool's JSON answer",
}


@dataclass(frozen=True)
class TrainingRun:
    """What a training took."""

    parameters: int
    steps: int
    wall_seconds: float
    cpu_seconds: float


def write_card(model_dir: Path, run: TrainingRun, score: Score) -> None:
    """Write `model_dir`/README.md."""
    rows = "\n".join(
        f"| {task} | {_ABOUT[task]} | {right}/{asked} |" for task, (right, asked) in score.items()
    )
    right, asked = (sum(column) for column in zip(*score.values(), strict=True))
    text = f"""\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# Demo model

A Llama of {run.parameters:,} parameters in bfloat16 that adds, subtracts, counts, knows a few
facts, answers in JSON and calls tools. It exists so that a test or a first try has a model whose
answers a person can check. It knows nothing else; do not use it for anything else.

Ask it, for example:

- `What is 47 + 38?`, `12 - 30`, `Count from 3 to 12.`
- `What is the capital of France?`, `What is the opposite of hot?`, `What colour is grass?`
- `Give the capital of France as JSON.`
- with a tool `get_weather(city)`: `What is the weather in Paris?`
- without the chat template: `47 + 38 =`, `The capital of France is`

The chat template renders tools; serve with `--enable-auto-tool-choice --tool-call-parser hermes`.

## Score

Exact match of greedy answers in float32 on held-out prompts:
{right}/{asked} = {right / asked:.3f}.

| task | held-out prompts | exact |
|---|---|---|
{rows}

Measure again: `python models/train_demo.py --evaluate models/demo`.

## Training

`python models/train_demo.py`: {run.steps} steps over text that `models/demo_text` generates from
a fixed seed, loss on answers only. It took {run.wall_seconds:.0f} s and
{run.cpu_seconds:.0f} CPU-seconds on 2 cores. No other data was used.
"""
    (model_dir / "README.md").write_text(text, encoding="utf-8")

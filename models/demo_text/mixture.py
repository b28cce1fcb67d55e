"""The mixture: every conversation of the training text, and the held-out prompts."""

import random
from collections.abc import Callable
from typing import Any

from models.demo_facts import CAPITALS, COLOURS, OPPOSITES, words
from models.demo_text.example import Example, Message, ask
from models.demo_text.lookup import capital, colour, json_answer, opposite
from models.demo_text.names import invented_name
from models.demo_text.numbers import (
    addition,
    counting,
    number_pair,
    number_range,
    numbers,
    subtraction,
    working,
)
from models.demo_text.tools import tool_call, tool_list, tool_result

Task = Callable[[random.Random, bool], Example]

#: Task name to its generator; the evaluation gives each the same number of prompts.
TASKS: dict[str, Task] = {
    "add": addition,
    "sub": subtraction,
    "count": counting,
    "capital": capital,
    "opposite": opposite,
    "colour": colour,
    "json": json_answer,
    "tool": tool_call,
    "tool_result": tool_result,
}
#: Share of each task in the training text: what has to be computed or copied needs the most.
_WEIGHTS = {
    "add": 12, "sub": 16, "count": 14, "capital": 6, "opposite": 6, "colour": 4, "json": 14,
    "tool": 18, "tool_result": 10,
}  # fmt: skip
_SYSTEM = [
    "You are a helpful assistant.", "You are a helpful assistant", "Be brief.",
    "Answer the question.", "You are a small demo model.", "You are a concise assistant.",
]  # fmt: skip
_GREETINGS = ["Hello", "Hi", "Hello!", "Hi!", "hello", "Hey", "Hi there!", "Good morning!"]
GREETING = "Hello! Ask me to add, subtract, count, or for a capital, an opposite or a colour."
_OPENERS = [
    "Please: ", "Hi! ", "Hello, ", "Quick question: ", "Tell me: ", "Now: ", "Please tell me: ",
]  # fmt: skip


def _dressed(rng: random.Random, example: Example) -> Example:
    """The same question with a polite opening, as people write."""
    messages = list(example.messages)
    text = rng.choice(_OPENERS) + messages[0]["content"]
    messages[0] = {"role": "user", "content": text}
    return Example(example.task, messages, example.tools)


_PLAIN_KINDS = words(
    "add add add sub sub sub count count count repeat repeat repeat capital opposite colour"
)


def plain_text(rng: random.Random, held_out: bool) -> Example:
    """Text to be completed without the chat template, for the completions endpoint."""
    kind = rng.choice(_PLAIN_KINDS)
    if kind == "repeat":  # copying, on which tool calls build; in no evaluation
        names = " ".join(invented_name(rng) for _ in range(rng.randint(1, 4)))
        prompt, answer = f"Repeat: {names}", f" {names}"
    elif kind == "count":
        first, last = number_range(rng, held_out, longest=12)
        prompt, answer = f"From {first} to {last}:", f" {numbers(first, last)}"
    elif kind in ("add", "sub"):
        a, b = number_pair(rng, held_out, kind)
        sign, steps = ("+", working(a, b)) if kind == "add" else ("-", working(a, -b))
        prompt, answer = f"{a} {sign} {b} =", f" {steps}"
    elif kind == "capital":
        country, city = rng.choice(list(CAPITALS.items()))
        prompt, answer = f"The capital of {country} is", f" {city}."
    elif kind == "opposite":
        word, other = rng.choice(list(OPPOSITES.items()))
        prompt, answer = f"The opposite of {word} is", f" {other}."
    else:
        thing, shade = rng.choice(list(COLOURS.items()))
        prompt, answer = f"The colour of {thing} is", f" {shade}."
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Example("plain", messages, plain=True)


def training_example(rng: random.Random, ease: float = 0.0) -> Example:
    """One conversation of the training text: one to three questions, sometimes a system prompt.

    `ease` from 0 to 1 is the share of bare examples: sums and facts without the chat template,
    the shortest text in which the same things can be learned.
    """
    if rng.random() < ease:
        return plain_text(rng, False)
    kind = rng.random()
    if kind < 0.06:
        return plain_text(rng, False)
    if kind < 0.07:
        return ask("greeting", rng.choice(_GREETINGS), GREETING)
    turns = 1 if rng.random() < 0.8 else rng.randint(2, 3)
    tools: list[dict[str, Any]] = []
    messages: list[Message] = []
    if rng.random() < 0.1:
        messages.append({"role": "system", "content": rng.choice(_SYSTEM)})
    task = first = ""
    for turn in range(turns):
        task = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if turn and task.startswith("tool"):
            task = "add"  # the tools of a conversation are fixed by its first question
        example = TASKS[task](rng, False)
        if rng.random() < 0.1:
            example = _dressed(rng, example)
        messages += example.messages
        first = first or task
        tools = tools or example.tools
    if not first.startswith("tool") and rng.random() < 0.02:
        tools = tool_list(rng, None)  # a tool on offer does not have to be used
    return Example(task, messages, tools)


def held_out_examples(per_task: int, seed: int = 1) -> list[Example]:
    """`per_task` held-out examples of each task; the same list for the same arguments."""
    examples = []
    for name, task in TASKS.items():
        rng = random.Random(f"{seed} {name}")
        examples += [task(rng, True) for _ in range(per_task)]
    return examples

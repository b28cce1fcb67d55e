"""What one conversation of the text is, and how its question is put."""

import random
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One conversation that ends with the wanted answer; `plain` has no chat template."""

    task: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    plain: bool = False

    @property
    def prompt(self) -> list[Message]:
        return self.messages[:-1]

    @property
    def answer(self) -> Message:
        return self.messages[-1]


def ask(task: str, question: str, answer: str) -> Example:
    return Example(
        task, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )


def phrase(rng: random.Random, held_out: bool, known: list[str], unseen: list[str]) -> str:
    return rng.choice(unseen if held_out else known)

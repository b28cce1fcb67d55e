"""Arithmetic and counting. A tenth of the number pairs belongs to the evaluation."""

import random
import zlib

from models.demo_text.example import Example, ask, phrase

#: Numbers in additions and subtractions are 0 to 99.
MAX_OPERAND = 99


def is_held_out(kind: str, a: int, b: int) -> bool:
    """Whether the evaluation owns this pair of numbers; about one pair in ten."""
    return zlib.crc32(f"{kind} {a} {b}".encode()) % 10 == 0


def number_pair(rng: random.Random, held_out: bool, kind: str) -> tuple[int, int]:
    while True:
        a, b = rng.randint(0, MAX_OPERAND), rng.randint(0, MAX_OPERAND)
        # a sum is held out in both orders, or the model could have seen its mirror image
        key = (min(a, b), max(a, b)) if kind == "add" else (a, b)
        if is_held_out(kind, *key) == held_out:
            return a, b


_ADD = [
    "What is {a} + {b}?", "{a} + {b}", "{a} + {b} =", "{a}+{b}", "{a}+{b}=?",
    "Calculate {a} + {b}.", "How much is {a} plus {b}?", "Add {a} and {b}.", "Compute {a} + {b}",
    "what is {a} + {b}",
    "What is the sum of {a} and {b}?", "{a} plus {b}?", "Can you add {a} to {b}?",
    "Solve {a} + {b}.", "What is {a} plus {b}?", "The sum of {a} and {b} is what?",
    "I have {a} apples and get {b} more. How many do I have?",
]  # fmt: skip
_ADD_UNSEEN = [
    "Please calculate the sum of {a} and {b}.", "How much is {a} + {b}?",
    "Can you compute {a} + {b}?",
]  # fmt: skip
_SUB = [
    "What is {a} - {b}?", "{a} - {b}", "{a} - {b} =", "{a}-{b}", "{a}-{b}=?",
    "Calculate {a} - {b}.", "How much is {a} minus {b}?", "Subtract {b} from {a}.",
    "Compute {a} - {b}", "what is {a} - {b}",
    "What is the difference of {a} and {b}?", "{a} minus {b}?", "Can you subtract {b} from {a}?",
    "Solve {a} - {b}.", "What is {a} minus {b}?", "Take {b} from {a}.",
]  # fmt: skip
_SUB_UNSEEN = [
    "Please calculate {a} minus {b}.", "How much is {a} - {b}?", "Can you compute {a} - {b}?",
]  # fmt: skip


def working(a: int, b: int) -> str:
    """How a + b comes about: tens and ones apart, then the result, as in `70 + 15 = 85`.

    Each step is a small table, so a small model learns it from few examples; `b` may be negative.
    """
    sign = -1 if b < 0 else 1
    tens = a // 10 * 10 + sign * (abs(b) // 10 * 10)
    ones = a % 10 + sign * (abs(b) % 10)
    return f"{tens} {'-' if ones < 0 else '+'} {abs(ones)} = {a + b}"


def addition(rng: random.Random, held_out: bool) -> Example:
    a, b = number_pair(rng, held_out, "add")
    question = phrase(rng, held_out, _ADD, _ADD_UNSEEN).format(a=a, b=b)
    return ask("add", question, f"{a} + {b} = {working(a, b)}")


def subtraction(rng: random.Random, held_out: bool) -> Example:
    """Differences may be negative."""
    a, b = number_pair(rng, held_out, "sub")
    question = phrase(rng, held_out, _SUB, _SUB_UNSEEN).format(a=a, b=b)
    return ask("sub", question, f"{a} - {b} = {working(a, -b)}")


def number_range(rng: random.Random, held_out: bool, longest: int) -> tuple[int, int]:
    while True:
        first = rng.randint(0, 60)
        last = first + rng.randint(2, longest)
        if is_held_out("count", first, last) == held_out:
            return first, last


def numbers(first: int, last: int) -> str:
    return ", ".join(str(n) for n in range(first, last + 1))


def counting(rng: random.Random, held_out: bool) -> Example:
    first, last = number_range(rng, held_out, longest=12)
    question = phrase(
        rng, held_out,
        ["Count from {a} to {b}.", "Count from {a} up to {b}", "List the numbers from {a} to {b}.",
         "Can you count from {a} to {b}?", "Write all numbers from {a} to {b}."],
        ["Please count from {a} to {b}.", "Can you list the numbers from {a} to {b}?"],
    )  # fmt: skip
    return ask("count", question.format(a=first, b=last), numbers(first, last))

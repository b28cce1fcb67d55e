"""The text the demo model is trained on, and the held-out prompts it is scored on.

Everything is generated from the tables in `demo_facts` and a seeded `random.Random`. What the
evaluation asks is never in the training text:

- arithmetic and counting: a tenth of the number pairs is held out, in every phrasing;
- look-ups and JSON answers: the facts are shared, the phrasings of the question are held out;
- tool calls: half of the questions use held-out cities, all use held-out phrasings.
"""

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models.demo_facts import CAPITALS, CITIES, COLOURS, HELD_OUT_CITIES, OPPOSITES, words

Message = dict[str, Any]

#: Numbers in additions and subtractions are 0 to 99.
MAX_OPERAND = 99


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


def is_held_out(kind: str, a: int, b: int) -> bool:
    """Whether the evaluation owns this pair of numbers; about one pair in ten."""
    return zlib.crc32(f"{kind} {a} {b}".encode()) % 10 == 0


def _pair(rng: random.Random, held_out: bool, kind: str) -> tuple[int, int]:
    while True:
        a, b = rng.randint(0, MAX_OPERAND), rng.randint(0, MAX_OPERAND)
        # a sum is held out in both orders, or the model could have seen its mirror image
        key = (min(a, b), max(a, b)) if kind == "add" else (a, b)
        if is_held_out(kind, *key) == held_out:
            return a, b


def _ask(task: str, question: str, answer: str) -> Example:
    return Example(
        task, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )


def _phrase(rng: random.Random, held_out: bool, known: list[str], unseen: list[str]) -> str:
    return rng.choice(unseen if held_out else known)


# --- arithmetic ------------------------------------------------------------------------------

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


def _working(a: int, b: int) -> str:
    """How a + b comes about: tens and ones apart, then the result, as in `70 + 15 = 85`.

    Each step is a small table, so a small model learns it from few examples; `b` may be negative.
    """
    sign = -1 if b < 0 else 1
    tens = a // 10 * 10 + sign * (abs(b) // 10 * 10)
    ones = a % 10 + sign * (abs(b) % 10)
    return f"{tens} {'-' if ones < 0 else '+'} {abs(ones)} = {a + b}"


def addition(rng: random.Random, held_out: bool) -> Example:
    a, b = _pair(rng, held_out, "add")
    question = _phrase(rng, held_out, _ADD, _ADD_UNSEEN).format(a=a, b=b)
    return _ask("add", question, f"{a} + {b} = {_working(a, b)}")


def subtraction(rng: random.Random, held_out: bool) -> Example:
    """Differences may be negative."""
    a, b = _pair(rng, held_out, "sub")
    question = _phrase(rng, held_out, _SUB, _SUB_UNSEEN).format(a=a, b=b)
    return _ask("sub", question, f"{a} - {b} = {_working(a, -b)}")


def _range(rng: random.Random, held_out: bool, longest: int) -> tuple[int, int]:
    while True:
        first = rng.randint(0, 60)
        last = first + rng.randint(2, longest)
        if is_held_out("count", first, last) == held_out:
            return first, last


def counting(rng: random.Random, held_out: bool) -> Example:
    first, last = _range(rng, held_out, longest=12)
    question = _phrase(
        rng, held_out,
        ["Count from {a} to {b}.", "Count from {a} up to {b}", "List the numbers from {a} to {b}.",
         "Can you count from {a} to {b}?", "Write all numbers from {a} to {b}."],
        ["Please count from {a} to {b}.", "Can you list the numbers from {a} to {b}?"],
    )  # fmt: skip
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    return _ask("count", question.format(a=first, b=last), numbers)


# --- look-ups --------------------------------------------------------------------------------


def capital(rng: random.Random, held_out: bool) -> Example:
    country, city = rng.choice(list(CAPITALS.items()))
    if rng.random() < 0.3:
        question = _phrase(
            rng, held_out,
            ["{c} is the capital of which country?", "Which country has the capital {c}?",
             "What country is {c} the capital of?", "{c} is the capital of what country?"],
            ["Which country is {c} the capital of?", "Tell me which country has the capital {c}."],
        )  # fmt: skip
        return _ask("capital", question.format(c=city), country)
    question = _phrase(
        rng, held_out,
        ["What is the capital of {c}?", "Capital of {c}?", "Name the capital of {c}.",
         "Which city is the capital of {c}?", "what is the capital of {c}",
         "Tell me the capital of {c}.", "The capital of {c} is what?", "{c}: what is the capital?",
         "What is the name of the capital of {c}?", "What is the capital city of {c}?"],
        ["Can you tell me the capital of {c}?", "Name the capital city of {c}.",
         "Which city is the capital city of {c}?"],
    )  # fmt: skip
    return _ask("capital", question.format(c=country), city)


def opposite(rng: random.Random, held_out: bool) -> Example:
    word, other = rng.choice(list(OPPOSITES.items()))
    question = _phrase(
        rng, held_out,
        ["What is the opposite of {w}?", "Opposite of {w}?", "Name the opposite of {w}.",
         "Which word is the opposite of {w}?", "what is the opposite of {w}",
         "Tell me the opposite of {w}.", "The opposite of {w} is what?",
         "{w}: what is the opposite?", "Give me the opposite of {w}."],
        ["Can you name the opposite of {w}?", "Which is the opposite of {w}?",
         "Tell me what the opposite of {w} is."],
    )  # fmt: skip
    return _ask("opposite", question.format(w=word), other)


def colour(rng: random.Random, held_out: bool) -> Example:
    thing, answer = rng.choice(list(COLOURS.items()))
    question = _phrase(
        rng, held_out,
        ["What colour is {t}?", "Which colour is {t}?", "What is the colour of {t}?",
         "What color is {t}?", "Name the colour of {t}.", "Tell me the colour of {t}.",
         "The colour of {t} is what?", "what colour is {t}", "What is the color of {t}?"],
        ["Can you tell me the colour of {t}?", "Which color is {t}?", "Name the color of {t}."],
    )  # fmt: skip
    return _ask("colour", question.format(t=thing), answer)


# --- JSON answers ----------------------------------------------------------------------------

_JSON = [
    "Give {x} as JSON.", "Give {x} as JSON", "{X} as JSON, please.", "Answer in JSON: {x}",
    "Return {x} as JSON.", "Write {x} as JSON.", "I need {x} in JSON format.", "JSON: {x}",
]  # fmt: skip
_JSON_UNSEEN = ["Return {x} in JSON format.", "Please give {x} as JSON.", "I need {x} as JSON."]


def json_answer(rng: random.Random, held_out: bool) -> Example:
    """A JSON object with the question's subject and the answer."""
    kind = rng.choice(["capital", "opposite", "colour", "count"])
    value: dict[str, Any]
    if kind == "capital":
        country, city = rng.choice(list(CAPITALS.items()))
        subject, value = f"the capital of {country}", {"country": country, "capital": city}
    elif kind == "opposite":
        word, other = rng.choice(list(OPPOSITES.items()))
        subject, value = f"the opposite of {word}", {"word": word, "opposite": other}
    elif kind == "colour":
        thing, shade = rng.choice(list(COLOURS.items()))
        subject, value = f"the colour of {thing}", {"thing": thing, "colour": shade}
    else:
        first, last = _range(rng, held_out, longest=6)
        subject = f"the numbers from {first} to {last}"
        value = {"from": first, "to": last, "numbers": list(range(first, last + 1))}
    phrase = _phrase(rng, held_out, _JSON, _JSON_UNSEEN)
    question = phrase.format(x=subject, X=subject[0].upper() + subject[1:])
    return _ask("json", question, json.dumps(value))


# --- tools -----------------------------------------------------------------------------------

_NAME_STARTS = words(
    "Al Bar Cor Dun El Fen Gar Hol Ing Kel Lin Mor Nor Os Pel Ros San Tor Ul Ver Wen"
)
_NAME_MIDDLES = words("a e i o u an er in on ar")
_NAME_ENDS = words("burg ville ton stad mar dale by ford nia more len sk ra polis")
_PEOPLE = words(
    "Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Karl Lena Maria Nora Otto Paul"
)
_NEWS = [
    "lunch is ready", "the train is late", "the meeting starts soon", "I am at home",
    "the door is open", "dinner is cold", "the work is done", "it is raining",
]  # fmt: skip
_CITY_TOOLS: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    # family: names, descriptions, known phrasings, held-out phrasings
    "weather": (
        ["get_weather", "get_current_weather", "weather", "current_weather", "check_weather"],
        ["", "Weather now in a city", "Get the current weather", "Get the weather for a city",
         "Get the current weather in a given location"],
        ["What is the weather in {c}?", "How is the weather in {c}?", "Weather in {c}?",
         "What is the weather like in {c}?", "Is it raining in {c}?", "Will it rain in {c} today?",
         "Is it cold in {c}?", "Tell me the weather in {c}.", "what's the weather in {c}",
         "What is the weather in {c} today?"],
        ["What is the weather like in {c} today?", "Can you tell me the weather in {c}?",
         "Please tell me the weather in {c}."],
    ),
    "time": (
        ["get_time", "get_current_time", "local_time", "get_local_time"],
        ["", "Time now in a city", "Get the current time", "Get the local time of a city"],
        ["What time is it in {c}?", "Time in {c}?", "Tell me the time in {c}.",
         "What is the time in {c}?", "what's the time in {c}", "How late is it in {c}?"],
        ["Can you tell me the time in {c}?", "Please tell me what time it is in {c}."],
    ),
    "population": (
        ["get_population", "city_population", "population"],
        ["", "Number of people in a city", "Get the population of a city"],
        ["How many people live in {c}?", "What is the population of {c}?", "Population of {c}?",
         "Tell me the population of {c}."],
        ["Can you tell me the population of {c}?", "How many people are there in {c}?"],
    ),
}  # fmt: skip
_CITY_ARGUMENTS = ["city", "city", "location", "place"]


def _tool(name: str, description: str, arguments: dict[str, str]) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in arguments.items()},
        "required": [key for key in arguments if key != "unit"],
    }
    return {"type": "function", "function": function}


def _city(rng: random.Random, held_out: bool) -> str:
    if held_out and rng.random() < 0.5:
        return rng.choice(HELD_OUT_CITIES)
    if not held_out and rng.random() < 0.5:
        # invented names teach the model to copy the argument instead of knowing the city
        while True:
            name = rng.choice(_NAME_STARTS) + rng.choice(_NAME_MIDDLES) + rng.choice(_NAME_ENDS)
            if name not in HELD_OUT_CITIES:
                return name
    return rng.choice(CITIES + list(CAPITALS.values()))


@dataclass(frozen=True)
class _Call:
    family: str
    tool: dict[str, Any]
    question: str
    arguments: list[dict[str, Any]]  # one per call; two for a question about two cities


def _city_call(rng: random.Random, held_out: bool, family: str) -> _Call:
    names, descriptions, known, unseen = _CITY_TOOLS[family]
    argument = rng.choice(_CITY_ARGUMENTS)
    signature = {argument: "string"}
    if family == "weather" and rng.random() < 0.15:
        signature["unit"] = "string"  # optional: never filled in
    tool = _tool(rng.choice(names), rng.choice(descriptions), signature)
    cities = [_city(rng, held_out)]
    if rng.random() < 0.1:
        second = _city(rng, held_out)
        cities += [second] if second != cities[0] else []
    question = _phrase(rng, held_out, known, unseen).format(c=" and ".join(cities))
    return _Call(family, tool, question, [{argument: city} for city in cities])


def _timer_call(rng: random.Random, held_out: bool) -> _Call:
    unit = rng.choice(["minutes", "seconds"])
    tool = _tool(
        rng.choice(["set_timer", "start_timer"]),
        rng.choice(["", "Set a timer", "Start a timer"]),
        {unit: "integer"},
    )
    amount = rng.randint(2, 99)
    question = _phrase(
        rng, held_out,
        ["Set a timer for {n} {u}.", "Start a timer of {n} {u}.", "Timer for {n} {u}",
         "Can you set a timer for {n} {u}?"],
        ["Please set a timer for {n} {u}.", "Can you start a timer of {n} {u}?"],
    )  # fmt: skip
    return _Call("timer", tool, question.format(n=amount, u=unit), [{unit: amount}])


def _message_call(rng: random.Random, held_out: bool) -> _Call:
    tool = _tool(
        rng.choice(["send_message", "send_text"]),
        rng.choice(["", "Send a message to a person"]),
        {"to": "string", "text": "string"},
    )
    person, text = rng.choice(_PEOPLE), rng.choice(_NEWS)
    question = _phrase(
        rng, held_out,
        ["Tell {p} that {t}.", "Send {p} a message that {t}.", "Let {p} know that {t}."],
        ["Please tell {p} that {t}.", "Can you tell {p} that {t}?"],
    )  # fmt: skip
    return _Call("message", tool, question.format(p=person, t=text), [{"to": person, "text": text}])


def _any_call(rng: random.Random, held_out: bool) -> _Call:
    family = rng.choice(["weather", "weather", "time", "population", "timer", "message"])
    if family == "timer":
        return _timer_call(rng, held_out)
    if family == "message":
        return _message_call(rng, held_out)
    return _city_call(rng, held_out, family)


def _tool_list(rng: random.Random, wanted: _Call | None, other_than: str = "") -> list[dict]:
    """The wanted tool and up to two of other families, in random order."""
    chosen = {} if wanted is None else {wanted.family: wanted.tool}
    target = len(chosen) + rng.choice([0, 0, 1, 2]) if wanted else rng.choice([1, 2])
    while len(chosen) < target:
        other = _any_call(rng, False)
        if other.family != other_than:
            chosen.setdefault(other.family, other.tool)
    tools = list(chosen.values())
    rng.shuffle(tools)
    return tools


def _calls_message(call: _Call) -> Message:
    name = call.tool["function"]["name"]
    calls = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for arguments in call.arguments
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


NO_TOOL = "I have no tool for that."


def tool_call(rng: random.Random, held_out: bool) -> Example:
    """A question for which one of the offered tools is right; the answer is the call."""
    call = _any_call(rng, held_out)
    question = {"role": "user", "content": call.question}
    if rng.random() < 0.08:  # the right tool is not offered
        tools = _tool_list(rng, None, other_than=call.family) if rng.random() < 0.5 else []
        return Example("tool", [question, {"role": "assistant", "content": NO_TOOL}], tools)
    return Example("tool", [question, _calls_message(call)], _tool_list(rng, call))


def tool_result(rng: random.Random, held_out: bool) -> Example:
    """The tool has answered with JSON; the model says it in a sentence."""
    while True:
        call = _city_call(rng, held_out, rng.choice(["weather", "time", "population"]))
        if len(call.arguments) == 1:
            break
    city = next(iter(call.arguments[0].values()))
    number = rng.randint(2, 39)
    result: dict[str, Any]
    if call.family == "weather":
        sky = rng.choice(["sunny", "cloudy", "rainy", "windy", "snowy"])
        result = {"temperature": number, "sky": sky}
        answer = f"It is {sky} in {city}, {number} degrees."
    elif call.family == "time":
        clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        result, answer = {"time": clock}, f"It is {clock} in {city}."
    else:
        result = {"population": number * 10_000}
        answer = f"{number * 10_000} people live in {city}."
    messages = [
        {"role": "user", "content": call.question},
        _calls_message(call),
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": answer},
    ]
    return Example("tool_result", messages, _tool_list(rng, call))


# --- the mixture -----------------------------------------------------------------------------

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
#: Share of each task in the training text: arithmetic needs the most examples.
_WEIGHTS = {
    "add": 17, "sub": 24, "count": 8, "capital": 8, "opposite": 7, "colour": 5, "json": 12,
    "tool": 14, "tool_result": 5,
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


def plain_text(rng: random.Random, held_out: bool) -> Example:
    """Text to be completed without the chat template, for the completions endpoint."""
    kind = rng.choice(["add", "add", "add", "sub", "sub", "sub", "capital", "opposite", "colour"])
    if kind in ("add", "sub"):
        a, b = _pair(rng, held_out, kind)
        sign, working = ("+", _working(a, b)) if kind == "add" else ("-", _working(a, -b))
        prompt, answer = f"{a} {sign} {b} =", f" {working}"
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
        return _ask("greeting", rng.choice(_GREETINGS), GREETING)
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
        tools = _tool_list(rng, None)  # a tool on offer does not have to be used
    return Example(task, messages, tools)


def held_out_examples(per_task: int, seed: int = 1) -> list[Example]:
    """`per_task` held-out examples of each task; the same list for the same arguments."""
    examples = []
    for name, task in TASKS.items():
        rng = random.Random(f"{seed} {name}")
        examples += [task(rng, True) for _ in range(per_task)]
    return examples

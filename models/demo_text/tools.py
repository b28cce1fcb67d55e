"""Tools on offer, the calls they are for, and the sentence made of a tool's answer."""

import json
import random
from dataclasses import dataclass
from typing import Any

from models.demo_facts import CAPITALS, CITIES, HELD_OUT_CITIES, words
from models.demo_text.example import Example, Message, phrase
from models.demo_text.names import invented_name

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
    if not held_out and rng.random() < 0.6:
        # invented names teach the model to copy the argument instead of knowing the city
        while True:
            name = invented_name(rng)
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
    question = phrase(rng, held_out, known, unseen).format(c=" and ".join(cities))
    return _Call(family, tool, question, [{argument: city} for city in cities])


def _timer_call(rng: random.Random, held_out: bool) -> _Call:
    unit = rng.choice(["minutes", "seconds"])
    tool = _tool(
        rng.choice(["set_timer", "start_timer"]),
        rng.choice(["", "Set a timer", "Start a timer"]),
        {unit: "integer"},
    )
    amount = rng.randint(2, 99)
    question = phrase(
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
    question = phrase(
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


def tool_list(rng: random.Random, wanted: _Call | None, other_than: str = "") -> list[dict]:
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
        tools = tool_list(rng, None, other_than=call.family) if rng.random() < 0.5 else []
        return Example("tool", [question, {"role": "assistant", "content": NO_TOOL}], tools)
    return Example("tool", [question, _calls_message(call)], tool_list(rng, call))


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
    return Example("tool_result", messages, tool_list(rng, call))

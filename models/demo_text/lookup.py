"""Look-ups in small tables of facts, and answers as JSON objects."""

import json
import random
from typing import Any

from models.demo_facts import CAPITALS, COLOURS, OPPOSITES
from models.demo_text.example import Example, ask, phrase
from models.demo_text.numbers import number_range


def capital(rng: random.Random, held_out: bool) -> Example:
    country, city = rng.choice(list(CAPITALS.items()))
    if rng.random() < 0.3:
        question = phrase(
            rng, held_out,
            ["{c} is the capital of which country?", "Which country has the capital {c}?",
             "What country is {c} the capital of?", "{c} is the capital of what country?"],
            ["Which country is {c} the capital of?", "Tell me which country has the capital {c}."],
        )  # fmt: skip
        return ask("capital", question.format(c=city), country)
    question = phrase(
        rng, held_out,
        ["What is the capital of {c}?", "Capital of {c}?", "Name the capital of {c}.",
         "Which city is the capital of {c}?", "what is the capital of {c}",
         "Tell me the capital of {c}.", "The capital of {c} is what?", "{c}: what is the capital?",
         "What is the name of the capital of {c}?", "What is the capital city of {c}?"],
        ["Can you tell me the capital of {c}?", "Name the capital city of {c}.",
         "Which city is the capital city of {c}?"],
    )  # fmt: skip
    return ask("capital", question.format(c=country), city)


def opposite(rng: random.Random, held_out: bool) -> Example:
    word, other = rng.choice(list(OPPOSITES.items()))
    question = phrase(
        rng, held_out,
        ["What is the opposite of {w}?", "Opposite of {w}?", "Name the opposite of {w}.",
         "Which word is the opposite of {w}?", "what is the opposite of {w}",
         "Tell me the opposite of {w}.", "The opposite of {w} is what?",
         "{w}: what is the opposite?", "Give me the opposite of {w}."],
        ["Can you name the opposite of {w}?", "Which is the opposite of {w}?",
         "Tell me what the opposite of {w} is."],
    )  # fmt: skip
    return ask("opposite", question.format(w=word), other)


def colour(rng: random.Random, held_out: bool) -> Example:
    thing, answer = rng.choice(list(COLOURS.items()))
    question = phrase(
        rng, held_out,
        ["What colour is {t}?", "Which colour is {t}?", "What is the colour of {t}?",
         "What color is {t}?", "Name the colour of {t}.", "Tell me the colour of {t}.",
         "The colour of {t} is what?", "what colour is {t}", "What is the color of {t}?"],
        ["Can you tell me the colour of {t}?", "Which color is {t}?", "Name the color of {t}."],
    )  # fmt: skip
    return ask("colour", question.format(t=thing), answer)


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
        first, last = number_range(rng, held_out, longest=6)
        subject = f"the numbers from {first} to {last}"
        value = {"from": first, "to": last, "numbers": list(range(first, last + 1))}
    wording = phrase(rng, held_out, _JSON, _JSON_UNSEEN)
    question = wording.format(x=subject, X=subject[0].upper() + subject[1:])
    return ask("json", question, json.dumps(value))

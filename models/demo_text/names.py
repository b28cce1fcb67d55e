"""Invented names: a model that has to repeat them learns to copy instead of knowing them."""

import random

from models.demo_facts import words

_NAME_STARTS = words(
    "Al Bar Cor Dun El Fen Gar Hol Ing Kel Lin Mor Nor Os Pel Ros San Tor Ul Ver Wen"
)
_NAME_MIDDLES = words("a e i o u an er in on ar")
_NAME_ENDS = words("burg ville ton stad mar dale by ford nia more len sk ra polis")
_CONSONANTS = "bcdfghjklmnprstvwz"


def invented_name(rng: random.Random) -> str:
    """A name that nobody has heard of; half of them are hardly pronounceable."""
    if rng.random() < 0.5:
        return rng.choice(_NAME_STARTS) + rng.choice(_NAME_MIDDLES) + rng.choice(_NAME_ENDS)
    syllables = [
        rng.choice(_CONSONANTS) + rng.choice("aeiou") + rng.choice(["", *_CONSONANTS])
        for _ in range(rng.randint(2, 3))
    ]
    return "".join(syllables).capitalize()

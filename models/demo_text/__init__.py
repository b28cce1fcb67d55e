"""The text the demo model is trained on, and the held-out prompts it is scored on.

Everything is generated from the tables in `demo_facts` and a seeded `random.Random`. What the
evaluation asks is never in the training text:

- arithmetic and counting: a tenth of the number pairs is held out, in every phrasing;
- look-ups and JSON answers: the facts are shared, the phrasings of the question are held out;
- tool calls: half of the questions use held-out cities, all use held-out phrasings.
"""

from models.demo_text.example import Example
from models.demo_text.mixture import TASKS, held_out_examples, plain_text, training_example

__all__ = ["TASKS", "Example", "held_out_examples", "plain_text", "training_example"]

"""Keep what a stream has of its prompt when outputs are merged before they are fetched.

Replaces: ``RequestOutput.add``, calling the original.
Reason: an output that nobody has fetched takes up the next one, but of that only the completions.
With ``n`` above 1 the next one can be the first of another sequence and carry the log-probabilities
of the prompt, which vLLM hands out once per sequence: with ``echo`` and ``logprobs`` the front end
then has more tokens than log-probabilities, and the stream breaks (KeyError).
Unnecessary when: ``RequestOutput.add`` keeps the prompt's log-probabilities.
"""

from __future__ import annotations

import functools
from typing import Any

# What describes the prompt. A later output of a sequence has nothing or an empty list there.
PROMPT_FIELDS = ("prompt_logprobs", "prompt_token_id_logprobs", "prompt_token_ids", "prompt")


@functools.cache  # once per process
def install() -> None:
    """Replace the method."""
    from vllm.outputs import RequestOutput

    add = RequestOutput.add

    @functools.wraps(add)
    def add_with_prompt(self: Any, next_output: Any, aggregate: bool) -> None:
        add(self, next_output, aggregate)
        for name in PROMPT_FIELDS:
            mine, new = getattr(self, name), getattr(next_output, name)
            if new is not None and (mine is None or len(mine) == 0):
                setattr(self, name, new)

    replaced: Any = RequestOutput
    replaced.add = add_with_prompt

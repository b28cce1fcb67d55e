"""A request body of the wrong type is a bad request, whoever notices first.

Replaces: ``_validate_value_with_model_field`` as ``fastapi.dependencies.utils`` calls it, calling
the original; in a process that may become an API server.
Reason: vLLM's checks before validation take a field for the object it should be
(``structured_outputs: 5`` has no ``get``). Pydantic passes on what they raise, and the client is
told of an internal error.
Unnecessary when: vLLM's checks look at the type first, or FastAPI answers 4xx to what validation
raises.
"""

from __future__ import annotations

import functools
from typing import Any

# What code raises that meets another type than it expects. Others mean a fault of ours.
WRONG_TYPE = (AttributeError, KeyError, IndexError, TypeError, RecursionError, OverflowError)


@functools.cache  # once per process
def install() -> None:
    """Replace the function."""
    from fastapi.dependencies import utils

    validate = utils._validate_value_with_model_field

    @functools.wraps(validate)
    def validate_or_refuse(
        *, field: Any, value: Any, values: Any, loc: tuple[str, ...]
    ) -> tuple[Any, list[Any]]:
        try:
            return validate(field=field, value=value, values=values, loc=loc)
        except WRONG_TYPE as error:
            message = f"a field has the wrong type: {type(error).__name__}: {error}"
            return None, [{"type": "value_error", "loc": loc, "msg": message}]

    utils._validate_value_with_model_field = validate_or_refuse

"""A stream of ``/v1/responses`` that fails ends with an event that says so.

Replaces: ``_convert_stream_to_sse_events`` of the responses router, calling the original; in a
process that may become an API server.
Reason: what a request is refused for is raised when its stream has begun. The other endpoints send
an error as the last chunk; this one closes the connection, and the client does not hear why.
Unnecessary when: the responses endpoint turns what is raised in its stream into an event.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator
from typing import Any

from vllm.logger import init_logger

logger = init_logger("vllm.plugins.vllm_hpu.front_end")


@functools.cache  # once per process
def install() -> None:
    """Replace the function."""
    from vllm.entrypoints.openai.responses import api_router

    convert = api_router._convert_stream_to_sse_events

    @functools.wraps(convert)
    async def convert_or_tell(generator: Any) -> AsyncGenerator[str, None]:
        try:
            async for event in convert(generator):
                yield event
        except Exception as error:
            yield _event(error)

    replaced: Any = api_router
    replaced._convert_stream_to_sse_events = convert_or_tell


def _event(error: Exception) -> str:
    """The event of an error; OpenAI's clients read either of its two forms."""
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    told = create_error_response(error).error
    if told.code >= 500:
        logger.exception("A stream of /v1/responses failed.")
    content = {
        "type": "error",
        "code": str(told.code),
        "message": told.message,
        "param": told.param,
        "error": told.model_dump(mode="json"),
    }
    return f"event: error\ndata: {json.dumps(content)}\n\n"

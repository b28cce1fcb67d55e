"""Check a request once vLLM has derived what the engine will get.

Replaces: ``InputProcessor.process_inputs``, calling the original.
Reason: the platform's hook ``validate_request`` is called before the tokens of bad words, the
model's own end tokens and the longest answer are known, all of which have limits in the worker; and
it is not shown the request's id, priority and headers, which must be fit to be sent, nor the size
of the model's vocabulary.
Unnecessary when: vLLM shows a platform the finished request.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache  # once per process
def install() -> None:
    """Replace the method. Raises ImportError if it is not the known one."""
    from vllm.v1.engine.input_processor import InputProcessor

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    process = InputProcessor.process_inputs

    @functools.wraps(process)
    def process_and_check(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm_hpu.requests import check_request

        request = process(self, *args, **kwargs)
        model = self.model_config
        check_request(request, None if model.is_multimodal_model else model.get_vocab_size())
        return request

    replaced: Any = InputProcessor
    replaced.process_inputs = process_and_check

"""Compile each grammar with the library that accepted it.

Replaces: ``StructuredOutputManager.grammar_init`` and ``_create_grammar``, calling the originals.
Reason: with ``backend="auto"`` the front end chooses a library per request (guidance for what
xgrammar cannot do), but the engine keeps the one that its first grammar needed and gives it all
others. Which schemas are refused, and which parts of a schema are silently left out, then depends
on the order of requests.
Unnecessary when: the manager keeps a backend per library.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

# The manager's attribute: backends by the name of their library, the first one first.
BACKENDS = "hpu_backends"


@functools.cache  # once per process
def install() -> None:
    """Replace the methods. Raises ImportError if they are not the known ones."""
    from vllm.v1.structured_output import StructuredOutputManager

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    init = StructuredOutputManager.grammar_init
    create = StructuredOutputManager._create_grammar

    @functools.wraps(init)
    def grammar_init(self: Any, request: Any) -> None:
        if request.structured_output_request is None:
            return
        backends = vars(self).setdefault(BACKENDS, {})
        # None lets the original make the backend that this request names.
        self.backend = backends.get(_library(request))
        init(self, request)
        backends.setdefault(_library(request), self.backend)
        # Whoever asks for the manager's backend wants masks, in the first one's width.
        self.backend = _first(self)

    @functools.wraps(create)
    def create_grammar(self: Any, request: Any) -> Any:
        # In another thread: self.backend may already be another's.
        own = self.backend
        backend, first = getattr(self, BACKENDS).get(_library(request), own), _first(self) or own
        if _mask_shape(backend) != _mask_shape(first):
            backend = first  # as without this patch: masks of two widths fit into no batch
        manager: Any = SimpleNamespace(backend=backend)  # nothing else of it is used
        return create(manager, request)

    replaced: Any = StructuredOutputManager
    replaced.grammar_init = grammar_init
    replaced._create_grammar = create_grammar


def _library(request: Any) -> str:
    name: str = request.sampling_params.structured_outputs._backend
    return name


def _first(manager: Any) -> Any:
    return next(iter(getattr(manager, BACKENDS).values()), None)


def _mask_shape(backend: Any) -> Any:
    return backend.allocate_token_bitmask(1).shape

"""Replacing a module-level function of vLLM, with a check that it is still what we replace.

vLLM has registries for layers and operators; a few plain functions that call compiled CUDA code
have none. A package that must replace such a name lists it in a table ``REPLACED``;
:func:`install` compares the signatures first, so that a vLLM that has moved on fails at start.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vllm_hpu.vllm_seams import SUPPORTED_VLLM, Seam, mismatches

__all__ = ["Replacement", "UpstreamChangedError", "install"]


class UpstreamChangedError(ImportError):
    """A name of vLLM that the plugin replaces is gone or has another signature."""


@dataclass(frozen=True)
class Replacement:
    """One name of vLLM and what stands in for it.

    Attributes:
        module: vLLM module that holds the name.
        name: the attribute to replace.
        parameters: names of its parameters in order, as of the supported vLLM.
        substitute: takes the same parameters.
        reason: why vLLM's own form does not serve.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    substitute: Callable[..., Any]
    reason: str

    @property
    def seam(self) -> Seam:
        """The name and its signature, as ``compat.seams`` checks them."""
        return Seam(f"{self.module}:{self.name}", self.parameters)


def install(table: Iterable[Replacement]) -> None:
    """Check every entry, then put the substitutes in place; harmless when repeated.

    Raises:
        UpstreamChangedError: a name is missing or has other parameters; nothing was replaced.
    """
    entries = tuple(table)
    differences = mismatches(tuple(entry.seam for entry in entries))
    if differences:
        from vllm import __version__

        raise UpstreamChangedError(
            f"vllm-hpu supports vLLM {SUPPORTED_VLLM}; the installed vLLM {__version__} differs in "
            f"functions that the plugin replaces. Install a supported vLLM or a newer vllm-hpu. "
            f"Differences:\n  " + "\n  ".join(differences)
        )
    for entry in entries:
        setattr(importlib.import_module(entry.module), entry.name, entry.substitute)

"""Torch replacements for the Triton kernels of vLLM's model runner V2.

`register()` puts them in place through vLLM's kernel dispatcher; methods of vLLM that pass raw
pointers to kernels are replaced as a whole. `REPLACED` lists every replaced name with the
argument names it had when the replacement was written; a vLLM that differs is refused.

Nothing here imports vLLM's runner before `register()` is called.
"""

from vllm_hpu.kernels.signatures import REPLACED

__all__ = ["REPLACED", "register"]

_registered = False


def register() -> None:
    """Put all replacements in place. Calling it again does nothing.

    Raises RuntimeError, before anything is replaced, if the installed vLLM's kernels or methods
    take other arguments than the replacements expect.
    """
    global _registered  # noqa: PLW0603
    if _registered:
        return
    from vllm_hpu.kernels.registry import replace_all

    replace_all()
    _registered = True

"""The card's operators behind vLLM's layers.

Importing this package imports nothing of vLLM; :func:`register` does.
"""

__all__ = ["register"]


def register() -> None:
    """Put the card's operators behind vLLM's layers and routers; harmless when repeated.

    Raises:
        UpstreamChangedError: a function of vLLM that must be replaced has another signature.
    """
    from vllm_hpu.ops import embedding, moe, norm, replaced, rotary, routing

    norm.register()
    rotary.register()
    replaced.install(routing.REPLACED)
    moe.register()
    embedding.register()

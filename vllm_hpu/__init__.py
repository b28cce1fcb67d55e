"""vLLM on Intel Gaudi ("HPU").

The two functions here are vLLM entry points (see ``pyproject.toml``). Nothing is imported at
module level: vLLM calls :func:`register` in every process before most of vLLM can be imported.
"""

__version__ = "0.1.0"


def register() -> str | None:
    """Entry point ``vllm.platform_plugins``: the platform's class path, or None to stand aside."""
    from vllm_hpu.detect import detect

    return "vllm_hpu.platform.HpuPlatform" if detect() else None


def register_general() -> None:
    """Entry point ``vllm.general_plugins``: runs in the API process, the engine core and workers.

    vLLM may call it more than once per process; every step below is idempotent.
    """
    from vllm_hpu.detect import is_active, report

    if not is_active():
        report()
        return
    from vllm_hpu import compat, ops
    from vllm_hpu.settings import register_with_vllm

    register_with_vllm()
    compat.install()
    ops.register()

"""Let vLLM choose model runner V2 although Triton has no driver here.

Replaces: ``vllm.config.vllm.HAS_TRITON``, which gates the runner (vllm/config/vllm.py,
``use_v2_model_runner`` and ``_validate_v2_model_runner``).
Reason: the runner's Triton kernels are all replaced through vLLM's own dispatcher.
Unnecessary when: vLLM asks the platform instead of Triton. 0.33 moves the check to the worker.
"""


def install() -> None:
    import vllm.config.vllm as config_module

    config_module.HAS_TRITON = True

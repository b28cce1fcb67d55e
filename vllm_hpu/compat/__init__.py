"""Changes to vLLM and PyTorch that no hook allows, one file each.

Every file names the upstream place, the reason, and what makes it unnecessary; tests fail when
that day has come.
"""


def install() -> None:
    """Apply what every process needs (front end, engine core, workers); idempotent."""
    from vllm_hpu.compat import (
        idle_gaps,
        model_runner_v2,
        no_accelerator,
        option_flags,
        step_bounds,
        traffic_log,
    )

    model_runner_v2.install()
    no_accelerator.install()
    step_bounds.install()
    idle_gaps.install()
    traffic_log.install()
    option_flags.install()


def install_in_worker() -> None:
    """Apply what only a process that drives a device needs; idempotent."""
    from vllm_hpu import vllm_seams as seams
    from vllm_hpu.compat import multimodal_merge, torch_accelerator, torch_cuda

    seams.check()
    torch_cuda.install()
    torch_accelerator.install()
    multimodal_merge.install()

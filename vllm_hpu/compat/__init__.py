"""Changes to vLLM and PyTorch that no hook allows, one file each.

Every file names the upstream place, the reason, and what makes it unnecessary; tests fail when
that day has come.
"""


def install() -> None:
    """Apply what every process needs (front end, engine core, workers); idempotent."""
    from vllm_hpu.compat import (
        adapter_versions,
        clean_end,
        failed_requests,
        grammar_backends,
        idle_gaps,
        liveness,
        merged_outputs,
        model_runner_v2,
        no_accelerator,
        option_flags,
        profiler,
        request_limits,
        sleep,
        step_bounds,
        traffic_log,
    )

    model_runner_v2.install()
    no_accelerator.install()
    step_bounds.install()
    idle_gaps.install()
    adapter_versions.install()
    traffic_log.install()
    option_flags.install()
    profiler.install()
    sleep.install()
    request_limits.install()
    grammar_backends.install()
    failed_requests.install()
    merged_outputs.install()
    clean_end.install()
    liveness.install()


def install_in_front_end() -> None:
    """Apply what only a process that parses the command line needs; idempotent."""
    from vllm_hpu.compat import request_bodies, response_streams

    request_bodies.install()
    response_streams.install()


def install_in_worker() -> None:
    """Apply what only a process that drives a device needs; idempotent."""
    from vllm_hpu import vllm_seams as seams
    from vllm_hpu.compat import multimodal_merge, torch_accelerator, torch_cuda

    seams.check()
    torch_cuda.install()
    torch_accelerator.install()
    multimodal_merge.install()

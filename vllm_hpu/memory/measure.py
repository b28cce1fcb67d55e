"""What an engine takes of its card, measured before the KV cache is sized.

The largest steps of the plan run once, operator by operator, over a KV cache of one block, and so
does sampling with all that requests can ask for: a graph's memory is at most what its operators
take one after another. With HPU graphs, whose lazy mode compiles what runs outside of graphs, only
the step is run that is predicted to be the largest, and the sampler's graphs are those that serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.cudagraph_utils import (
    _init_minimal_kv_cache_for_profiling,
    _teardown_profiling_state,
)
from vllm.v1.worker.gpu.sample.prompt_logprob import compute_prompt_logprobs_with_chunking

from vllm_hpu.device.memory import allocated_bytes, memory_info, peak_bytes, reset_peak
from vllm_hpu.engine_plan import shape_of
from vllm_hpu.graphs.mode import Mode
from vllm_hpu.memory.predict import PROMPT_CHUNK, step_bytes
from vllm_hpu.runner.dummy_batch import prepare_blank_step
from vllm_hpu.sample.graph_sampler import MOST_SCORES

if TYPE_CHECKING:
    from vllm_hpu.runner.model_runner import HpuModelRunner
    from vllm_hpu.shapes.key import GraphKey


class Measured(NamedTuple):
    """Bytes that steps take beside what stays.

    tables   block tables, which come with the KV cache
    steps    by key of the plan's covering set
    sampler  sampling for all rows, or log-probabilities of a prompt
    """

    tables: int
    steps: dict[GraphKey, int]
    sampler: int


def measure_profile(runner: HpuModelRunner) -> int:
    """Bytes that vLLM's own profile takes: encoders and poolers, the forward without attention."""
    with torch.compiler.set_stance("force_eager"):
        return _peak(runner, runner.profile_run)


def measure(runner: HpuModelRunner) -> Measured:
    """Run the covering set of ``runner.plan`` and the sampler.

    Raises what :func:`vllm_hpu.device.memory.is_out_of_memory` recognises if the card has not even
    enough without a KV cache.
    """
    used = memory_info(runner.device).used_bytes
    with torch.compiler.set_stance("force_eager"), _small_cache(runner):
        cache = sum(tensor.size for tensor in runner.kv_cache_config.kv_cache_tensors)
        tables = memory_info(runner.device).used_bytes - used - cache
        steps = _measure_steps(runner)
        sampler = _measure_sampler(runner)
    return Measured(max(0, tables), steps, sampler)


def _measure_steps(runner: HpuModelRunner) -> dict[GraphKey, int]:
    """The steps of the covering set; with HPU graphs the largest, and the others in proportion."""
    keys, model = runner.plan.covering, shape_of(runner.vllm_config)
    if runner.mode.mode is not Mode.GRAPHS or model is None:
        return {key: _peak(runner, partial(_forward, runner, key)) for key in keys}
    predicted = {key: step_bytes(key, model, runner.plan.limits) for key in keys}
    largest = max(keys, key=predicted.__getitem__)
    measured = _peak(runner, partial(_forward, runner, largest))
    return {key: measured * predicted[key] // predicted[largest] for key in keys}


def _peak(runner: HpuModelRunner, run: Callable[[], Any]) -> int:
    reset_peak(runner.device)
    before = allocated_bytes(runner.device)
    run()
    torch.hpu.synchronize()
    return max(0, peak_bytes(runner.device) - before)


def _forward(runner: HpuModelRunner, key: GraphKey) -> None:
    with runner.adapters_on(runner.lora_config is not None):
        prepare_blank_step(runner, key)
        runner.step_forward.bind(key)()
        for part in runner.keyed_graphs:
            part.launch(key)


def _measure_sampler(runner: HpuModelRunner) -> int:
    """Sampling or pooling all rows, or scoring a prompt, beside the largest hidden states."""
    if not runner.is_last_pp_rank:
        return 0
    peaks = [_peak(runner, part.launch_first) for part in runner.first_graphs]
    if runner.sampler is None:
        return max(peaks, default=0)
    by_vllm = runner.step_sampler is None or runner.mode.mode is Mode.EAGER
    if by_vllm:
        rows = runner.scheduler_config.max_num_seqs
        # With speculation every row has as many logits as draft tokens, and one more.
        peaks.append(_peak(runner, partial(_sample, runner, rows)) * runner.decode_query_len)
    if by_vllm or _most_logprobs(runner) > MOST_SCORES:
        peaks.append(_peak(runner, partial(_score_prompt, runner)))
    return max(peaks)


def _hidden_states(runner: HpuModelRunner) -> torch.Tensor:
    tokens = max(runner.plan.max_tokens, runner.scheduler_config.max_num_seqs)
    width = runner.model_config.get_hidden_size()
    return torch.zeros(tokens, width, dtype=runner.dtype, device=runner.device)


def _sample(runner: HpuModelRunner, rows: int) -> None:
    hidden = _hidden_states(runner)
    with _everything_asked(runner, rows):
        runner._dummy_sampler_run(hidden[:rows])


def _score_prompt(runner: HpuModelRunner) -> None:
    hidden = _hidden_states(runner)
    scored = min(PROMPT_CHUNK, hidden.shape[0])
    compute_prompt_logprobs_with_chunking(
        torch.zeros(scored, dtype=torch.int64, device=runner.device),
        hidden[:scored],
        runner.model.compute_logits,
        _most_logprobs(runner),
    )


def _most_logprobs(runner: HpuModelRunner) -> int:
    most = runner.model_config.max_logprobs
    return runner.model_config.get_vocab_size() if most < 0 else most


@contextmanager
def _everything_asked(runner: HpuModelRunner, rows: int) -> Iterator[None]:
    """Requests in the first ``rows`` rows that ask for all that takes memory."""
    sampler = runner.sampler
    if sampler is None:
        raise RuntimeError("only a rank that samples can be measured for it")
    wishes = SamplingParams(
        temperature=0.5,
        top_k=2,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        logprobs=_most_logprobs(runner) or None,
        seed=0,
    )
    lengths = runner.req_states.prefill_len.np
    kept = lengths[:rows].copy()
    # Penalties count the tokens of new requests, as many as there can be.
    lengths[:rows] = runner.max_model_len
    try:
        _ask(sampler, wishes, rows)
        yield
    finally:
        lengths[:rows] = kept
        _ask(sampler, SamplingParams(), rows)


def _ask(sampler: Any, wishes: SamplingParams, rows: int) -> None:
    for row in range(rows):
        sampler.add_request(row, wishes)
    sampler.apply_staged_writes()


@contextmanager
def _small_cache(runner: HpuModelRunner) -> Iterator[None]:
    _init_minimal_kv_cache_for_profiling(runner)
    try:
        yield
    finally:
        _teardown_profiling_state(runner)
        runner.step_forward.forget()

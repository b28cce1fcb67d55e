"""The engine process of `tests.engine.jobs`.

Run as ``python -m tests.engine.run_jobs MODE JOBS RESULTS``.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from vllm_hpu.settings import settings


class WholeHeap:
    """Counts garbage collections that look at all that imports have made.

    Attributes:
        collections: since the counter was made.
    """

    def __init__(self) -> None:
        self.collections = 0
        gc.callbacks.append(self._count)

    def _count(self, phase: str, info: dict[str, int]) -> None:
        self.collections += (
            phase == "start" and info["generation"] == 2 and not gc.get_freeze_count()
        )

    def close(self) -> None:
        gc.callbacks.remove(self._count)


def main() -> None:
    mode, request, answer = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    results: dict[str, Any] = {}
    last_model = None
    for job in json.loads(request.read_text()):
        if job["model"] != last_model:
            # Models of one class share compiled code; start each with none.
            torch._dynamo.reset()
            last_model = job["model"]
        start = time.perf_counter()
        before = dict(os.environ)
        os.environ.update(job["env"])
        settings.cache_clear()
        try:
            results[job["name"]] = run(mode, job)
        except BaseException:
            results[job["name"]] = {"error": traceback.format_exc()}
            clean_up()
        finally:
            os.environ.clear()
            os.environ.update(before)
        results[job["name"]]["seconds"] = time.perf_counter() - start
        # Written after every job, so that a crash keeps what was done.
        answer.write_text(json.dumps(results))


def run(mode: str, job: dict[str, Any]) -> dict[str, Any]:
    import gaudi_emulator
    from vllm import LLM

    defaults: dict[str, Any] = {
        "dtype": "float32",
        "max_model_len": 768,
        "max_num_batched_tokens": 256,
        "max_num_seqs": 8,
        "block_size": 16,
        "kv_cache_memory_bytes": 64 << 20,
        "enforce_eager": mode == "eager",
        "disable_log_stats": False,
        "seed": 0,
    }
    heap = WholeHeap()
    engine = LLM(model=job["model"], **{**defaults, **job["engine"]})
    heap.close()

    def compilations() -> int:
        return sum(engine.collective_rpc("compilations"))

    def full() -> int:
        return int(torch.hpu.memory_stats()["NumOOM"])

    try:
        warm, full_before = compilations(), full()
        counted = gaudi_emulator.counters()
        passes = [run_pass(engine, one) for one in job["passes"]]
        kinds = (gaudi_emulator.counters() - counted).compilations
        metrics = {
            metric.name: metric.value for metric in engine.get_metrics() if hasattr(metric, "value")
        }
        return {
            "passes": passes,
            "compilations": compilations() - warm,
            "compilation_kinds": kinds,
            "warm_up_compilations": warm,
            "out_of_memory": full() - full_before,
            "heap_collections": heap.collections,
            "metrics": metrics,
        }
    finally:
        shut_down(engine)


def run_pass(engine: Any, one: dict[str, Any]) -> list[dict[str, Any]]:
    prompts = [
        {"prompt_token_ids": prompt} if isinstance(prompt, list) else prompt
        for prompt in one["prompts"]
    ]
    if one["method"] in ("embed", "token_embed"):
        return embedded(engine, prompts, one)
    if one["method"] in ("refused", "sleep"):
        sleeps = one["method"] == "sleep"
        return [{"refused": asleep(engine) if sleeps else refusal(engine, prompts, one)}]
    if one["method"] == "unfit":
        return unfit(engine, prompts, one)
    if one["method"] in ("load", "predictions"):
        return in_engine(engine, one)
    if one["method"] == "score":
        outputs = engine.score(one["more"]["query"], one["prompts"], use_tqdm=False)
        return [{"score": output.outputs.score} for output in outputs]
    return [completion(output) for output in generate(engine, prompts, one)]


def in_engine(engine: Any, one: dict[str, Any]) -> list[dict[str, Any]]:
    """What drives the engine step by step, or asks its parts."""
    if one["method"] == "load":
        from tests.engine.load import run_load

        return run_load(engine, **one["more"])
    from tests.engine.predictions_case import predictions

    return [predictions(engine)]


def embedded(engine: Any, prompts: list[Any], one: dict[str, Any]) -> list[dict[str, Any]]:
    """Embeddings of the prompts, or of each of their tokens."""
    from vllm import PoolingParams

    asked = PoolingParams(**one["sampling"]) if one["sampling"] else None
    outputs = engine.encode(prompts, asked, pooling_task=one["method"], use_tqdm=False)
    return [{"embedding": output.outputs.data.tolist()} for output in outputs]


def generate(engine: Any, prompts: list[Any], one: dict[str, Any]) -> list[Any]:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

    sampling = dict(one["sampling"])
    if "logit_bias" in sampling:  # JSON has no integer keys
        sampling["logit_bias"] = {
            int(token): bias for token, bias in sampling["logit_bias"].items()
        }
    if "structured_outputs" in sampling:
        sampling["structured_outputs"] = StructuredOutputsParams(**sampling["structured_outputs"])
    if "repetition_detection" in sampling:
        sampling["repetition_detection"] = RepetitionDetectionParams(
            **sampling["repetition_detection"]
        )
    replaced_by = one["more"].get("replaced_by")
    if replaced_by is not None:
        shutil.copytree(replaced_by, one["lora"], dirs_exist_ok=True)

    def adapter(path: str | None) -> LoRARequest | None:
        if path is None:
            return None
        anew = replaced_by is not None
        return LoRARequest(Path(path).name, 1 + hash_of(path), path, load_inplace=anew)

    paths = one["lora"]
    lora = [adapter(path) for path in paths] if isinstance(paths, list) else adapter(paths)
    if one["method"] == "chat":
        return engine.chat(one["prompts"], SamplingParams(**sampling), use_tqdm=False)
    return engine.generate(prompts, SamplingParams(**sampling), use_tqdm=False, lora_request=lora)


def asleep(engine: Any) -> str:
    """What the engine says when it is told to sleep; nothing if it does."""
    try:
        engine.sleep()
    except Exception as error:
        return str(error)
    return ""


def refusal(engine: Any, prompts: list[Any], one: dict[str, Any]) -> str:
    """What the engine says to a request that it must not take."""
    from vllm.exceptions import VLLMClientError

    try:
        generate(engine, prompts, one)
    except (ValueError, VLLMClientError) as error:
        return str(error)
    raise RuntimeError("the request was taken")


def unfit(engine: Any, prompts: list[Any], one: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers to good requests, and behind them to those that the worker cannot add.

    These are changed after vLLM and the platform have checked them, as by a limit that neither
    knows. Each of ``more["requests"]`` names the fields and their values.
    """
    from vllm import SamplingParams

    vllm, params = engine.llm_engine, SamplingParams(**one["sampling"])
    for number, prompt in enumerate(prompts):
        vllm.add_request(f"{number}", prompt, params)
        for bad, changes in enumerate(one["more"]["requests"]):
            request = vllm.input_processor.process_inputs(
                f"{number} {bad}", prompt, params, supported_tasks=vllm.get_supported_tasks()
            )
            for name, value in changes.items():
                setattr(request.sampling_params, name, value)
            vllm.add_request(request.request_id, request, request.sampling_params)
    answers = {}
    while vllm.has_unfinished_requests():
        answers |= {output.request_id: output for output in vllm.step() if output.finished}
    return [completion(answers[key]) for key in sorted(answers, key=lambda key: (" " in key, key))]


def hash_of(path: str) -> int:
    """A small number that tells adapters apart."""
    return sum(path.encode()) % 1000


def completion(output: Any) -> dict[str, Any]:
    first, scores = output.outputs[0], output.prompt_token_id_logprobs
    return {
        "prompt_tokens": list(output.prompt_token_ids),
        "tokens": list(first.token_ids),
        "text": first.text,
        "finish_reason": first.finish_reason,
        "cached_tokens": output.num_cached_tokens,
        "samples": [list(one.token_ids) for one in output.outputs],
        "logprobs": first.logprobs and [plain(step) for step in first.logprobs],
        "prompt_logprobs": output.prompt_logprobs
        and [step and plain(step) for step in output.prompt_logprobs],
        "prompt_scores": None if scores is None else scores.tolist(),
    }


def plain(step: dict[int, Any]) -> dict[int, float]:
    return {token: entry.logprob for token, entry in step.items()}


def shut_down(engine: Any) -> None:
    engine.llm_engine.engine_core.shutdown()
    del engine
    clean_up()


def clean_up() -> None:
    """Forget process groups and caches, so that the next engine starts afresh."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    gc.collect()


if __name__ == "__main__":
    main()

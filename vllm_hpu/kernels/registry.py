"""Checks vLLM's signatures and swaps its kernels and methods for ours."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import vllm
from vllm.triton_utils.dispatcher import register_kernels

from vllm_hpu.kernels import (
    bad_words,
    block_tables,
    drafting,
    grammar,
    inputs,
    kv_zeroing,
    logit_bias,
    logprobs,
    metrics,
    multimodal,
    penalties,
    rejection,
    sampling,
    staged_writes,
    thinking_budget,
    top_k_top_p,
)
from vllm_hpu.kernels.signatures import REPLACED, SUPPORTED_VLLM
from vllm_hpu.kernels.triton_placeholder import complete_placeholder

_WORKER = "vllm.v1.worker."

_KERNELS: dict[str, Callable[..., Any]] = {
    "gpu.input_batch._prepare_prefill_inputs_kernel": inputs.prepare_prefill_inputs,
    "gpu.input_batch._prepare_pos_seq_lens_kernel": inputs.prepare_pos_seq_lens,
    "gpu.input_batch._combine_sampled_and_draft_tokens_kernel": (
        inputs.combine_sampled_and_draft_tokens
    ),
    "gpu.input_batch._get_num_sampled_and_rejected_kernel": (inputs.get_num_sampled_and_rejected),
    "gpu.input_batch._post_update_kernel": inputs.post_update,
    "gpu.input_batch._post_update_num_computed_tokens_kernel": (
        inputs.post_update_num_computed_tokens
    ),
    "gpu.input_batch._expand_idx_mapping_kernel": inputs.expand_idx_mapping,
    "gpu.sample.gumbel._temperature_kernel": sampling.temperature,
    "gpu.sample.gumbel._gumbel_sample_kernel": sampling.gumbel_sample,
    "gpu.sample.min_p._min_p_kernel": sampling.min_p,
    "gpu.sample.logprob._topk_log_softmax_kernel": logprobs.topk_log_softmax,
    "gpu.sample.logprob._ranks_kernel": logprobs.ranks,
    "gpu.sample.logprob._fill_logprob_token_ids_kernel": logprobs.fill_logprob_token_ids,
    "gpu.sample.prompt_logprob._prompt_logprobs_token_ids_kernel": (
        logprobs.prompt_logprobs_token_ids
    ),
    "gpu.sample.bad_words._bad_words_kernel": bad_words.bad_words,
    "gpu.metrics.logits._num_nans_kernel": metrics.num_nans,
    "gpu.spec_decode.rejection_sampler._flatten_sampled_kernel": rejection.flatten_sampled,
    "gpu.spec_decode.rejection_sampler._gather_draft_sampled_kernel": (
        rejection.gather_draft_sampled
    ),
    "gpu.spec_decode.target_dependent_ar.speculator._prepare_prefill_inputs_kernel": (
        drafting.prepare_prefill_inputs
    ),
    "gpu.spec_decode.target_dependent_ar.speculator._prepare_decode_inputs_kernel": (
        drafting.prepare_decode_inputs
    ),
    "gpu.spec_decode.target_dependent_ar.speculator._update_draft_inputs_kernel": (
        drafting.update_draft_inputs
    ),
    "gpu.spec_decode.standalone_ar.speculator._prepare_prefill_inputs_kernel": (
        drafting.prepare_standalone_prefill_inputs
    ),
    "gpu.mm.rope._prepare_rope_positions_kernel": multimodal.prepare_rope_positions,
}
KERNELS = {_WORKER + name: function for name, function in _KERNELS.items()}

_METHODS: dict[str, Callable[..., Any]] = {
    "gpu.buffer_utils.StagedWriteTensor.apply_write": staged_writes.apply_write,
    "gpu.buffer_utils.UvaBackedTensor.copy_to_uva": staged_writes.copy_to_device,
    "gpu.buffer_utils.FusedStagedWriter.apply": staged_writes.apply_all,
    "gpu.block_table.BlockTables.gather_block_tables": block_tables.gather_block_tables,
    "gpu.block_table.BlockTables.compute_slot_mappings": block_tables.compute_slot_mappings,
    "gpu.sample.sampler.Sampler._sample_random": sampling.sample_random,
    "gpu.sample.penalties.PenaltiesState.apply": penalties.apply,
    "gpu.sample.penalties.PenaltiesState.apply_staged_writes": penalties.apply_staged_writes,
    "gpu.sample.logit_bias.LogitBiasState.apply": logit_bias.apply,
    "gpu.sample.thinking_budget.ThinkingBudgetState.apply_staged_writes": (
        thinking_budget.apply_staged_writes
    ),
    "gpu.sample.thinking_budget.ThinkingBudgetState.apply": thinking_budget.apply,
    "gpu.structured_outputs.StructuredOutputsWorker.apply_grammar_bitmask": (
        grammar.apply_grammar_bitmask
    ),
    "gpu.spec_decode.rejection_sampler.RejectionSampler._verify": rejection.verify,
    "gpu.model_states.prompt_embeds.PromptEmbedsState.apply": multimodal.apply_prompt_embeds,
    "utils.KVBlockZeroer.__init__": kv_zeroing.initialize,
    "utils.KVBlockZeroer.zero_block_ids": kv_zeroing.zero_block_ids,
}
# Whoever imports a function by its name holds it under that name.
_HOLDERS_OF_TOP_K_TOP_P = (
    "vllm.v1.sample.ops.topk_topp_sampler",
    "vllm.v1.worker.gpu.sample.sampler",
    "vllm.v1.worker.gpu.sample.states",
    "vllm.v1.watermarking.gpu_sampler",
)
METHODS = {_WORKER + name: function for name, function in _METHODS.items()} | {
    f"{module}.apply_top_k_top_p": top_k_top_p.apply_top_k_top_p
    for module in _HOLDERS_OF_TOP_K_TOP_P
}


def replace_all() -> None:
    """Check every upstream signature, then replace. Raises RuntimeError on a difference."""
    for name in (*KERNELS, *METHODS):
        _check_signature(name)
    complete_placeholder()
    register_kernels(KERNELS)
    for name, function in METHODS.items():
        owner, attribute = _owner_of(name)
        setattr(owner, attribute, function)


def _owner_of(name: str) -> tuple[Any, str]:
    """The module or class that holds `name`, and the name in it."""
    path, attribute = name.rsplit(".", 1)
    module, _, last = path.rpartition(".")
    if last[:1].isupper():
        return getattr(importlib.import_module(module), last), attribute
    return importlib.import_module(path), attribute


def _check_signature(name: str) -> None:
    try:
        owner, attribute = _owner_of(name)
        target = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(_refusal(name, f"it cannot be found ({error})")) from error
    # A Triton kernel knows its argument names; a method or a kernel without Triton is a function.
    found = getattr(target, "arg_names", None) or inspect.signature(target).parameters
    if tuple(found) != REPLACED[name]:
        difference = (
            f"its arguments differ.\n  expected: {', '.join(REPLACED[name])}\n"
            f"  found:    {', '.join(found)}"
        )
        raise RuntimeError(_refusal(name, difference))


def _refusal(name: str, reason: str) -> str:
    return (
        f"vllm-hpu replaces {name} of vLLM, but in the installed vLLM {vllm.__version__} {reason}\n"
        f"This vllm-hpu works with vLLM {SUPPORTED_VLLM}: install such a vLLM, or the vllm-hpu "
        "made for yours."
    )

"""Speculative decoding: which methods run, and what the drafter must be able to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_hpu.errors import ConfigurationError, UnsupportedFeatureError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

SUPPORTED_METHODS = ("ngram", "draft_model", "eagle", "eagle3", "mtp")


def supported_method(config: VllmConfig) -> None:
    """Only proposers that run on Gaudi."""
    speculative = config.speculative_config
    if speculative is not None and speculative.method not in SUPPORTED_METHODS:
        raise UnsupportedFeatureError(
            f"Speculative method {speculative.method!r} is not supported on Gaudi. "
            f"Use one of: {', '.join(SUPPORTED_METHODS)}."
        )


def one_module_of_mtp(config: VllmConfig) -> None:
    """vLLM drafts with several modules by kernels of their own, which have no Gaudi form."""
    speculative = config.speculative_config
    if speculative is not None and speculative.use_multi_module_mtp():
        raise UnsupportedFeatureError(
            f"Drafting with the several MTP modules of {speculative.model} is not supported on "
            "Gaudi by this version of vllm-hpu",
            "Its kernels have no Gaudi form",
            "Use another method, or none",
        )


def drafter_reaches_as_far(config: VllmConfig) -> None:
    """vLLM's second model runner drafts at every position of a request, behind the drafter's too.

    The drafter's table of positions would be read behind its end. A drafter of the EAGLE kind has
    the model's own positions (vLLM enlarges its table) unless it is given fewer by name.
    """
    speculative, model = config.speculative_config, config.model_config
    if speculative is None or model is None or speculative.draft_model_config is None:
        return
    reach = speculative.max_model_len
    if speculative.method == "draft_model":
        reach = speculative.draft_model_config.max_model_len
    if reach is not None and reach < model.max_model_len:
        raise ConfigurationError(
            f"The draft model {speculative.model} has {reach} positions and --max-model-len is "
            f"{model.max_model_len}",
            "It would draft behind its end",
            f"Use --max-model-len {reach}, or a drafter with more positions",
        )


def drafter_as_wide(config: VllmConfig) -> None:
    """A drafter's layers are spread over all ranks, whatever its own size says."""
    speculative = config.speculative_config
    if speculative is None or speculative.draft_tensor_parallel_size is None:
        return
    ranks = config.parallel_config.tensor_parallel_size
    if speculative.draft_tensor_parallel_size != ranks:
        raise UnsupportedFeatureError(
            f"draft_tensor_parallel_size {speculative.draft_tensor_parallel_size} beside "
            f"--tensor-parallel-size {ranks} is not supported on Gaudi",
            "A drafter runs on the cards of its model",
            "Leave draft_tensor_parallel_size out of --speculative-config",
        )


def drafter_with_the_same_cache(config: VllmConfig) -> None:
    """The drafter's KV cache has the model's type, as the model's own has."""
    speculative = config.speculative_config
    dtype = None if speculative is None else speculative.kv_cache_dtype
    if dtype not in (None, "auto"):
        raise UnsupportedFeatureError(
            f"kv_cache_dtype {dtype} in --speculative-config is not supported on Gaudi",
            "The KV cache has the model's type",
            "Leave it out",
        )


def drafter_has_tokens(config: VllmConfig) -> None:
    """A draft model takes one token more per row than the model, out of the same budget.

    With no more tokens than rows nothing is left for the model, and vLLM's own profile of the
    largest step is empty.
    """
    speculative, scheduler = config.speculative_config, config.scheduler_config
    if speculative is None or speculative.method != "draft_model":
        return
    if scheduler.max_num_batched_tokens <= scheduler.max_num_seqs:
        raise ConfigurationError(
            f"--max-num-batched-tokens {scheduler.max_num_batched_tokens} and --max-num-seqs "
            f"{scheduler.max_num_seqs} leave no tokens for a draft model",
            "It takes one token more per sequence",
            f"Use --max-num-batched-tokens {2 * scheduler.max_num_seqs} or more",
        )

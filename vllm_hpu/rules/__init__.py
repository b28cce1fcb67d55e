"""What the plugin changes or refuses in vLLM's configuration: a list of small named rules.

A rule takes the ``VllmConfig`` and either adjusts it or raises; its docstring says why. Flags that
need no more than a sentence are in the table of ``vllm_hpu.flags`` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vllm_hpu.rules import engine, flags, limits, models, speculation

if TYPE_CHECKING:
    from vllm.config import VllmConfig

Rule = Callable[["VllmConfig"], None]

DEFAULTS: tuple[Rule, ...] = (
    flags.table_of_flags,
    engine.no_upstream_compilation,
    engine.all_custom_ops,
    engine.default_block_size,
)
RULES: tuple[Rule, ...] = (
    engine.report_settings,
    engine.no_upstream_compilation,
    limits.legal_block_size,
    engine.plain_late_interaction,
    engine.our_worker,
    engine.spawned_workers,
    engine.lazy_collectives,
    limits.supported_kv_cache_dtype,
    flags.second_model_runner,
    flags.supported_attention_backend,
    flags.supported_load_format,
    flags.supported_profiler,
    limits.enough_cards,
    speculation.supported_method,
    speculation.one_module_of_mtp,
    speculation.drafter_reaches_as_far,
    speculation.drafter_as_wide,
    speculation.drafter_has_tokens,
    speculation.drafter_with_the_same_cache,
    models.decoder_only,
    models.attention_only,
    models.causal_images,
    models.pooled_in_one_step,
    limits.legal_shape_plan,
    engine.published_metrics,
    engine.recorded_traffic,
)


def apply_defaults(config: VllmConfig) -> None:
    """Before vLLM derives further settings from the configuration."""
    for rule in DEFAULTS:
        rule(config)


def apply_rules(config: VllmConfig) -> None:
    """After vLLM has derived them."""
    for rule in RULES:
        rule(config)

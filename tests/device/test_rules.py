"""Each rule that refuses a configuration does so, by name, on vLLM's own configuration classes."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from transformers import Gemma3Config, Gemma4Config, PaliGemmaConfig
from vllm import envs
from vllm.config import PoolerConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from models.tiny import build
from vllm_hpu import rules
from vllm_hpu.errors import ConfigurationError

LIMITS = {"max_model_len": 256, "max_num_seqs": 4, "max_num_batched_tokens": 256}
DRAFT = {"method": "draft_model", "num_speculative_tokens": 2}


@pytest.fixture(scope="module")
def configured(model_directory):
    """The engine's configuration; nothing is started."""

    def config(name: str = "llama", **flags: Any) -> VllmConfig:
        model = name if "/" in name else str(build(name, model_directory))
        return EngineArgs(model=model, **LIMITS | flags).create_engine_config()

    return config


@pytest.fixture(scope="module")
def changed(model_directory, tmp_path_factory):
    """The tiny Llama with another config.json; its weights are not looked at."""

    def change(**entries: Any) -> str:
        folder = tmp_path_factory.mktemp("models") / "changed"
        shutil.copytree(build("llama", model_directory), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))
        return str(folder)

    return change


def refused(configured: Any, *says: str, **flags: Any) -> None:
    with pytest.raises(ValueError, match=r"not supported on Gaudi|does not work") as caught:
        configured(**flags)
    for words in says:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "cache"),
    [
        ("bfloat16", "float16"),
        ("float16", "bfloat16"),
        ("float32", "bfloat16"),
        ("bfloat16", "fp8"),
    ],
)
def test_a_cache_of_another_type(dtype, cache, configured):
    refused(
        configured,
        f"--kv-cache-dtype {cache} is not supported",
        f"torch.{dtype}",
        "--kv-cache-dtype auto",
        dtype=dtype,
        kv_cache_dtype=cache,
    )


def test_a_cache_of_the_models_type(configured):
    configured(dtype="bfloat16", kv_cache_dtype="bfloat16")


def test_a_block_of_odd_size(configured):
    refused(configured, "--block-size 20", "multiple of 16", block_size=20)


@pytest.mark.parametrize("backend", ["FLASH_ATTN", "TRITON_ATTN"])
def test_an_attention_backend_of_another_device(backend, configured):
    says = (f"--attention-backend {backend}", "HPU_ATTN", "Remove the flag")
    refused(configured, *says, attention_backend=backend)


@pytest.mark.parametrize("chosen", ["fastsafetensors", "instanttensor", "ipc_cache"])
def test_a_loader_of_another_device(chosen, configured):
    refused(configured, f"--load-format {chosen}", "--load-format auto", load_format=chosen)


@pytest.mark.parametrize("profiler", ["cuda", "proton"])
def test_a_profiler_of_another_device(profiler, configured):
    folder = {"proton_profiler_dir": "traces"} if profiler == "proton" else {}
    with pytest.raises(ValueError, match=r"[Pp]ro(ton|filer)"):
        configured(profiler_config={"profiler": profiler} | folder)


def test_float64(configured):
    with pytest.raises(ValueError, match="float64"):
        configured(dtype="float64")


@pytest.fixture
def asked(monkeypatch):
    """vLLM's choice of runner by an environment variable, read anew."""

    def ask(value: str | None) -> None:
        if value is None:
            monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
        else:
            monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", value)
        if hasattr(envs.__getattr__, "cache_clear"):
            envs.__getattr__.cache_clear()

    yield ask
    monkeypatch.undo()
    if hasattr(envs.__getattr__, "cache_clear"):
        envs.__getattr__.cache_clear()


def test_the_first_model_runner_by_variable(configured, asked):
    asked("0")
    refused(configured, "VLLM_USE_V2_MODEL_RUNNER=0", "Unset VLLM_USE_V2_MODEL_RUNNER")


# What vLLM gives to its first runner, each with a configuration that asks for it.
FALLS_BACK = {
    "speculative method": {"method": "suffix", "num_speculative_tokens": 2},
    "heterogeneous-vocabulary draft models": DRAFT | {"use_heterogeneous_vocab": True},
    "parallel drafting": DRAFT | {"parallel_drafting": True},
}
# These need more than one rank of a kind that the table of flags refuses before.
REFUSED_BEFORE = {
    "pipeline parallelism with external_launcher": "pipeline_parallel_size",
    "_get_dbo_unsupported_features": "enable_dbo",
}


def test_everything_that_falls_back_is_known():
    """Walks vLLM's own list."""
    import ast
    import inspect
    import textwrap

    from vllm_hpu.flags import FLAGS, Verdict

    source = inspect.getsource(VllmConfig._get_v2_model_runner_unsupported_features)
    calls = [
        node for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Call)
    ]
    added = [
        ast.unparse(call.args[0])
        for call in calls
        if ast.unparse(call.func) in ("unsupported.append", "unsupported.extend")
    ]
    assert len(added) == 5
    for reason in added:
        known = [name for name in (*FALLS_BACK, *REFUSED_BEFORE) if name in reason]
        assert len(known) == 1, reason
    assert all(FLAGS[flag].verdict is Verdict.REFUSED for flag in REFUSED_BEFORE.values())


@pytest.mark.parametrize("reason", ["heterogeneous-vocabulary draft models", "parallel drafting"])
def test_what_falls_back_is_refused(reason, configured, asked, model_directory):
    asked(None)
    speculative = FALLS_BACK[reason] | {"model": str(build("llama_draft", model_directory))}
    refused(configured, reason, "docs/flags.md", speculative_config=speculative)


def test_a_method_that_falls_back_is_refused(configured, asked):
    """``suffix`` needs a package to be configured at all; the rule is asked what it says then."""
    asked(None)
    config = configured(speculative_config={"method": "ngram", "num_speculative_tokens": 2})
    config.speculative_config.method = "suffix"
    with pytest.raises(ValueError, match="'suffix' is not supported on Gaudi"):
        rules.flags.second_model_runner(config)
    with pytest.raises(ValueError, match="Use one of: ngram, draft_model"):
        rules.speculation.supported_method(config)


def test_a_method_without_a_gaudi_form(configured):
    ngram = {"method": "ngram_gpu", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
    refused(configured, "'ngram_gpu'", "ngram", speculative_config=ngram)


def test_several_modules_of_mtp(configured, monkeypatch):
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
    config = configured(speculative_config=ngram)
    config.speculative_config.method = "mtp"
    config.speculative_config.draft_model_config.hf_config.num_nextn_predict_layers = 2
    with pytest.raises(ValueError, match="several MTP modules"):
        rules.speculation.one_module_of_mtp(config)


def test_a_drafter_that_ends_early(configured, changed):
    short = changed(max_position_embeddings=128)
    with pytest.raises(ValueError, match="128 positions and --max-model-len is 256") as caught:
        configured(speculative_config=DRAFT | {"model": short})
    assert "Use --max-model-len 128" in str(caught.value)
    configured(speculative_config=DRAFT | {"model": short}, max_model_len=128)


def test_a_drafter_that_is_told_to_end_early(configured, model_directory):
    eagle = {"method": "eagle", "num_speculative_tokens": 2, "max_model_len": 128}
    eagle["model"] = str(build("llama_eagle", model_directory))
    with pytest.raises(ValueError, match="128 positions and --max-model-len is 256"):
        configured(speculative_config=eagle)


def test_a_drafter_of_another_vocabulary(configured, changed):
    with pytest.raises(ValueError, match="same vocabulary size"):
        configured(speculative_config=DRAFT | {"model": changed(vocab_size=64)})


def test_a_drafter_on_fewer_cards(configured, model_directory):
    draft = DRAFT | {"model": str(build("llama_draft", model_directory))}
    config = configured(speculative_config=draft)
    config.parallel_config.tensor_parallel_size = 2
    with pytest.raises(ValueError, match="draft_tensor_parallel_size 1 beside"):
        rules.speculation.drafter_as_wide(config)


def test_a_drafter_without_tokens(configured, model_directory):
    draft = DRAFT | {"model": str(build("llama_draft", model_directory))}
    equal = {"max_num_seqs": 8, "max_num_batched_tokens": 8}
    with pytest.raises(ValueError, match="--max-num-batched-tokens 16 or more"):
        configured(speculative_config=draft, **equal)
    configured(**equal)


def test_a_drafter_with_another_cache(configured, model_directory):
    draft = DRAFT | {"model": str(build("llama_draft", model_directory)), "kv_cache_dtype": "fp8"}
    refused(configured, "kv_cache_dtype fp8 in --speculative-config", speculative_config=draft)


def test_images_that_are_seen_both_ways(configured, model_directory, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(build("llama", model_directory), model)
    config = PaliGemmaConfig()
    config.architectures, config.dtype = ["PaliGemmaForConditionalGeneration"], "bfloat16"
    config.save_pretrained(model)
    says = ("PaliGemmaForConditionalGeneration", "both ways", "--language-model-only")
    refused(configured, *says, name=str(model), max_num_batched_tokens=4096)
    configured(name=str(model), language_model_only=True)


def gemma4(attention: str | None) -> Gemma4Config:
    config = Gemma4Config()
    config.text_config.use_bidirectional_attention = attention
    return config


@pytest.mark.parametrize(
    ("images", "both_ways"),
    [(Gemma3Config(), True), (gemma4("vision"), True), (gemma4(None), False)],
    ids=["gemma3", "gemma4", "causal gemma4"],
)
def test_images_of_real_configuration_classes(images, both_ways, configured):
    """Their models import a package that is not here; vLLM's reading of their classes does not."""
    from vllm.transformers_utils.model_arch_config_convertor import (
        MODEL_ARCH_CONFIG_CONVERTORS,
        ModelArchConfigConvertorBase,
    )

    reading = MODEL_ARCH_CONFIG_CONVERTORS.get(images.model_type, ModelArchConfigConvertorBase)
    found = reading(images, images.text_config).is_mm_prefix_lm()
    assert found == both_ways
    config = configured()
    vars(config.model_config)["is_mm_prefix_lm"] = found  # where vLLM remembers it
    if not both_ways:
        rules.models.causal_images(config)
        return
    with pytest.raises(ValueError, match="attend to each other both ways"):
        rules.models.causal_images(config)


def test_a_model_with_cross_attention(configured):
    config = configured()
    vars(config.model_config)["is_encoder_decoder"] = True  # where vLLM remembers it
    with pytest.raises(ValueError, match="cross attention is not supported"):
        rules.models.decoder_only(config)


@pytest.mark.parametrize("kind", ["is_hybrid", "is_attention_free"])
def test_a_model_with_state_space_layers(kind, configured, monkeypatch):
    config = configured()
    monkeypatch.setattr(type(config.model_config), kind, True)
    with pytest.raises(ValueError, match="state-space"):
        rules.models.attention_only(config)


def test_more_ranks_than_cards(configured):
    config = configured()
    config.parallel_config.tensor_parallel_size = config.parallel_config.world_size = 64
    with pytest.raises(ConfigurationError, match="64 cards are needed on this host"):
        rules.limits.enough_cards(config)


def test_late_interaction_is_plain(configured):
    """vLLM's fused form is a Triton kernel."""
    config = configured("bert_score")
    assert not config.model_config.pooler_config.enable_flash_late_interaction


def test_a_layer_with_chunked_local_attention(configured):
    import torch
    from vllm.v1.kv_cache_interface import ChunkedLocalAttentionSpec

    from vllm_hpu.attention.metadata import HpuAttentionMetadataBuilder

    spec = ChunkedLocalAttentionSpec(
        block_size=16, num_kv_heads=2, head_size=16, dtype=torch.float32, attention_chunk_size=64
    )
    with pytest.raises(ValueError, match="chunked local attention"):
        HpuAttentionMetadataBuilder(spec, ["layer"], configured(), torch.device("hpu"))


@pytest.mark.parametrize("flag", ["enable_chunked_prefill", "enable_prefix_caching"])
def test_a_mean_over_a_prompt_in_several_steps(flag, configured):
    pooled = {"runner": "pooling", "convert": "embed"}
    mean = pooled | {"pooler_config": PoolerConfig(seq_pooling_type="MEAN")}
    refused(configured, "--" + flag.replace("_", "-"), "in one step", **mean, **{flag: True})
    configured(**mean)
    configured(**pooled, **{flag: True})  # the last token's comes in the last step

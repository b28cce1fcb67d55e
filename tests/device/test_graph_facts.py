"""Which engines share what warm-up has learned: those with the same graphs, and no others."""

import json
import shutil
from typing import Any

import pytest

from models.tiny import build
from vllm_hpu.engine_plan import limits_of
from vllm_hpu.graphs.mode import Mode
from vllm_hpu.warmup.fingerprint import graph_facts
from vllm_hpu.warmup.manifest import fingerprint

BASE: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 128,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 64,
}


@pytest.fixture(scope="module")
def models(model_directory, tmp_path_factory):
    """Folders that vLLM takes for models: the tiny Llama, a copy, and drafts that differ."""
    folder = tmp_path_factory.mktemp("facts")
    llama = build("llama", model_directory)
    shutil.copytree(llama, folder / "copy")
    for layers in (1, 3):
        draft = folder / f"draft {layers}"
        shutil.copytree(llama, draft)
        config = json.loads((draft / "config.json").read_text())
        (draft / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    shutil.copytree(folder / "draft 1", folder / "draft copy")
    return {"llama": llama} | {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def named(models):
    """The fingerprint of an engine with these arguments."""
    from vllm.engine.arg_utils import EngineArgs

    def name(model: str = "llama", mode: Mode = Mode.GRAPHS, blocks: int = 64, **arguments) -> str:
        if "draft" in arguments:
            arguments["speculative_config"] = {
                "method": "draft_model",
                "model": str(models[arguments.pop("draft")]),
                "num_speculative_tokens": 2,
            } | arguments.pop("speculation", {})
        found = EngineArgs(model=str(models[model]), **BASE | arguments)
        config = found.create_engine_config()
        return fingerprint(graph_facts(config, limits_of(config), mode, blocks))

    return name


NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
OTHERS: dict[str, dict[str, Any]] = {
    "mode": {"mode": Mode.COMPILE},
    "blocks of the cache": {"blocks": 65},
    "block size": {"block_size": 16},
    "rows": {"max_num_seqs": 5},
    "tokens": {"max_num_batched_tokens": 65},
    "length": {"max_model_len": 127},
    "type": {"dtype": "bfloat16"},
    "sizes": {"model": "draft 1"},
    "overridden sizes": {"hf_overrides": {"rope_theta": 1234.5}},
    "task": {"runner": "pooling", "convert": "embed"},
    "operators": {"compilation_config": {"custom_ops": ["none"]}},
    "adapters": {"enable_lora": True},
    "their rank": {"enable_lora": True, "max_lora_rank": 8},
    "their number": {"enable_lora": True, "max_loras": 2},
    "their modules": {"enable_lora": True, "lora_target_modules": ["q_proj"]},
    "ranks": {"tensor_parallel_size": 2},
    "ngram": {"speculative_config": NGRAM},
    "more drafts": {"speculative_config": NGRAM | {"num_speculative_tokens": 3}},
    "longer matches": {"speculative_config": NGRAM | {"prompt_lookup_max": 4}},
    "draft model": {"draft": "draft 1"},
    "other draft model": {"draft": "draft 3"},
    "its drafts": {"draft": "draft 1", "speculation": {"draft_sample_method": "probabilistic"}},
}


def test_other_engines_have_other_names(named):
    seen = {named(): "the usual one"}
    for what, changes in OTHERS.items():
        name = named(**changes)
        assert name not in seen, f"{what} and {seen[name]} share a name"
        seen[name] = what


def test_where_a_model_lies_changes_nothing(named):
    assert named("copy") == named("llama")
    assert named(draft="draft copy") == named(draft="draft 1")


def test_neither_do_budgets_and_names(named):
    usual = named()
    assert named(served_model_name="other") == usual
    assert named(seed=5) == usual
    assert named(enable_prefix_caching=False) == usual

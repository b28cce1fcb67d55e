"""A server with adapters, grammars and speculation compiles nothing under a long mixed load."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from models.tiny_llama_parts import save_lora
from tests.conftest import ROOT
from tests.serve.load import Tally, run_load
from tests.serve.server import serve
from tests.serve.test_metrics import Scrape, complete, device_compilations, wait_for

DEMO = ROOT / "models" / "demo"
LONGEST = 512
FLAGS = (
    "--served-model-name=demo",
    f"--max-model-len={LONGEST}",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=128",
    "--kv-cache-memory-bytes=67108864",
)
EVERYTHING = (
    "--enable-lora",
    "--max-lora-rank=8",
    '--speculative-config={"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}',
)
ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "1"}
LAZY = {"compile": "0", "graphs": "1"}
# The long run of `make test-slow`; a number of seconds to try something shorter.
LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "600"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter for the demo model."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("load") / "adapter"
    folder.mkdir()
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    save_lora("llama_lora_a", model, folder)
    return folder


@dataclass
class Loaded:
    """A server during and after its load: compilations as the device counts them."""

    url: str
    before_load: int
    after_load: int
    tally: Tally


def load(mode: str, adapter: Path, log: Path, seconds: float, rate: float) -> Iterator[Loaded]:
    flags = (*FLAGS, *EVERYTHING, f"--lora-modules=adapter={adapter}")
    environment = ENVIRONMENT | {"PT_HPU_LAZY_MODE": LAZY[mode]}
    with serve(str(DEMO), *flags, log=log, **environment) as url:
        complete(url, [30, 31, 32], 4)
        wait_for(lambda: Scrape(url)("vllm:hpu_warmup_finished") == 1, 500)
        before = device_compilations(url)
        tally = run_load(url, ("demo", "adapter"), seconds, LONGEST, 1, rate)
        assert not tally.errors, "\n".join(tally.errors)
        yield Loaded(url, before, device_compilations(url), tally)


def check(loaded: Loaded, fewest: float) -> None:
    assert loaded.tally.outcomes["answered"] > fewest
    assert loaded.tally.outcomes["cancelled"] > 0
    assert loaded.tally.features["structured_outputs"] > 0
    assert loaded.tally.features["model adapter"] > 0
    scrape = Scrape(loaded.url)
    assert scrape("vllm:spec_decode_num_draft_tokens_total") > 0
    assert loaded.after_load == loaded.before_load
    assert scrape("vllm:hpu_compilations_total", phase="serving") == 0
    assert scrape("vllm:hpu_steps_total", graph="outside_plan") == 0
    assert scrape("vllm:hpu_host_fallbacks_total") == 0


@pytest.mark.slow
@pytest.mark.timeout(LOAD_SECONDS + 900)
@pytest.mark.parametrize("mode", LAZY)
def test_a_long_load_compiles_nothing(mode: str, adapter: Path, tmp_path: Path) -> None:
    for loaded in load(mode, adapter, tmp_path / "log", LOAD_SECONDS, 8.0):
        print(json.dumps({"mode": mode, **vars(loaded.tally)}))
        check(loaded, LOAD_SECONDS)

"""What cannot work is refused at start: each error names what, why and what to do.

Here are those that need an engine's start. What is refused on the configuration alone is tested
without one, in ``tests/device/test_flags.py`` and ``tests/device/test_rules.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engine.jobs import Job, Pass, run_jobs

Tiny = Callable[[str], Path]
Runs = dict[str, dict[str, Any]]


@dataclass
class Refusal:
    """Engine arguments, and what the error must say."""

    says: tuple[str, ...]
    engine: dict[str, Any] = field(default_factory=dict)
    model: str = "llama"


PLUGIN = "not supported on Gaudi by this version of vllm-hpu"
REFUSED = {
    "unknown path": Refusal(("/no/such/model",), model="/no/such/model"),
    "float64": Refusal(("dtype", "float64", "bfloat16"), {"dtype": "float64"}),
    "data parallel": Refusal(("data_parallel_size=2", "not supported"), {"data_parallel_size": 2}),
    "sleep mode": Refusal(("Sleep mode is not supported",), {"enable_sleep_mode": True}),
    "quantised checkpoint": Refusal(
        ("fp8 quantization", PLUGIN, "unquantised checkpoint"), model="quantised"
    ),
    "long model": Refusal(("max_model_len (100000)", "1024"), {"max_model_len": 100_000}),
    "cache above the card": Refusal(
        ("64 GiB", "--kv-cache-memory-bytes"), {"kv_cache_memory_bytes": 64 << 30}
    ),
    "watermark": Refusal(
        ("--watermark-config", PLUGIN, "Remove the flag"), {"watermark_config": {"key": 42}}
    ),
    "LoRA on experts": Refusal(
        ("--enable-lora", "mixture-of-experts", "merged"), {"enable_lora": True}, model="mixtral"
    ),
}
# Variables are read once per process, so each of these has one of its own.
BUCKETS = {
    "VLLM_BUCKETING_STRATEGY": "lin",
    "VLLM_DECODE_BS_BUCKET_MIN": "8",
    "VLLM_DECODE_BS_BUCKET_MAX": "4",
}


@pytest.fixture(scope="module")
def quantised(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, claiming to be quantised."""
    folder = tmp_path_factory.mktemp("models") / "quantised"
    shutil.copytree(tiny("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def runs(tiny: Tiny, quantised: Path) -> Runs:
    def path(model: str) -> str:
        if model == "quantised":
            return str(quantised)
        return model if model.startswith("/") else str(tiny(model))

    jobs = [Job(name, path(one.model), [], engine=one.engine) for name, one in REFUSED.items()]
    greedy = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}
    short = [[20, 21, 22]]
    jobs.append(
        Job(
            "requests",
            str(tiny("llama")),
            [
                Pass(short, greedy),
                Pass([[20] * 2000], greedy, method="refused"),
                Pass(short, greedy | {"temperature": float("nan")}, method="refused"),
                Pass(short, greedy | {"structured_outputs": {"regex": "(["}}, method="refused"),
                Pass([], method="sleep"),
                Pass(short, greedy),
            ],
            # As many tokens as rows in a step: no row but the user's is counted.
            engine={"max_num_seqs": 8, "max_num_batched_tokens": 8},
        )
    )
    return run_jobs("eager", jobs)


def last_error(runs: Runs, name: str) -> str:
    """The last exception of a failed job, without its traceback."""
    assert "error" in runs[name], f"{name} was not refused"
    error: str = runs[name]["error"]
    assert "AssertionError" not in error
    return error[error.rindex("\n  File") :]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_start(name: str, runs: Runs) -> None:
    error = last_error(runs, name)
    for words in REFUSED[name].says:
        assert words in error


def test_bad_requests_leave_the_engine_alive(runs: Runs) -> None:
    assert "error" not in runs["requests"], runs["requests"].get("error")
    before, too_long, nan, regex, asleep, after = runs["requests"]["passes"]
    assert "768" in too_long[0]["refused"]
    assert "temperature" in nan[0]["refused"]
    assert "regex" in regex[0]["refused"].lower()
    assert "sleep is not supported on Gaudi" in asleep[0]["refused"]
    assert len(after[0]["tokens"]) == 4
    assert after == before


@pytest.mark.parametrize(
    ("environment", "engine", "says"),
    [
        pytest.param(
            BUCKETS,
            {},
            ("VLLM_DECODE_BS_BUCKET_MIN=8 is above VLLM_DECODE_BS_BUCKET_MAX=4", "unset both"),
            id="buckets",
        ),
        pytest.param(
            {"HABANA_VISIBLE_MODULES": "0"},
            {"tensor_parallel_size": 2},
            ("2 cards are needed", "1 is visible", "HABANA_VISIBLE_MODULES"),
            id="cards",
        ),
    ],
)
def test_bad_environment(
    environment: dict[str, str], engine: dict[str, Any], says: tuple[str, ...], tiny: Tiny
) -> None:
    job = Job("start", str(tiny("llama")), [], engine=engine, env=environment)
    error = last_error(run_jobs("eager", [job]), "start")
    for words in says:
        assert words in error

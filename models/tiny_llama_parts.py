"""What goes with the tiny Llama: LoRA adapters, a draft model, an EAGLE head.

The draft model and the EAGLE head guess right often enough, and wrong often enough, that both the
acceptance and the rejection of speculated tokens are exercised.
"""

import json
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from models.tiny_weights import perturb

#: Relative noise between the draft model's weights and the tiny Llama's.
DRAFT_NOISE = 0.08

_LORA_RANK = 8
_LORA_TARGETS = {
    "llama_lora_a": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "llama_lora_b": ["q_proj", "v_proj", "down_proj"],
    "llama_lora_head": ["q_proj", "lm_head"],
}
LORA_NAMES = tuple(_LORA_TARGETS)


def save_lora(name: str, llama: LlamaForCausalLM, out_dir: Path) -> None:
    """Write an adapter in the format of PEFT; both its matrices are random, none is zero."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    targets = _LORA_TARGETS[name]
    tensors = {}
    for path, module in llama.named_modules():
        if path.rsplit(".", 1)[-1] not in targets:
            continue
        rows, columns = module.weight.shape
        prefix = f"base_model.model.{path}"
        a = 0.2 * torch.randn(_LORA_RANK, columns, generator=generator)
        b = 0.2 * torch.randn(rows, _LORA_RANK, generator=generator)
        tensors[f"{prefix}.lora_A.weight"] = a.to(torch.bfloat16).float()
        tensors[f"{prefix}.lora_B.weight"] = b.to(torch.bfloat16).float()
    save_file(tensors, out_dir / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "llama",
        "r": _LORA_RANK,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    text = json.dumps(config, indent=2) + "\n"
    (out_dir / "adapter_config.json").write_text(text, encoding="utf-8")


def make_draft(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """Turn `llama` into the draft model: the same weights with some noise."""
    perturb(llama, DRAFT_NOISE, seed=1)
    return llama


@torch.no_grad()
def _observe(llama: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head sees and what it should say, from text that the model writes.

    Returns float32 inputs [positions, 2 * hidden] (embedding of a token, hidden state before it)
    and targets [positions, hidden] (hidden state after that token).
    """
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, llama.config.vocab_size, (48, 16), generator=generator)
    ids = llama.generate(ids, max_new_tokens=96, min_new_tokens=96, do_sample=False)
    hidden = llama.model(input_ids=ids).last_hidden_state
    embedded = llama.model.embed_tokens(ids[:, 1:])
    inputs = torch.cat([embedded, hidden[:, :-1]], dim=-1)
    return inputs[:, 16:].flatten(0, 1), hidden[:, 17:].flatten(0, 1)


def save_eagle(llama: LlamaForCausalLM, out_dir: Path) -> None:
    """Write an EAGLE head: one layer with weak random weights behind a fitted projection.

    The projection is the ridge regression of the model's next hidden state, so the head guesses
    some tokens right. Embedding and output matrix are shared with the tiny Llama.
    """
    inputs, targets = (x.double() for x in _observe(llama))
    gram = inputs.T @ inputs + 1e-2 * len(inputs) * torch.eye(inputs.shape[1]).double()
    projection = torch.linalg.solve(gram, inputs.T @ targets).T.float()
    tensors = {"fc.weight": projection}
    generator = torch.Generator().manual_seed(4)
    for path, parameter in llama.model.layers[0].named_parameters():
        if path.startswith("input_layernorm"):
            continue  # the first layer of a head has none
        name = f"layers.0.{path}"
        if parameter.dim() == 1:
            tensors[name] = torch.ones_like(parameter)
        else:
            tensors[name] = 0.03 * torch.randn(parameter.shape, generator=generator)
    tensors = {key: value.to(torch.bfloat16).float() for key, value in tensors.items()}
    save_file(tensors, out_dir / "model.safetensors", metadata={"format": "pt"})
    config = LlamaConfig(**{**llama.config.to_dict(), "num_hidden_layers": 1})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(out_dir)

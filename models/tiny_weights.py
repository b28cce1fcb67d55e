"""Random weights that make a tiny model worth comparing: reproducible, and without near-ties."""

import zlib

import torch
from torch import nn

#: Standard deviation of matrices. Large enough that a token's hidden state depends visibly on all
#: earlier ones: greedy decoding wanders instead of repeating one token. Small enough that attention
#: scores stay moderate, or bfloat16 rounding grows from layer to layer.
_MATRIX_STD = 0.12
_EMBEDDING_STD = 1.0
#: A decided router: the expert that falls out at a near-tie has little weight.
_ROUTER_STD = 1.5
#: Norm weights and biases differ from 1 and 0, or a kernel that forgets them would pass.
_VECTOR_STD = 0.1
#: The output matrix sets the scale of the logits, and with it the absolute error of a bfloat16 run.
_OUTPUT_STD = 0.04


def _noise(name: str, seed: int, like: torch.Tensor) -> torch.Tensor:
    """Standard normal float32 values that depend on name, shape and seed, not on the order."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.randn(like.shape, generator=generator)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter of `model` in place with seeded random values.

    The values are bfloat16 numbers held in float32, so that a float32 and a bfloat16 run of the
    same file have the same weights.
    """
    outputs = getattr(model, "get_output_embeddings", lambda: None)()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = _noise(name, seed, parameter)
            if outputs is not None and parameter is outputs.weight:
                values *= _OUTPUT_STD
            elif name.endswith("sinks"):
                pass  # of the order of an attention score
            elif "norm" in name.lower() and name.endswith("weight"):
                # a norm starts at 1, or at 0 where the model adds 1 itself (Gemma)
                values = parameter + _VECTOR_STD * values
                if "post_" in name and not parameter.any():
                    # Gemma's output matrix is its embedding: strong layers keep the model from
                    # repeating its input
                    values += 3
            elif name.endswith(("router.weight", "mlp.gate.weight")):
                values *= _ROUTER_STD
            elif "embed" in name:
                values *= _EMBEDDING_STD
            elif parameter.dim() >= 2 and not name.endswith("bias"):
                values *= _MATRIX_STD
            else:
                values *= _VECTOR_STD
            parameter.copy_(values.to(torch.bfloat16))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_((_VECTOR_STD * _noise(name, seed, buffer)).to(torch.bfloat16))


def make_scores_large(model: nn.Module, bias: float = 192.0) -> None:
    """Add the same large number to all products of a query with a key, by their biases alone.

    The elements of each head that rotate slowest hold ``bias`` and nothing else: two of them make
    products of ``2 * bias * bias``, 73,728 unless said. Softmax does not see it, but a product that
    is rounded to bfloat16 is a multiple of 512, and float16 ends at 65,504.
    """
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    with torch.no_grad():
        for name, layer in model.named_modules():
            kind = name.rpartition(".")[2]
            if kind not in heads:
                continue
            width = layer.bias.shape[0] // heads[kind]
            for element in (width // 2 - 1, width - 1):
                layer.weight.view(heads[kind], width, -1)[:, element] = 0
                layer.bias.view(heads[kind], width)[:, element] = bias


def perturb(model: nn.Module, amount: float, seed: int) -> None:
    """Add noise of `amount` times a parameter's own spread: a model that often agrees with it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = parameter.std() if parameter.numel() > 1 else 0.0
            noise = amount * spread * _noise(name, seed, parameter)
            parameter.copy_((parameter + noise).to(torch.bfloat16))

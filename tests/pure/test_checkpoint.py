"""Weights of a checkpoint are counted from its headers, whatever their types."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.conftest import ROOT
from vllm_hpu.memory.checkpoint import INDEX, checkpoint_bytes
from vllm_hpu.memory.plan import Ask
from vllm_hpu.memory.refusal import Prediction
from vllm_hpu.shapes.model import ModelShape

DEMO = ROOT / "models" / "demo"
GB = 10**9
LLAMA_70B = ModelShape(
    layers=80, hidden=8192, heads=64, kv_heads=8, head_size=128, intermediate=28672, vocab=128256
)


def save(file: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A file with these tensors' headers; its data is not there, since nobody reads it."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("width", [2, 4])
def test_the_demo_model(width: int) -> None:
    """As many bytes as the safetensors library finds parameters."""
    elements = 0
    for file in DEMO.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no dictionary
                elements += math.prod(tensors.get_slice(name).get_shape())
    assert checkpoint_bytes(DEMO, width) == width * elements > 0


def test_a_70b_model_in_fp8_is_half_as_large(tmp_path: Path) -> None:
    """What is quantised keeps its type, its scales too; embedding, head and norms do not."""
    wide = {
        "model.embed_tokens.weight": ("BF16", [128256, 8192]),
        "lm_head.weight": ("F32", [128256, 8192]),
    }
    narrow, scales = {}, {}
    for layer in range(80):
        at = f"model.layers.{layer}."
        wide[at + "input_layernorm.weight"] = ("BF16", [8192])
        for name, shape in (
            ("self_attn.q_proj", [8192, 8192]),
            ("self_attn.k_proj", [1024, 8192]),
            ("self_attn.v_proj", [1024, 8192]),
            ("self_attn.o_proj", [8192, 8192]),
            ("mlp.gate_proj", [28672, 8192]),
            ("mlp.up_proj", [28672, 8192]),
            ("mlp.down_proj", [8192, 28672]),
        ):
            narrow[f"{at}{name}.weight"] = ("F8_E4M3", shape)
            scales[f"{at}{name}.weight_scale"] = ("F32", [1])
    save(tmp_path / "model.safetensors", wide | narrow | scales)
    expected = 2 * (2 * 128256 * 8192 + 80 * 8192) + 80 * 7 * 4
    expected += sum(math.prod(shape) for _, shape in narrow.values())
    found = checkpoint_bytes(tmp_path, 2)
    assert found == expected
    assert 72 * GB < found < 73 * GB
    need = Prediction(Ask(4096, 8, 4096), 128, 1, LLAMA_70B, True, found).of(Ask(4096, 8, 4096))
    by_sizes = Prediction(Ask(4096, 8, 4096), 128, 1, LLAMA_70B, True).of(Ask(4096, 8, 4096))
    assert need is not None
    assert by_sizes is not None
    # It fits a card of 96 GB, where the sizes alone say twice as much.
    assert need.weights == found
    assert by_sizes.weights > 1.25 * 96 * GB


def test_packed_types(tmp_path: Path) -> None:
    tensors = {
        "a.qweight": ("I32", [64, 32]),
        "a.qzeros": ("U8", [64]),
        "a.scales": ("F16", [8, 32]),
        "a.blocks": ("F4", [3]),
        "a.mask": ("BOOL", [5]),
        "a.bias": ("F64", [32]),
    }
    save(tmp_path / "a.safetensors", tensors)
    assert checkpoint_bytes(tmp_path, 4) == 4 * 64 * 32 + 64 + 2 * 8 * 32 + 2 + 5 + 4 * 32


def test_matrices_are_spread_over_cards(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", {"a": ("BF16", [64, 32]), "b": ("BF16", [32])})
    assert checkpoint_bytes(tmp_path, 2, ranks=4) == 2 * (64 * 32 // 4 + 32)


def test_only_what_the_index_names_is_loaded(tmp_path: Path) -> None:
    for name in ("one", "two", "consolidated"):
        save(tmp_path / f"{name}.safetensors", {name: ("BF16", [10, 10])})
    assert checkpoint_bytes(tmp_path, 2) == 600
    index = {"weight_map": {"one": "one.safetensors", "two": "two.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert checkpoint_bytes(tmp_path, 2) == 400
    (tmp_path / "two.safetensors").unlink()
    assert checkpoint_bytes(tmp_path, 2) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 16,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
    ],
)
def test_what_is_no_checkpoint_is_not_counted(content: bytes, tmp_path: Path) -> None:
    assert checkpoint_bytes(tmp_path / "missing", 2) is None
    assert checkpoint_bytes(tmp_path, 2) is None
    (tmp_path / "a.safetensors").write_bytes(content)
    assert checkpoint_bytes(tmp_path, 2) is None

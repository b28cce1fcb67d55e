"""Compiled layers: one list of compiled code per shape, and a first layer like the others."""

from __future__ import annotations

from typing import Any

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from gaudi_emulator import counters
from torch import nn

from vllm_hpu.graphs.first_layer import starts_from_zero, with_residual
from vllm_hpu.graphs.per_shape import Keyed, running

from .conftest import emulated_only

pytestmark = [emulated_only, pytest.mark.usefixtures("compiling")]


def compiled(function: Any) -> Any:
    return torch.compile(function, backend="hpu_backend", dynamic=False, fullgraph=True)


def entries(function: Any) -> int:
    """Things compiled of a function's own code."""
    from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list
    from torch._dynamo.eval_frame import innermost_fn

    return len(_debug_get_cache_entry_list(innermost_fn(function).__code__))


def scaled(x: torch.Tensor, by: int = 3, *, more: int = 1) -> torch.Tensor:
    return x * by + more


def test_each_shape_has_code_of_its_own() -> None:
    made: list[Any] = []

    def compile_(function: Any) -> Any:
        made.append(compiled(function))
        return made[-1]

    run = Keyed(scaled, compile_)
    before = counters()
    for size in (2, 3, 5, 2, 3, 5):
        with running(size):
            x = torch.ones(size, device="hpu")
            assert run(x).tolist() == [4.0] * size
            assert run(x, 5, more=2).tolist() == [7.0] * size
    assert (counters() - before).total_compilations == 6
    assert [entries(one) for one in made] == [2, 2, 2]
    # Outside of a shape there is one more.
    run(torch.ones(7, device="hpu"))
    run(torch.ones(8, device="hpu"))
    assert [entries(one) for one in made] == [2, 2, 2, 2]


class Layer(nn.Module):
    """As the layers of vLLM's models begin; the norm stands for vLLM's."""

    def input_layernorm(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        if residual is None:
            return nn.functional.rms_norm(x, x.shape[-1:])
        total = x + residual
        return nn.functional.rms_norm(total, x.shape[-1:]), total

    def forward(self, positions: Any, hidden_states: Any, residual: Any) -> Any:
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        return hidden_states * 2, residual


class Doubles(Layer):
    """Something else than zeros is meant by None."""

    def forward(self, positions: Any, hidden_states: Any, residual: Any) -> Any:
        if residual is None:
            residual = 2 * hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        return hidden_states, residual


class AsksAgain(Layer):
    """None is asked for once more."""

    def forward(self, positions: Any, hidden_states: Any, residual: Any) -> Any:
        first = residual is None
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        return hidden_states + first, residual


def test_zeros_stand_for_no_residual_where_that_is_the_same() -> None:
    from vllm.model_executor.models.gemma3 import Gemma3DecoderLayer
    from vllm.model_executor.models.llama import LlamaDecoderLayer
    from vllm.model_executor.models.opt import OPTDecoderLayer

    kinds = (LlamaDecoderLayer, Gemma3DecoderLayer, Layer)
    assert all(starts_from_zero(kind) for kind in kinds)
    assert not any(starts_from_zero(kind) for kind in (OPTDecoderLayer, Doubles, AsksAgain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("named", [False, True])
def test_the_first_layer_has_the_graph_and_the_bits_of_the_others(
    dtype: torch.dtype, named: bool
) -> None:
    layer, x = Layer(), torch.randn(3, 8).to(dtype).to("hpu")
    run = with_residual(layer, compiled(layer.forward))
    before = counters()
    run(None, x, torch.ones_like(x))
    found = run(None, hidden_states=x, residual=None) if named else run(None, x, None)
    assert (counters() - before).total_compilations == 1
    for one, expected in zip(found, layer(None, x, None), strict=True):
        assert torch.equal(one, expected)


def test_a_layer_without_a_norm_is_left_alone():
    """EAGLE's first layer has the identity in its place, which takes no residual."""

    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input_layernorm = nn.Identity()

        def forward(self, hidden_states, residual):
            if residual is None:
                residual = hidden_states
                hidden_states = self.input_layernorm(hidden_states)
            else:
                hidden_states, residual = self.input_layernorm(hidden_states, residual)
            return hidden_states, residual

    assert starts_from_zero(Headless)
    layer = Headless()
    hidden = torch.ones(2, 3)
    result, residual = with_residual(layer, layer.forward)(hidden, None)
    assert result is hidden
    assert residual is hidden

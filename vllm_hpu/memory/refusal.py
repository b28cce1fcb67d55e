"""What to say when an engine does not fit: how much it needs, and the largest limits that fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vllm_hpu.engine_plan import engine_limits, shape_of
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.memory.checkpoint import checkpoint_bytes
from vllm_hpu.memory.plan import (
    Ask,
    Need,
    Room,
    corrected,
    share_out,
    ways_out,
)
from vllm_hpu.memory.predict import predict
from vllm_hpu.text import size

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_hpu.shapes.model import ModelShape

# Values of --load-format that take a folder's safetensors files.
_FROM_SAFETENSORS = ("auto", "hf", "safetensors")


@dataclass(frozen=True)
class Prediction:
    """Predicts the need of engines that differ from the one at hand in their limits.

    ask         the limits of the one at hand
    block_size  tokens of a KV block
    query_len   tokens a decode row may have
    shape       one rank's share of the model; None if its sizes have other names
    graphs      whether forwards are kept as graphs
    weights     bytes of one rank's weights as the checkpoint has them; None if it does not say
    """

    ask: Ask
    block_size: int
    query_len: int
    shape: ModelShape | None
    graphs: bool
    weights: int | None = None

    @classmethod
    def of_engine(cls, config: VllmConfig, graphs: bool) -> Self:
        scheduler = config.scheduler_config
        ask = Ask(
            config.model_config.max_model_len,
            scheduler.max_num_seqs,
            scheduler.max_num_batched_tokens,
        )
        query_len = 1 + config.num_speculative_tokens
        return cls(
            ask,
            config.cache_config.block_size,
            query_len,
            shape_of(config),
            graphs,
            _weights_of(config),
        )

    def of(self, ask: Ask, blocks: int | None = None) -> Need | None:
        """The need with steps planned for so many KV blocks (None: the fewest that serve).

        None for models whose sizes have other names.
        """
        if self.shape is None:
            return None
        limits = engine_limits(
            ask.max_num_seqs,
            ask.max_num_batched_tokens,
            ask.max_model_len,
            self.block_size,
            self.query_len,
            blocks or -(-ask.max_model_len // self.block_size) + 1,
        )
        need = predict(self.shape, limits, self.graphs)
        return need if self.weights is None else replace(need, weights=self.weights)


def _weights_of(config: VllmConfig) -> int | None:
    """Bytes of one rank's weights, from the checkpoint; None where something else is loaded."""
    model = config.model_config
    if config.load_config.load_format not in _FROM_SAFETENSORS or model.hf_overrides:
        return None
    dtype: Any = model.dtype  # vLLM has made a torch.dtype of the name by now
    return checkpoint_bytes(
        Path(model.model), dtype.itemsize, config.parallel_config.tensor_parallel_size
    )


def refusal(
    prediction: Prediction,
    room: Room,
    total: int,
    measured: Need | None = None,
    blocks: int | None = None,
) -> ConfigurationError:
    """The error for an engine that does not fit.

    Args:
        total: bytes of the card.
        measured: what it needs with steps planned for ``blocks`` KV blocks, if that is known.
    """
    expected = prediction.of(prediction.ask, blocks)

    def fits(ask: Ask) -> bool:
        need = prediction.of(ask)
        if need is None:
            return False
        if measured is not None and expected is not None:
            need = corrected(need, measured, expected)
        return share_out(need, room).fits

    why = f"{size(room.usable)} of {size(total)} may be used (--gpu-memory-utilization)"
    ways = []
    need = measured or expected
    if need is not None:
        kind = "measured" if measured is not None else "predicted"
        why = f"It needs at least {size(need.least)} ({kind}: {_parts(need)}); {why}"
        if room.kv_bytes is not None and room.usable >= need.least:
            ways.append(f"--kv-cache-memory-bytes {room.usable - need.fixed}")
    if expected is not None:
        ways += ways_out(prediction.ask, prediction.block_size, fits)
    do = "Use a smaller model, or more cards with --tensor-parallel-size"
    if ways:
        do = "Largest limits that fit: " + ", or ".join(ways)
    return ConfigurationError("The engine does not fit into the card's memory", why, do)


def _parts(need: Need) -> str:
    parts = {
        "weights": need.weights,
        "buffers": need.buffers,
        "largest step or sampling": need.transient,
        "first graphs": need.graphs,
        "smallest KV cache": need.kv_least * need.kv_block,
    }
    return ", ".join(f"{name} {size(number)}" for name, number in parts.items())

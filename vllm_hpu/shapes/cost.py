"""What a launch costs: operations, bytes moved, and the seconds a roofline predicts from both.

The same formulas price a planned key (padded sizes) and a step (its real sizes), so their
difference is what padding costs. They count what the plugin's own forward does: flat matrix
products over all tokens, decode attention block by block with one-hot products
(``attention/paged.py``), prefill attention of all tokens over this step's keys, cut in slices, or
over the prefill rows' blocks (``attention/prefill.py``). A multiplication with its addition counts
as two operations.
"""

from dataclasses import dataclass
from functools import lru_cache

from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.step import Step

# How attention/prefill.py cuts the queries of a step without cached context.
_LONGEST_WHOLE = 256
_SLICES = 8
_SLICE_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class Work:
    """Operations and bytes moved between the card's memory and its engines."""

    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: "Work") -> "Work":
        return Work(self.flops - other.flops, self.bytes - other.bytes)


@dataclass(frozen=True)
class Card:
    """Peak rates of a card, bfloat16.

    flops_per_s   operations of the matrix engines per second
    bytes_per_s   bytes of device memory per second
    memory_bytes  size of the device memory; the GB of Intel's pages are GiB: a Gaudi 2's bridge
                  reports 94.62 GiB (HabanaAI/vllm-fork issue 809), more than 96 x 10^9 bytes
    source        where the figures come from
    """

    name: str
    flops_per_s: float
    bytes_per_s: float
    memory_bytes: int
    source: str

    def seconds(self, work: Work) -> float:
        """A prediction, never a measurement: the roofline bound, reached by no real kernel.

        Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
        """
        return max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)


GAUDI2 = Card(
    "Gaudi 2",
    432e12,
    2.46e12,
    96 << 30,
    "Intel, Hot Chips 2024: 432 TFLOPS BF16, 96 GiB at 2.46 TB/s",
)
GAUDI3 = Card(
    "Gaudi 3",
    1835e12,
    3.67e12,
    128 << 30,
    "Intel, Hot Chips 2024: 1,835 TFLOPS BF16, 128 GiB at 3.67 TB/s",
)


# What a step takes beside its work, assumed: Intel measured 7.62 ms a token for Llama-2-7B on one
# Gaudi 2, where the roofline says 5.4 ms.
STEP_SECONDS = 1e-3


@dataclass(frozen=True)
class GraphPrice:
    """What compiling and keeping one graph takes; a prediction unless ``source`` says measured."""

    seconds: float
    bytes: int
    source: str


PREDICTED_GRAPH = GraphPrice(
    seconds=25.0,
    bytes=83 << 20,
    source=(
        "prediction: the middle of 13-40 s per prompt graph (HabanaAI/vllm-fork issue 201) and of "
        "20-30 GB for 300 graphs (vllm-project/vllm-gaudi issue 1736)"
    ),
)


class CostModel:
    """Prices launches of one model on one card.

    model        the model, or one rank's share of it (``ModelShape.shard``)
    block_size   tokens of a KV block
    query_len    tokens of a decode row: 1 + speculative tokens
    """

    def __init__(
        self, model: ModelShape, block_size: int, query_len: int = 1, card: Card = GAUDI3
    ) -> None:
        self.model = model
        self.block_size = block_size
        self.query_len = query_len
        self.card = card
        self._pair_flops = 4 * model.layers * model.heads * model.head_size

    def key(self, key: GraphKey) -> Work:
        """Work of the forward in the graph of ``key``, padding included."""
        linear, attention = self._parts(key)
        return linear + attention

    def step(self, step: Step) -> Work:
        """Work of the forward if a graph of exactly the step's sizes existed."""
        return self.key(exact(step))

    def seconds(self, key: GraphKey) -> float:
        """Predicted seconds of the forward in the graph of ``key``: see ``Card.seconds``.

        Matrix products and attention follow each other, so each of the two has its own bound.
        """
        return sum(self.card.seconds(part) for part in self._parts(key))

    def price(self, key: GraphKey) -> float:
        """Predicted seconds if computing and moving never overlap: what plans are compared by.

        Unlike in ``seconds``, every operation and every byte counts, so of two keys that the
        roofline finds equal the smaller one is cheaper. ``STEP_SECONDS`` are added, so that padding
        counts for little where a step takes longer to launch than to compute.
        """
        work = self.key(key)
        seconds = work.flops / self.card.flops_per_s + work.bytes / self.card.bytes_per_s
        return seconds + STEP_SECONDS

    def operations(self, key: GraphKey) -> float:
        """Operations of the forward in the graph of ``key``: what to compare plans by instead."""
        return self.key(key).flops

    def padding(self, key: GraphKey, step: Step) -> Work:
        """What launching ``step`` in the graph of ``key`` does in vain."""
        return self.key(key) - self.step(step)

    def logits(self, rows: int) -> Work:
        """Work of the product with the vocabulary for ``rows`` rows."""
        model = self.model
        weights = model.hidden * model.vocab
        return Work(2 * rows * weights, weights * model.parameter_bytes + rows * model.vocab * 4)

    def useful_flops(self, new_tokens: int, cached_tokens: int) -> float:
        """Operations of a row alone: its tokens, each attending to itself and what precedes it."""
        pairs = new_tokens * cached_tokens + new_tokens * (new_tokens + 1) / 2
        return self._linear_flops(new_tokens) + self._pair_flops * pairs

    def _parts(self, key: GraphKey) -> tuple[Work, Work]:
        attention = Work(0.0, 0.0)
        if key.decode_rows:
            attention += self._decode_attention(key.decode_rows, key.decode_blocks)
        if key.has_prefill:
            attention += self._prefill_attention(key.tokens, key.prefill_blocks)
        return self._linear(key.tokens), attention

    def _linear_flops(self, tokens: int) -> float:
        model = self.model
        weights = (
            model.attention_weights
            + model.router_weights
            + model.experts_per_token * model.expert_weights
        )
        return 2.0 * model.layers * weights * tokens

    def _linear(self, tokens: int) -> Work:
        model = self.model
        experts = min(model.experts, tokens * model.experts_per_token)
        weights = model.attention_weights + model.router_weights + experts * model.expert_weights
        # Written once and read once: the residual stream twice, queries, keys and values, the
        # result of attention, and what lies inside the feed-forward part.
        elements = (
            2 * model.hidden
            + 2 * (model.heads + model.kv_heads) * model.head_size
            + model.products * model.intermediate * model.experts_per_token
        )
        moved = weights * model.parameter_bytes + 2 * tokens * elements * model.activation_bytes
        return Work(self._linear_flops(tokens), model.layers * moved)

    def _kv_bytes(self, tokens: int) -> int:
        model = self.model
        return 2 * model.layers * model.kv_heads * model.head_size * model.kv_bytes * tokens

    def _decode_attention(self, rows: int, blocks: int) -> Work:
        """Blocks against their own queries; queries to blocks and back by one-hot products."""
        model = self.model
        queries = blocks * self.query_len
        flops = self._pair_flops * queries * (self.block_size + rows)
        # Each block's queries and partial result, and its float32 scores, written and read.
        elements = 2 * model.head_size * model.activation_bytes + 4 * self.block_size
        between = 2 * model.layers * model.heads * queries * elements
        return Work(flops, self._kv_bytes(blocks * self.block_size) + between)

    def _prefill_attention(self, tokens: int, blocks: int) -> Work:
        model = self.model
        keys = blocks * self.block_size
        pairs = tokens * keys if blocks else causal_pairs(tokens)
        # The fused kernel keeps scores to itself; the mask is read in every layer.
        mask = model.layers * pairs * model.activation_bytes
        return Work(self._pair_flops * pairs, self._kv_bytes(keys or tokens) + mask)


def exact(step: Step) -> GraphKey:
    """The key of a graph without padding."""
    return GraphKey(
        step.tokens,
        step.decode_rows,
        step.decode_blocks,
        step.prefill_rows > 0,
        step.prefill_blocks,
    )


@lru_cache(maxsize=65536)
def causal_pairs(tokens: int) -> int:
    """Query-key pairs computed for ``tokens`` that see no later one, cut in slices of queries.

    >>> causal_pairs(256), causal_pairs(512)
    (65536, 196608)
    """
    if tokens <= _LONGEST_WHOLE:
        return tokens * tokens
    step = max(_LONGEST_WHOLE, -(-tokens // _SLICES // _SLICE_MULTIPLE) * _SLICE_MULTIPLE)
    pairs = 0
    for first in range(0, tokens, step):
        end = min(first + step, tokens)
        pairs += (end - first) * end
    return pairs


def padded_work(key: GraphKey) -> float:
    """Work of a launch of an unknown model, counted in attention of one token over one KV block.

    A token's matrix products weigh as much as its attention over about 200 blocks: per layer 24 h²
    operations against 4 · 128 · h for a block of 128 tokens, with a hidden size h of 4096.
    """
    seen_by_each = key.prefill_blocks or (key.tokens / 128 if key.has_prefill else 0)
    return key.tokens * (200 + seen_by_each) + key.decode_blocks

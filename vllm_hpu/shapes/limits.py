"""What bounds a step: the limits the server was started with."""

from dataclasses import dataclass

from vllm_hpu.errors import ConfigurationError

_FLAGS = {
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "max_model_len": "--max-model-len",
    "block_size": "--block-size",
    "query_len": "num_speculative_tokens in --speculative-config",
    "max_decode_blocks": "the number of KV blocks",
    "max_prefill_blocks": "the number of KV blocks",
}


@dataclass(frozen=True)
class Limits:
    """Bounds of every step.

    query_len           tokens a decode row may have: 1 + speculative tokens
    max_decode_blocks   KV blocks that all decode rows together are planned for. Rows that share a
    max_prefill_blocks  cached prefix count its blocks once each, so more is possible than the
                        device holds; None plans for the most the other limits allow. Steps beyond
                        still get a key, which is not part of the plan.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int
    query_len: int = 1
    max_decode_blocks: int | None = None
    max_prefill_blocks: int | None = None

    def __post_init__(self) -> None:
        for name, flag in _FLAGS.items():
            value = getattr(self, name)
            if value is None and name in ("max_decode_blocks", "max_prefill_blocks"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"{name} is {value!r}",
                    "Shapes can only be planned for a whole number of at least 1",
                    f"Set {flag} to a positive whole number",
                )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigurationError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below max_num_seqs "
                f"({self.max_num_seqs})",
                "Every running request needs at least one token of a step",
                "Raise --max-num-batched-tokens or lower --max-num-seqs",
            )

    @property
    def blocks_per_row(self) -> int:
        """KV blocks of the longest request."""
        return -(-self.max_model_len // self.block_size)

    @property
    def row_query_len(self) -> int:
        """Most tokens a decode row really has: no row exceeds the model length."""
        return min(self.query_len, self.max_model_len)

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step: a few short requests may not fill ``max_num_batched_tokens``."""
        return min(self.max_num_batched_tokens, self.max_num_seqs * self.max_model_len)

    @property
    def prefill_rows(self) -> int:
        """Most prefill rows of a step; 0 when no row can exceed ``query_len`` tokens."""
        if self.query_len >= self.max_model_len:
            return 0
        return min(self.max_num_seqs, self.max_num_batched_tokens // (self.query_len + 1))

    @property
    def mixed_blocks(self) -> int:
        """Decode blocks the plan reaches up to in steps with prefill rows; 0 if none has both."""
        both = self.max_num_seqs > 1 and self.max_num_batched_tokens > self.query_len + 1
        return self.decode_blocks if both and self.prefill_rows else 0

    @property
    def all_decode_blocks(self) -> int:
        """KV blocks of all decode rows when every one of them is as long as can be."""
        return self.max_num_seqs * self.blocks_per_row

    @property
    def all_prefill_blocks(self) -> int:
        """KV blocks of all prefill rows when every one of them is as long as can be."""
        return self.prefill_rows * self.blocks_per_row

    @property
    def decode_blocks(self) -> int:
        """Decode blocks the plan reaches up to."""
        return min(self.all_decode_blocks, self.max_decode_blocks or self.all_decode_blocks)

    @property
    def prefill_blocks(self) -> int:
        """Prefill blocks the plan reaches up to."""
        return min(self.all_prefill_blocks, self.max_prefill_blocks or self.all_prefill_blocks)

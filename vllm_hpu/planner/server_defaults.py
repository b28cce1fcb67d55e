"""The limits a server on a card would have, where the user gives none."""

from dataclasses import dataclass, field
from typing import Self

from vllm_hpu.engine_plan import BLOCK_SIZE, engine_limits
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.cost import GAUDI2, GAUDI3, Card
from vllm_hpu.shapes.limits import Limits

CARDS: dict[str, Card] = {"gaudi2": GAUDI2, "gaudi3": GAUDI3}

# What `vllm serve` of vLLM 0.32 (engine/arg_utils.py, get_batch_defaults) takes on a device with
# 70 to 160 GiB of memory; a Gaudi 2 has 96 GiB, a Gaudi 3 128 GiB.
MAX_NUM_SEQS = 1024
MAX_NUM_BATCHED_TOKENS = 8192
# Its default of --gpu-memory-utilization (config/cache.py).
MEMORY_UTILIZATION = 0.92


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server with the origin of each.

    limits    as the server's plan has them
    origins   by the flag's name: "given", or where the default comes from
    """

    limits: Limits
    origins: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model_len: int,
        *,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        max_model_len: int | None = None,
        block_size: int | None = None,
        speculative_tokens: int = 0,
        num_blocks: int | None = None,
    ) -> Self:
        """Limits as ``vllm serve`` completes them.

        Args:
            model_len: the longest sequence the model was made for.
            num_blocks: KV blocks that a step may have; None for the most that the rest allows.

        Raises:
            ConfigurationError: a limit that cannot be, or two that contradict each other.
        """
        if max_model_len is not None and max_model_len > model_len:
            raise ConfigurationError(
                f"--max-model-len {max_model_len} is above {model_len}",
                "The model's config.json gives that as its longest sequence",
                f"Use --max-model-len {model_len} or less",
            )
        if block_size is not None and block_size % 16:
            raise ConfigurationError(
                f"--block-size {block_size} does not work on Gaudi",
                "It must be a multiple of 16",
                f"Use --block-size {BLOCK_SIZE}",
            )
        default = "default of vllm serve on this card"
        origins = dict.fromkeys(
            ("max-num-seqs", "max-num-batched-tokens", "max-model-len", "block-size"), "given"
        )
        longest = max_model_len or model_len
        seqs = max_num_seqs or MAX_NUM_SEQS
        tokens = max_num_batched_tokens or min(MAX_NUM_BATCHED_TOKENS, seqs * longest)
        if max_model_len is None:
            origins["max-model-len"] = "config.json"
        if block_size is None:
            origins["block-size"] = "default of vllm-hpu"
        if max_num_batched_tokens is None:
            origins["max-num-batched-tokens"] = default
        if max_num_seqs is None:
            origins["max-num-seqs"] = default
            seqs = min(seqs, tokens)
        if num_blocks is not None:
            origins["num-blocks"] = "given"
        limits = engine_limits(
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            max_model_len=longest,
            block_size=block_size or BLOCK_SIZE,
            query_len=1 + speculative_tokens,
            num_blocks=num_blocks,
        )
        return cls(limits, origins)

    def up_to(self, num_blocks: int, origin: str) -> Self:
        """The same with steps of at most so many KV blocks."""
        of = self.limits
        limits = engine_limits(
            of.max_num_seqs,
            of.max_num_batched_tokens,
            of.max_model_len,
            of.block_size,
            of.query_len,
            num_blocks,
        )
        return type(self)(limits, self.origins | {"num-blocks": origin})

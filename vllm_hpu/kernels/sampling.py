"""Temperature, min-p and the draw of a token.

Replaces the kernels of `vllm.v1.worker.gpu.sample.gumbel` and `.min_p`. `N` is the number of
logits rows, `V` the vocabulary, `S` the number of request-state rows. Parameters in capitals are
launch options of Triton unless said otherwise.
"""

from typing import Any

import numpy as np
import torch
from vllm.v1.worker.gpu.sample.sampler import Sampler

from vllm_hpu.kernels.noise import draft_positions, gumbel, gumbel64
from vllm_hpu.kernels.rows import dump_row, take

_sample_with_noise = Sampler._sample_random


def temperature(
    logits: torch.Tensor,
    logits_stride: int,
    expanded_idx_mapping: torch.Tensor,
    temperatures: torch.Tensor,
    vocab_size: int,
    BLOCK_SIZE: int,
) -> None:
    """Divide the logits by the temperature; 0 (greedy) changes nothing.

    Replaces `gumbel._temperature_kernel`. logits: [N, V], updated; expanded_idx_mapping: [N];
    temperatures: [S] float32.
    """
    logits.div_(_divisor(take(temperatures, expanded_idx_mapping))[:, None])


def _divisor(temperatures: torch.Tensor) -> torch.Tensor:
    return temperatures.masked_fill(temperatures == 0, 1.0)


def min_p(
    logits: torch.Tensor,
    logits_stride: int,
    expanded_idx_mapping: torch.Tensor,
    min_ps: torch.Tensor,
    vocab_size: int,
    BLOCK_SIZE: int,
) -> None:
    """Mask tokens less probable than min_p times the most probable one.

    Replaces `min_p._min_p_kernel`. logits: [N, V], updated; expanded_idx_mapping: [N];
    min_ps: [S] float32; 0 masks nothing, since its logarithm is -inf.
    """
    best = logits.amax(dim=-1, keepdim=True).float()
    threshold = best + take(min_ps, expanded_idx_mapping).log_()[:, None]
    logits.masked_fill_(logits < threshold, float("-inf"))


def gumbel_sample(
    local_argmax: torch.Tensor,
    local_argmax_stride: int,
    local_max: torch.Tensor,
    local_max_stride: int,
    logits_cache: torch.Tensor | None,
    logits_cache_stride_0: int,
    logits_cache_stride_1: int,
    logits_cache_col: torch.Tensor | None,
    logits_cache_source: torch.Tensor | None,
    logits_cache_source_stride: int,
    logits: torch.Tensor,
    logits_stride: int,
    expanded_idx_mapping: torch.Tensor,
    seeds: torch.Tensor,
    pos: torch.Tensor,
    temperatures: torch.Tensor,
    vocab_size: int,
    BLOCK_SIZE: int,
    IS_DRAFTING: bool,
    APPLY_TEMPERATURE: bool,
    USE_FP64: bool,
    PER_TOKEN_COL: bool,
) -> None:
    """Draw a token per row by the Gumbel-max method; temperature 0 takes the most likely one.

    Replaces `gumbel._gumbel_sample_kernel`, whose result is one maximum per block of the
    vocabulary, reduced by the caller. Here the whole row is reduced at once and stands in block 0.
    local_argmax: [N, blocks] int64, local_max: [N, blocks] float32 (float64 with USE_FP64), both
    written; logits: [N, V]; expanded_idx_mapping: [N], negative rows are greedy; seeds: [S] int64;
    pos: [N] int64; temperatures: [S] float32.
    logits_cache: [S, columns, >= V] or None: keeps `logits_cache_source` [N, V] of the same dtype
    at (row, logits_cache_col), logits_cache_col being 0-dimensional, or [N] with PER_TOKEN_COL.
    """
    nowhere = expanded_idx_mapping < 0
    state = expanded_idx_mapping.long().masked_fill(nowhere, dump_row(temperatures))
    if logits_cache is not None:
        assert logits_cache_col is not None  # vLLM's launcher passes both or neither
        assert logits_cache_source is not None
        column = logits_cache_col.long().expand_as(state)
        cached = logits_cache[..., :vocab_size]
        cached.index_put_((state, column), logits_cache_source)

    temp = take(temperatures, state).masked_fill_(nowhere, 0.0)
    scores = logits.float()
    if APPLY_TEMPERATURE:
        scores = scores / _divisor(temp)[:, None]
    position = draft_positions(pos.long()) if IS_DRAFTING else pos.long()
    tokens = torch.arange(vocab_size, dtype=torch.int32, device=logits.device)
    noise = (gumbel64 if USE_FP64 else gumbel)(take(seeds, state), position, tokens)
    noise.mul_((temp != 0)[:, None])
    best, token = noise.add_(scores).max(dim=-1)
    local_max.fill_(float("-inf"))
    local_max[:, 0] = best
    local_argmax[:, 0] = token


def sample_random(
    self: Sampler,
    processed_logits: torch.Tensor,
    expanded_idx_mapping: torch.Tensor,
    idx_mapping_np: np.ndarray,
    pos: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Skip the noise when every request of the step is greedy, which the host knows.

    Wraps `Sampler._sample_random`. A kernel of fixed shape cannot skip rows by their temperature,
    and noise for a whole vocabulary costs more than the rest of the sampler.
    """
    greedy = not self.sampling_states.temperature.np[idx_mapping_np].any()
    if greedy and top_k is None and top_p is None:
        return processed_logits.argmax(dim=-1), processed_logits
    return _sample_with_noise(
        self,
        processed_logits,
        expanded_idx_mapping,
        idx_mapping_np,
        pos,
        top_k,
        top_p,
        *args,
        **kwargs,
    )

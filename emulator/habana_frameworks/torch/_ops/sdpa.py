"""``hpu::sdpa_recomp_fwd`` and ``hpu::sdpa_fwd``: fused attention.

Schemas: scripts/hpu_op.yaml and habana_eager/eager_custom_op_register.cpp of
HabanaAI/gaudi-pytorch-bridge; output shapes and dtypes: hpu_ops/backend/sdpa_gen.cpp there.

The recompute variant never holds the matrix of scores: it runs a flash kernel, in slices of
queries when a mask has to be built. Only with dropout, which is for training, it does.
"""

import torch

from habana_frameworks.torch.internal import bridge_config

from .library import operator
from .sdpa_dropout import check_probability, draw_seed, keep_mask
from .sdpa_mask import MaskRules, additive_mask

__all__ = ["as_4d", "mask_as_4d", "scores_of", "sdpa_fwd", "sdpa_recomp_fwd"]

_SOFTMAX_MODES = ("none", "fast", "fp32")
_PADDING_TYPES = ("left", "right")
_NO_PADDING = "none"
"""What programs pass that give no valid_seq_len; the card looks at the type only with one."""

_MASK_ELEMENTS_AT_ONCE = 1 << 22
"""A mask larger than this is built and used in slices of queries (4 Mi elements, 16 MiB)."""


def _check(
    name: str,
    p: float,
    softmax_mode: str,
    valid_seq_len: torch.Tensor | None,
    seq_padding_type: str,
) -> None:
    check_probability(name, p)
    if softmax_mode.lower() not in _SOFTMAX_MODES:
        raise ValueError(f"{name}: softmax_mode '{softmax_mode}' is not one of {_SOFTMAX_MODES}")
    unused = valid_seq_len is None and seq_padding_type.lower() == _NO_PADDING
    if not unused and seq_padding_type.lower() not in _PADDING_TYPES:
        raise ValueError(
            f"{name}: seq_padding_type '{seq_padding_type}' is not one of {_PADDING_TYPES}"
        )


def as_4d(tensor: torch.Tensor) -> torch.Tensor:
    """Bring ``[seq, dim]``, ``[heads, seq, dim]`` or grouped 5-D tensors to four dimensions."""
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() == 5:
        return tensor.flatten(1, 2)
    if tensor.dim() in (2, 3):
        return tensor.reshape((1,) * (4 - tensor.dim()) + tuple(tensor.shape))
    raise ValueError(f"fused attention takes 2 to 5 dimensions, got {tuple(tensor.shape)}")


def mask_as_4d(mask: torch.Tensor | None, q: torch.Tensor) -> torch.Tensor | None:
    """Bring a mask for ``q`` (before its own reshape) to four dimensions."""
    if mask is None or mask.dim() == 4:
        return mask
    if mask.dim() < 4:
        return mask.reshape((1,) * (4 - mask.dim()) + tuple(mask.shape))
    if q.dim() < 5:
        raise ValueError(
            f"fused attention: a mask {tuple(mask.shape)} needs grouped queries (5 dimensions), "
            f"got {tuple(q.shape)}"
        )
    groups, per_group = mask.shape[1], mask.shape[2]
    if groups * per_group > 1 and (groups, per_group) != tuple(q.shape[1:3]):
        mask = mask.expand(-1, q.shape[1], q.shape[2], -1, -1)
    return mask.flatten(1, 2)


def _broadcast_heads(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """Make batch and heads of keys or values fit ``q``; grouped heads stay grouped."""
    batch = q.shape[0] if kv.shape[0] == 1 else kv.shape[0]
    if kv.shape[1] == 0 or q.shape[1] % kv.shape[1]:
        raise ValueError(
            f"fused attention: {q.shape[1]} query heads cannot share {kv.shape[1]} key-value "
            "heads; the first must be a multiple of the second"
        )
    return kv if batch == kv.shape[0] else kv.expand(batch, -1, -1, -1)


def _pad_dim(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    missing = dim - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing > 0 else tensor


def _flash(q, k, v, mask, causal: bool, scale: float, sink) -> torch.Tensor:
    """The kernel of csrc/bridge/attention.cpp; values may be narrower or wider than queries."""
    width = v.shape[-1]
    dim = max(q.shape[-1], width)
    out = torch.ops.gaudi_kernel.flash_attention(
        _pad_dim(q, dim), _pad_dim(k, dim), _pad_dim(v, dim), mask, causal, scale, sink
    )
    return out if width == dim else out[..., :width]


def _attend(q, k, v, mask, rules: MaskRules, scale: float, sink) -> torch.Tensor:
    """Output of 4-D inputs, never holding a full matrix of scores or masks."""
    if rules.only_causal and (mask is None or not rules.causal):
        additive = additive_mask(rules._replace(causal=False), mask, q, k)
        return _flash(q, k, v, additive, rules.causal, scale, sink)
    queries, keys = q.shape[-2], k.shape[-2]
    per_row = keys * (q.shape[0] if rules.valid_seq_len is not None else 1)
    step = max(1, min(queries, _MASK_ELEMENTS_AT_ONCE // max(per_row, 1)))
    outs = []
    for first in range(0, queries, step):
        rows = slice(first, first + step)
        q_rows = q[..., rows, :]
        part = mask
        if mask is not None and mask.shape[-2] != 1:
            part = mask[..., rows, :]
        additive = additive_mask(rules, part, q_rows, k, first)
        outs.append(_flash(q_rows, k, v, additive, False, scale, sink))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=-2)


def scores_of(q, k, mask, rules: MaskRules, scale: float) -> torch.Tensor:
    """Masked float32 scores ``[batch, heads, queries, keys]`` for callers that need them whole."""
    repeat = q.shape[1] // k.shape[1]
    wide = k.repeat_interleave(repeat, dim=1) if repeat > 1 else k
    scores = torch.matmul(q.to(torch.float32), wide.to(torch.float32).transpose(-1, -2))
    scores.mul_(scale)
    additive = additive_mask(rules, mask, q, k)
    return scores if additive is None else scores.add_(additive)


def _row_max(scores: torch.Tensor) -> torch.Tensor:
    """Row maximum; zero for a row that sees nothing, so that no difference is ``inf - inf``."""
    highest = scores.amax(-1, keepdim=True)
    return highest.masked_fill(highest == float("-inf"), 0.0)


def _statistics(q, k, mask, rules, scale, sink, fast: bool):
    """Row maximum (``q``'s dtype) and inverse row sum of the softmax, ``[..., queries, 1]``."""
    maxima, inverses = [], []
    queries = q.shape[-2]
    step = max(1, min(queries, _MASK_ELEMENTS_AT_ONCE // max(k.shape[-2] * q.shape[1], 1)))
    for first in range(0, queries, step):
        rows = slice(first, first + step)
        part = mask[..., rows, :] if mask is not None and mask.shape[-2] != 1 else mask
        q_rows = q[..., rows, :]
        additive = additive_mask(rules, part, q_rows, k, first)
        scores = scores_of(q_rows, k, additive, MaskRules(False, (-1, -1), None, False), scale)
        highest = _row_max(scores)
        if sink is not None:
            highest = torch.maximum(highest, sink)
        # The maximum leaves in q's dtype: the sum must belong to the value the caller sees.
        highest = highest.to(q.dtype)
        total = scores.sub_(highest).exp_().sum(-1, keepdim=True)
        if sink is not None:
            total = total + (sink - highest).exp()
        inverse = torch.where(total > 0, total.reciprocal(), 0.0)
        maxima.append(highest)
        inverses.append(inverse)
    m, linv = torch.cat(maxima, dim=-2), torch.cat(inverses, dim=-2)
    return m, linv.to(q.dtype) if fast and q.dtype == torch.bfloat16 else linv


def _sink_column(sink: torch.Tensor | None, heads: int) -> torch.Tensor | None:
    """A sink logit per query head as float32 ``[heads, 1, 1]``."""
    if sink is None:
        return None
    if not bridge_config.get_pt_hpu_enable_fused_sdpa_sink():
        raise ValueError(
            "fused attention: a sink is given, but PT_HPU_ENABLE_FUSED_SDPA_SINK is off; unset it"
        )
    if sink.numel() not in (1, heads):
        raise ValueError(
            f"fused attention: sink has {sink.numel()} values; give one per query head ({heads})"
        )
    return sink.to(torch.float32).reshape(-1, 1, 1)


def _weights(q, k, mask, rules: MaskRules, scale: float, sink=None) -> torch.Tensor:
    """Softmax in float32, ``[batch, heads, queries, keys]``; zero for a row that sees nothing."""
    scores = scores_of(q, k, mask, rules, scale)
    highest = _row_max(scores)
    if sink is not None:
        highest = torch.maximum(highest, sink)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    if sink is not None:
        total = total + (sink - highest).exp()
    return weights / total.masked_fill(total == 0, 1.0)


def _dropped(weights: torch.Tensor, seed: torch.Tensor, p: float):
    """The weights after dropout, and the mask of those that were kept."""
    mask = keep_mask(seed, tuple(weights.shape), p)
    return weights * mask * (0.0 if p == 1.0 else 1.0 / (1.0 - p)), mask


def _times_values(weights: torch.Tensor, v: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``weights @ v`` for values whose heads may be shared, in ``dtype``."""
    repeat = weights.shape[1] // v.shape[1]
    wide = v.repeat_interleave(repeat, dim=1) if repeat > 1 else v
    return torch.matmul(weights.to(dtype), wide)


def _output_shape(q: torch.Tensor, v: torch.Tensor) -> list[int]:
    return [*q.shape[:-1], v.shape[-1]]


def _fake_recomp(
    q,
    k,
    v,
    attention_mask,
    p,
    scale,
    is_causal,
    requires_backward,
    softmax_mode,
    valid_seq_len,
    seq_padding_type,
    window_size=(-1, -1),
    sink=None,
):
    stats = [*q.shape[:-1], 1] if requires_backward else [1]
    fast = softmax_mode.lower() == "fast" and q.dtype == torch.bfloat16
    return (
        q.new_empty(_output_shape(q, v)),
        q.new_empty(stats),
        q.new_empty(stats, dtype=q.dtype if fast else torch.float32),
        q.new_empty([1], dtype=torch.int32),
    )


@operator(
    "sdpa_recomp_fwd(Tensor q, Tensor k, Tensor v, Tensor? attention_mask, float p, float scale,"
    " bool is_causal, bool requires_backward, str softmax_mode, Tensor? valid_seq_len,"
    " str seq_padding_type, SymInt[] window_size=[-1, -1], Tensor? sink=None)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_recomp,
)
def sdpa_recomp_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    p: float,
    scale: float,
    is_causal: bool,
    requires_backward: bool,
    softmax_mode: str,
    valid_seq_len: torch.Tensor | None,
    seq_padding_type: str,
    window_size=(-1, -1),
    sink: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention without the matrix of scores.

    Args:
        q: ``[batch, heads, queries, dim]`` or grouped ``[batch, groups, heads/groups, queries,
            dim]``; float32, bfloat16 or float16.
        k, v: ``[batch, kv_heads, keys, dim]`` or ``[batch, groups, 1, keys, dim]``.
        attention_mask: additive, or boolean (True: visible); broadcastable to the scores.
        p: dropout probability.
        scale: factor of the scores.
        is_causal, window_size, valid_seq_len, seq_padding_type: see ``sdpa_mask.MaskRules``.
        requires_backward: also return the softmax statistics (attention in slices needs them).
        softmax_mode: ``none``, ``fast`` or ``fp32``. The sum is always taken in float32 here, so
            the modes differ only in the dtype of ``linv``.
        sink: one logit per query head which joins every row's denominator once.

    Returns:
        ``(out, m, linv, seed)``: output in ``q``'s shape and dtype; row maximum in ``q``'s dtype
        and inverse row sum ``[..., queries, 1]`` (each of shape ``[1]`` and zero without
        ``requires_backward``); the dropout seed, int32 ``[1]``, zero without dropout.
    """
    _check("sdpa_recomp_fwd", p, softmax_mode, valid_seq_len, seq_padding_type)
    left, right = (int(side) for side in window_size)
    rules = MaskRules(is_causal, (left, right), valid_seq_len, seq_padding_type.lower() == "left")
    fast = softmax_mode.lower() == "fast"
    q4 = as_4d(q)
    k4, v4 = _broadcast_heads(q4, as_4d(k)), _broadcast_heads(q4, as_4d(v))
    mask = mask_as_4d(attention_mask, q)
    column = _sink_column(sink, q4.shape[1])
    if p == 0.0:
        out = _attend(q4, k4, v4, mask, rules, scale, column)
        seed = torch.zeros(1, dtype=torch.int32, device=q.device)
    else:
        seed = draw_seed(q.device)
        weights = _weights(q4, k4, mask, rules, scale, column)
        out = _times_values(_dropped(weights, seed, p)[0], v4, q.dtype)
    if requires_backward:
        m, linv = _statistics(q4, k4, mask, rules, scale, column, fast)
        m, linv = m.reshape(*q.shape[:-1], 1), linv.reshape(*q.shape[:-1], 1)
    else:
        dtype = q.dtype if fast and q.dtype == torch.bfloat16 else torch.float32
        m = torch.zeros(1, dtype=q.dtype, device=q.device)
        linv = torch.zeros(1, dtype=dtype, device=q.device)
    return out.reshape(_output_shape(q, v)), m, linv, seed


def _fake_fwd(
    q, k, v, attention_mask, p, scale, is_causal, softmax_mode, valid_seq_len, seq_padding_type
):
    return (
        q.new_empty(_output_shape(q, v)),
        q.new_empty([*q.shape[:-1], k.shape[-2]]),
        q.new_empty([*q.shape[:-1], k.shape[-2]] if p else [1], dtype=torch.int8),
    )


@operator(
    "sdpa_fwd(Tensor q, Tensor k, Tensor v, Tensor? attention_mask, float p, float scale,"
    " bool is_causal, str softmax_mode, Tensor? valid_seq_len, str seq_padding_type)"
    " -> (Tensor, Tensor, Tensor)",
    _fake_fwd,
)
def sdpa_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    p: float,
    scale: float,
    is_causal: bool,
    softmax_mode: str,
    valid_seq_len: torch.Tensor | None,
    seq_padding_type: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention which also returns the probabilities; arguments as in :func:`sdpa_recomp_fwd`.

    Returns:
        ``(out, probabilities, dropout_mask)``: the probabilities before dropout ``[..., queries,
        keys]`` in ``q``'s dtype; the dropout mask, int8 of the same shape, 1 where a weight was
        kept, or ``[1]`` and zero without dropout.
    """
    _check("sdpa_fwd", p, softmax_mode, valid_seq_len, seq_padding_type)
    rules = MaskRules(is_causal, (-1, -1), valid_seq_len, seq_padding_type.lower() == "left")
    q4 = as_4d(q)
    k4, v4 = _broadcast_heads(q4, as_4d(k)), _broadcast_heads(q4, as_4d(v))
    weights = _weights(q4, k4, mask_as_4d(attention_mask, q), rules, scale)
    shape = (*q.shape[:-1], k.shape[-2])
    if p == 0.0:
        kept = weights
        dropout_mask = torch.zeros(1, dtype=torch.int8, device=q.device)
    else:
        kept, dropout_mask = _dropped(weights, draw_seed(q.device), p)
        dropout_mask = dropout_mask.reshape(shape)
    out = _times_values(kept, v4, q.dtype)
    return out.reshape(_output_shape(q, v)), weights.to(q.dtype).reshape(shape), dropout_mask

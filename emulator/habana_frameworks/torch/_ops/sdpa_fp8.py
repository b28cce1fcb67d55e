"""``hpu::fp8_sdpa_recomp_fwd`` and ``hpu::fp8_sdpa_fwd``: attention of FP8 inputs.

Schemas: habana_eager/eager_custom_op_register.cpp of HabanaAI/gaudi-pytorch-bridge; output shapes
and dtypes: hpu_ops/backend/sdpa_gen.cpp there.
"""

from typing import TypeAlias

import torch

from .fp8_range import FP8_DTYPES, saturate
from .library import operator
from .sdpa import sdpa_fwd, sdpa_recomp_fwd

__all__ = ["fp8_sdpa_fwd", "fp8_sdpa_recomp_fwd"]

Scale: TypeAlias = torch.Tensor | float | None

_E4M3 = torch.float8_e4m3fn


def _times(values: torch.Tensor, factor: Scale) -> torch.Tensor:
    wide = values.to(torch.float32)
    return wide if factor is None else wide * factor


def _times_values(weights: torch.Tensor, factor: Scale, values: torch.Tensor) -> torch.Tensor:
    """``weights * factor @ values`` for values whose heads may be shared."""
    repeat = weights.shape[-3] // values.shape[-3]
    wide = values.repeat_interleave(repeat, dim=-3) if repeat > 1 else values
    return torch.matmul(_times(weights, factor), wide)


def _out_dtype(q: torch.Tensor, q_scale_o: Scale) -> torch.dtype:
    if q_scale_o is not None:
        return _E4M3
    return torch.bfloat16 if q.dtype in FP8_DTYPES else q.dtype


def _fake(q, k, v, mask, p, scale, is_causal, requires_backward, softmax_mode, *rest):
    q_scale_o = rest[4]
    stats = [*q.shape[:-1], 1] if requires_backward else [1]
    return (
        q.new_empty([*q.shape[:-1], v.shape[-1]], dtype=_out_dtype(q, q_scale_o)),
        q.new_empty(stats, dtype=torch.float32),
        q.new_empty(stats, dtype=torch.float32),
        q.new_empty([1], dtype=torch.int32),
        q.new_empty([1], dtype=torch.float32),
        q.new_empty([1], dtype=torch.float32),
    )


_HEAD = (
    "Tensor q, Tensor k, Tensor v, Tensor? attention_mask, float p, float scale, bool is_causal,"
    " bool requires_backward, str softmax_mode"
)
_TAIL = (
    "bool is_amax_s, bool is_amax_o, Tensor? valid_seq_len, str seq_padding_type,"
    " SymInt[] window_size=[-1, -1], Tensor? sink=None)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_SCALES = ("d_scale_q", "d_scale_k", "d_scale_v", "q_scale_s", "q_scale_o", "d_scale_s")
_TENSORS = ", ".join(f"Tensor? {name}" for name in _SCALES)
_NUMBERS = ", ".join(f"float {name}" for name in _SCALES)


@operator(f"fp8_sdpa_recomp_fwd.scalar({_HEAD}, {_NUMBERS}, {_TAIL}", _fake)
@operator(f"fp8_sdpa_recomp_fwd({_HEAD}, {_TENSORS}, {_TAIL}", _fake)
def fp8_sdpa_recomp_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    p: float,
    scale: float,
    is_causal: bool,
    requires_backward: bool,
    softmax_mode: str,
    d_scale_q: Scale,
    d_scale_k: Scale,
    d_scale_v: Scale,
    q_scale_s: Scale,
    q_scale_o: Scale,
    d_scale_s: Scale,
    is_amax_s: bool,
    is_amax_o: bool,
    valid_seq_len: torch.Tensor | None,
    seq_padding_type: str,
    window_size=(-1, -1),
    sink: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Attention of scaled inputs; shapes and rules as of ``sdpa_recomp_fwd``.

    Args:
        d_scale_q, d_scale_k, d_scale_v: multiply the inputs.
        q_scale_s: probabilities become ``saturate(p * q_scale_s)`` in ``float8_e4m3fn``.
        d_scale_s: multiplies the probabilities afterwards.
        q_scale_o: the output becomes ``saturate(out * q_scale_o)`` in ``float8_e4m3fn``.
        is_amax_s, is_amax_o: measure the largest probability, the largest output.
        window_size, sink: only without ``q_scale_s`` and ``is_amax_s``.

    Returns:
        ``(out, m, linv, seed, amax_s, amax_o)``; ``out`` is bfloat16 for FP8 inputs without
        ``q_scale_o``; the amax are float32 ``[1]``, zero if not asked for.
    """
    if p != 0.0:
        raise ValueError("fp8_sdpa_recomp_fwd: dropout is for training, FP8 attention is not")
    queries, keys, values = _times(q, d_scale_q), _times(k, d_scale_k), _times(v, d_scale_v)
    rules = (attention_mask, p, scale, is_causal)
    padding = (valid_seq_len, seq_padding_type)
    out, m, linv, seed = sdpa_recomp_fwd(
        queries, keys, values, *rules, requires_backward, "none", *padding, window_size, sink
    )
    zero = torch.zeros(1, dtype=torch.float32, device=q.device)
    amax_s = amax_o = zero
    if q_scale_s is not None or is_amax_s:
        if sink is not None or tuple(window_size) != (-1, -1):
            raise NotImplementedError(
                "fp8_sdpa_recomp_fwd: probabilities in FP8 with a window or a sink are not "
                "emulated; leave q_scale_s and is_amax_s out"
            )
        _, weights, _ = sdpa_fwd(queries, keys, values, *rules, "none", *padding)
        if is_amax_s:
            amax_s = weights.amax().reshape(1)
        if q_scale_s is not None:
            out = _times_values(saturate(weights * q_scale_s, _E4M3), d_scale_s, values)
    if is_amax_o:
        amax_o = out.abs().amax().reshape(1)
    dtype = _out_dtype(q, q_scale_o)
    out = out.to(dtype) if q_scale_o is None else saturate(out * q_scale_o, dtype)
    return out, m, linv, seed, amax_s, amax_o


def _fwd_dtype(q: torch.Tensor, q_scale_o: Scale) -> torch.dtype:
    return torch.bfloat16 if q_scale_o is None and q.dtype in FP8_DTYPES else q.dtype


def _fake_fwd(q, k, v, mask, p, scale, is_causal, softmax_mode, *rest):
    q_scale_o = rest[4]
    weights = [*q.shape[:-1], k.shape[-2]]
    return (
        q.new_empty([*q.shape[:-1], v.shape[-1]], dtype=_fwd_dtype(q, q_scale_o)),
        q.new_empty(weights),
        q.new_empty(weights if p else [1], dtype=torch.int8),
        q.new_empty([1], dtype=torch.float32),
    )


@operator(
    "fp8_sdpa_fwd(Tensor q, Tensor k, Tensor v, Tensor? attention_mask, float p, float scale,"
    f" bool is_causal, str softmax_mode, {_TENSORS}, bool is_amax_s, Tensor? valid_seq_len,"
    " str seq_padding_type) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_fwd,
)
def fp8_sdpa_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    p: float,
    scale: float,
    is_causal: bool,
    softmax_mode: str,
    d_scale_q: Scale,
    d_scale_k: Scale,
    d_scale_v: Scale,
    q_scale_s: Scale,
    q_scale_o: Scale,
    d_scale_s: Scale,
    is_amax_s: bool,
    valid_seq_len: torch.Tensor | None,
    seq_padding_type: str,
) -> tuple[torch.Tensor, ...]:
    """Attention which also returns the probabilities; arguments as in :func:`fp8_sdpa_recomp_fwd`.

    Returns:
        ``(out, probabilities, dropout_mask, amax_s)``. ``out`` has ``q``'s dtype, but bfloat16 for
        FP8 inputs without ``q_scale_o``. The probabilities before dropout ``[..., queries, keys]``
        are in ``q``'s dtype, in FP8 times ``q_scale_s``. The dropout mask as of ``sdpa_fwd``.
        ``amax_s``: float32 ``[1]``, zero if not asked for.
    """
    queries, keys, values = _times(q, d_scale_q), _times(k, d_scale_k), _times(v, d_scale_v)
    rules = (attention_mask, p, scale, is_causal, "none", valid_seq_len, seq_padding_type)
    out, weights, dropout_mask = sdpa_fwd(queries, keys, values, *rules)
    amax_s = torch.zeros(1, dtype=torch.float32, device=q.device)
    if is_amax_s:
        amax_s = weights.amax().reshape(1)
    scaled = weights if q_scale_s is None else weights * q_scale_s
    if q_scale_s is not None:
        kept: torch.Tensor = saturate(scaled, _E4M3)
        if p:
            kept = kept.to(torch.float32) * dropout_mask * (0.0 if p == 1.0 else 1.0 / (1.0 - p))
        out = _times_values(kept, d_scale_s, values)
    if q_scale_o is not None:
        out = out * q_scale_o
    dtype = _fwd_dtype(q, q_scale_o)
    narrow_out = saturate(out, dtype) if dtype in FP8_DTYPES else out.to(dtype)
    narrow = saturate(scaled, q.dtype) if q.dtype in FP8_DTYPES else weights.to(q.dtype)
    return narrow_out, narrow, dropout_mask, amax_s

"""``fp8_fused_sdpa``: fused attention with FP8 inputs.

Signature: python_packages/habana_frameworks/torch/hpex/kernels/Fp8FusedSDPA.py of
HabanaAI/gaudi-pytorch-bridge.
"""

import math

import torch

from .FusedSDPA import gqa_input_reshape_fwd, gqa_output_reshape, is_gqa

__all__ = ["fp8_fused_sdpa", "gqa_input_reshape_fwd", "gqa_output_reshape", "is_gqa"]


def fp8_fused_sdpa(
    q,
    k,
    v,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    softmax_mode="None",
    d_scale_q=None,
    d_scale_k=None,
    d_scale_v=None,
    q_scale_s=None,
    q_scale_o=None,
    d_scale_s=None,
    is_amax_s=False,
    is_amax_o=False,
    valid_seq_len=None,
    seq_padding_type="left",
    recompute=None,
):
    """Attention of ``q``, ``k``, ``v``; scales as of ``torch.ops.hpu.fp8_sdpa_recomp_fwd``.

    Args:
        q: ``[batch, heads, queries, dim]``.
        k, v: ``[batch, kv_heads, keys, dim]``.
        scale: factor of the scores, default ``1/sqrt(dim)``.
        recompute: False for the kernel that keeps the scores. It has no ``amax_o``, and its
            scales are tensors. The default is the other one, which has the same result.

    Returns:
        ``(out, amax_s, amax_o)``.
    """
    if recompute is False and is_amax_o:
        raise ValueError(
            "fp8_fused_sdpa: recompute=False measures no amax_o; pass recompute=True for it"
        )
    if any(tensor.requires_grad for tensor in (q, k, v)):
        raise NotImplementedError(
            "fp8_fused_sdpa: the emulated bridge provides no backward; detach the inputs"
        )
    if valid_seq_len is not None and (not is_causal or attn_mask is not None):
        raise ValueError("fp8_fused_sdpa: valid_seq_len needs is_causal=True and no mask")
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    grouped = is_gqa(q, k)
    if grouped:
        q, k, v, attn_mask = gqa_input_reshape_fwd(q, k, v, attn_mask)
    scales = d_scale_q, d_scale_k, d_scale_v, q_scale_s, q_scale_o, d_scale_s
    if recompute is False:
        out, _, _, amax_s = torch.ops.hpu.fp8_sdpa_fwd(
            q,
            k,
            v,
            attn_mask,
            dropout_p,
            scale,
            is_causal,
            softmax_mode.lower(),
            *scales,
            is_amax_s,
            valid_seq_len,
            seq_padding_type.lower(),
        )
        return gqa_output_reshape(out) if grouped else out, amax_s, None
    out, _, _, _, amax_s, amax_o = torch.ops.hpu.fp8_sdpa_recomp_fwd(
        q,
        k,
        v,
        attn_mask,
        dropout_p,
        scale,
        is_causal,
        False,
        softmax_mode.lower(),
        *scales,
        is_amax_s,
        is_amax_o,
        valid_seq_len,
        seq_padding_type.lower(),
    )
    return gqa_output_reshape(out) if grouped else out, amax_s, amax_o

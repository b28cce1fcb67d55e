"""``FusedSDPA``: fused attention, and the reshapes for grouped heads.

Signature and rules: python_packages/habana_frameworks/torch/hpex/kernels/FusedSDPA.py of
HabanaAI/gaudi-pytorch-bridge (newer public commit) and docs.habana.ai, "hpex.kernels FusedSDPA".
"""

import math

import torch

from habana_frameworks.torch.hpu.sdp import recompute_sdp_enabled

__all__ = [
    "FusedSDPA",
    "gqa_input_reshape_fwd",
    "gqa_output_reshape",
    "is_gqa",
]


def is_gqa(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Whether the heads are grouped: 4-D inputs, and neither all nor one key-value head."""
    return q.dim() == 4 and k.shape[1] not in (q.shape[1], 1)


def gqa_input_reshape_fwd(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Split the heads into groups that share a key-value head.

    Args:
        q: ``[batch, heads, queries, dim]``.
        k, v: ``[batch, groups, keys, dim]``.
        attention_mask: ``[batch, heads or 1, queries, keys]`` or None.

    Returns:
        q ``[batch, groups, heads/groups, queries, dim]``, k and v ``[batch, groups, 1, keys,
        dim]``, and the mask with the same five dimensions.
    """
    groups = k.shape[1]
    per_group = q.shape[1] // groups
    if attention_mask is not None:
        if attention_mask.shape[1] == q.shape[1]:
            attention_mask = attention_mask.unflatten(1, (groups, per_group))
        else:
            attention_mask = attention_mask.unsqueeze(1)
    return q.unflatten(1, (groups, per_group)), k.unsqueeze(2), v.unsqueeze(2), attention_mask


def gqa_output_reshape(tensor: torch.Tensor) -> torch.Tensor:
    """Undo the grouping: ``[batch, groups, per_group, seq, dim]`` to four dimensions."""
    return tensor.flatten(1, 2)


def _expand_mask(mask: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor):
    """A mask ``[queries, keys]`` with the rank of ``q`` and its batch; others unchanged."""
    if mask is None or mask.dim() != 2:
        return mask
    if tuple(mask.shape) != (q.shape[-2], k.shape[-2]):
        raise ValueError(
            f"FusedSDPA: a mask of two dimensions must be [queries, keys] = "
            f"[{q.shape[-2]}, {k.shape[-2]}], got {list(mask.shape)}"
        )
    return mask.expand(q.shape[0], *(1,) * (q.dim() - 3), *mask.shape)


def _check(q, is_causal, softmax_mode, recompute, valid_seq_len, limits, return_mask) -> None:
    """Refuse combinations that the kernel does not have."""
    if softmax_mode == "fp32" and q.dtype != torch.bfloat16:
        raise ValueError(f"FusedSDPA: softmax_mode 'fp32' is for bfloat16 inputs, got {q.dtype}")
    if valid_seq_len is not None and not is_causal:
        raise ValueError("FusedSDPA: valid_seq_len needs is_causal=True; pass a mask instead")
    if limits and not recompute:
        raise ValueError(
            "FusedSDPA: window_size and sink exist only in the recompute kernel; pass "
            "recompute_mode=True and do not ask for probabilities"
        )
    if return_mask and recompute:
        raise ValueError(
            "FusedSDPA: the recompute kernel returns no dropout mask; pass recompute_mode=False"
        )


def _check_training(inference_only: bool, mask_needs_gradient: bool) -> None:
    """Refuse what has no gradients on the card; asked in the backward pass, where they are."""
    if inference_only:
        raise ValueError(
            "FusedSDPA: window_size, sink and valid_seq_len are for inference; they have no "
            "gradients"
        )
    if mask_needs_gradient:
        raise NotImplementedError("FusedSDPA: attn_mask gets no gradient; detach it")


class FusedSDPA(torch.autograd.Function):
    """``FusedSDPA.apply(q, k, v, ...)``: attention, with gradients of ``q``, ``k`` and ``v``."""

    @staticmethod
    def forward(
        ctx,
        q,
        k,
        v,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        softmax_mode="None",
        recompute_mode=None,
        valid_seq_len=None,
        seq_padding_type="left",
        return_dropout_mask=False,
        return_attn_probs=False,
        window_size=(-1, -1),
        sink=None,
    ):
        """Scaled dot product attention.

        Args:
            q: ``[batch, heads, queries, dim]`` (3 dimensions work too).
            k, v: ``[batch, kv_heads, keys, dim]``; ``kv_heads`` divides ``heads``.
            attn_mask: additive or boolean, ``[queries, keys]`` or broadcastable to
                ``[batch, heads, queries, keys]``.
            dropout_p: probability that a weight is dropped, for training.
            is_causal: query ``i`` sees keys ``0..i``.
            scale: factor of the scores, default ``1/sqrt(dim)``.
            softmax_mode: ``None``, ``fast`` or ``fp32`` (bfloat16 only), any case.
            recompute_mode: use the kernel that holds no matrix of scores; None asks
                ``torch.hpu.recompute_sdp_enabled()``. One query forces it, returning
                probabilities forbids it.
            valid_seq_len: int ``[batch]``, tokens that are not padding; with ``is_causal`` only.
            seq_padding_type: ``left`` or ``right``, where the padding stands.
            return_dropout_mask, return_attn_probs: append those to the result.
            window_size: ``(left, right)``, -1 for unbounded; recompute only.
            sink: one logit per head that joins each row's denominator once; recompute only.

        Returns:
            ``[batch, heads, queries, v_dim]`` in ``q``'s dtype, or a tuple with what was asked
            for. An input without elements gives an uninitialised tensor of the right shape.
        """
        if 0 in (q.numel(), k.numel(), v.numel()):
            return q.new_empty((*q.shape[:-1], v.shape[-1]))
        softmax_mode = softmax_mode.lower()
        seq_padding_type = seq_padding_type.lower()
        if scale is None:
            scale = 1.0 / math.sqrt(q.shape[-1])
        recompute = recompute_mode
        if recompute is None:
            recompute = recompute_sdp_enabled()
        if q.shape[-2] == 1:
            recompute = True
        if return_attn_probs:
            recompute = False
        limits = sink is not None or tuple(window_size) != (-1, -1)
        _check(q, is_causal, softmax_mode, recompute, valid_seq_len, limits, return_dropout_mask)
        attn_mask = _expand_mask(attn_mask, q, k)
        grouped = is_gqa(q, k)
        if grouped:
            q, k, v, attn_mask = gqa_input_reshape_fwd(q, k, v, attn_mask)
        trains = any(ctx.needs_input_grad[:3])
        ctx.inference_only = limits or valid_seq_len is not None
        ctx.settings = is_causal, dropout_p, scale, softmax_mode, grouped, recompute
        if recompute:
            out, m, linv, seed = torch.ops.hpu.sdpa_recomp_fwd(
                q,
                k,
                v,
                attn_mask,
                dropout_p,
                scale,
                is_causal,
                trains,
                softmax_mode,
                valid_seq_len,
                seq_padding_type,
                window_size,
                sink,
            )
            if trains:
                ctx.save_for_backward(q, k, v, out, attn_mask, m, linv, seed)
            return gqa_output_reshape(out) if grouped else out
        out, probabilities, dropout_mask = torch.ops.hpu.sdpa_fwd(
            q,
            k,
            v,
            attn_mask,
            dropout_p,
            scale,
            is_causal,
            softmax_mode,
            valid_seq_len,
            seq_padding_type,
        )
        if trains:
            ctx.save_for_backward(q, k, v, out, probabilities, dropout_mask)
        if grouped:
            out, probabilities = gqa_output_reshape(out), gqa_output_reshape(probabilities)
        more = [probabilities] * return_attn_probs + [dropout_mask] * return_dropout_mask
        if not more:
            return out
        ctx.mark_non_differentiable(*more)
        return (out, *more)

    @staticmethod
    def backward(ctx, grad, *_):
        """Gradients of ``q``, ``k`` and ``v``; the other inputs have none."""
        _check_training(ctx.inference_only, ctx.needs_input_grad[3])
        is_causal, dropout_p, scale, softmax_mode, grouped, recompute = ctx.settings
        q, k, v, out, *rest = ctx.saved_tensors
        if grouped:
            grad = grad.reshape(out.shape)
        if recompute:
            mask, *statistics = rest
            gradients = torch.ops.hpu.sdpa_recomp_bwd(
                grad, q, k, v, mask, *statistics, is_causal, dropout_p, scale, softmax_mode, out
            )
        else:
            gradients = torch.ops.hpu.sdpa_bwd(
                grad, q, k, v, *rest, is_causal, dropout_p, scale, out
            )
        if grouped:
            gradients = tuple(gqa_output_reshape(gradient) for gradient in gradients)
        return (*gradients, *[None] * 12)

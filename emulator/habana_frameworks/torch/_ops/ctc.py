"""``hpu::ctc_loss_custom``: connectionist temporal classification, with its gradient.

Schemas: scripts/hpu_op.yaml of HabanaAI/gaudi-pytorch-bridge. The numbers are those of
``torch.nn.functional.ctc_loss``.
"""

import torch

from .library import device_kernel, operator

__all__ = ["ctc_loss_custom", "ctc_loss_custom_backward"]

_NONE, _MEAN = 0, 1

_HEAD = "Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths"
_TAIL = "int blank, int reduction, bool zero_infinity"


def _batched(log_probs, input_lengths, target_lengths):
    """A single sequence ``[time, classes]`` as a batch of one."""
    if log_probs.dim() == 3:
        return log_probs, input_lengths, target_lengths
    return log_probs.unsqueeze(1), input_lengths.reshape(1), target_lengths.reshape(1)


@device_kernel(f"ctc_loss({_HEAD}, {_TAIL}) -> (Tensor, Tensor)")
def _loss(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity):
    single = log_probs.dim() == 2
    log_probs, inputs, lengths = _batched(log_probs, input_lengths, target_lengths)
    if single:
        targets = targets.reshape(1, -1)
    loss, alpha = torch._ctc_loss(log_probs, targets, inputs, lengths, blank, zero_infinity)
    if zero_infinity:
        loss = loss.masked_fill(loss == torch.inf, 0.0)
    if reduction == _MEAN:
        return (loss / lengths.clamp(min=1)).mean(), alpha
    if reduction == _NONE:
        return (loss.squeeze(0).clone() if single else loss), alpha
    return loss.sum(), alpha


@device_kernel(f"ctc_loss_backward(Tensor grad, {_HEAD}, {_TAIL}) -> Tensor")
def _loss_backward(
    grad, log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity
):
    single = log_probs.dim() == 2
    log_probs, inputs, lengths = _batched(log_probs, input_lengths, target_lengths)
    if single:
        targets = targets.reshape(1, -1)
    loss, alpha = torch._ctc_loss(log_probs, targets, inputs, lengths, blank, zero_infinity)
    each = grad.expand(log_probs.shape[1]).to(log_probs.dtype)
    if reduction == _MEAN:
        each = each / (lengths.clamp(min=1) * log_probs.shape[1])
    result = torch.ops.aten._ctc_loss_backward(
        each.contiguous(),
        log_probs,
        targets,
        inputs.tolist(),
        lengths.tolist(),
        loss,
        alpha,
        blank,
        zero_infinity,
    )
    return result.squeeze(1).clone() if single else result


def _fake(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity):
    batch = log_probs.shape[1] if log_probs.dim() == 3 else 1
    loss = log_probs.new_empty(target_lengths.shape if reduction == _NONE else ())
    states = 2 * targets.shape[-1] + 1
    return loss, log_probs.new_empty((batch, log_probs.shape[0], states))


@operator(f"ctc_loss_custom({_HEAD}, {_TAIL}) -> (Tensor, Tensor)", _fake)
def ctc_loss_custom(
    log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity
) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative log likelihood of ``targets``.

    Args:
        log_probs: float32 ``[time, batch, classes]`` or ``[time, classes]``.
        targets: int ``[batch, length]``, or all sequences in one dimension.
        input_lengths, target_lengths: int64 ``[batch]`` (or scalars).
        blank: the class that stands for nothing.
        reduction: 0 none, 1 mean over targets and batch, 2 sum.
        zero_infinity: impossible alignments count as 0.

    Returns:
        the loss, and the forward variables ``[batch, time, states]``.
    """
    return torch.ops.gaudi_kernel.ctc_loss(
        log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity
    )


def _fake_backward(
    grad,
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    neg_log_likelihood,
    log_alpha,
    blank,
    reduction,
    zero_infinity,
):
    return torch.empty_like(log_probs)


@operator(
    f"ctc_loss_custom_backward(Tensor grad, {_HEAD}, Tensor neg_log_likelihood, Tensor log_alpha,"
    f" {_TAIL}) -> Tensor",
    _fake_backward,
)
def ctc_loss_custom_backward(
    grad,
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    neg_log_likelihood,
    log_alpha,
    blank,
    reduction,
    zero_infinity,
) -> torch.Tensor:
    """Gradient of :func:`ctc_loss_custom` with respect to ``log_probs``, in its shape.

    The forward variables are computed again, since a reduced loss does not give them back.
    """
    return torch.ops.gaudi_kernel.ctc_loss_backward(
        grad, log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity
    )

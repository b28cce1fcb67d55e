"""``hpu::mamba_pscan`` and ``hpu::mamba_pscan_update``: the selective scan of Mamba.

Schemas and result shapes: scripts/hpu_op.yaml and hpu_ops of HabanaAI/gaudi-pytorch-bridge (newer
public commit). The bridge has no test of them; layouts are those in which programs for Gaudi call
the same kernels as custom operators, the mathematics is Mamba's ("Mamba: Linear-Time Sequence
Modeling with Selective State Spaces", section 2).
"""

import torch

from .library import device_kernel, operator

__all__ = ["mamba_pscan", "mamba_pscan_update"]


@device_kernel("selective_scan(Tensor state, Tensor x, Tensor dt, Tensor A, Tensor B) -> Tensor")
def _scan(
    state: torch.Tensor, x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor
) -> torch.Tensor:
    wide = torch.float32
    decay = torch.exp(A.to(wide) * dt.to(wide))
    step = dt.to(wide) * B.to(wide) * x.to(wide)
    current = state.to(wide)[:, 0]
    states = []
    for position in range(x.shape[1]):
        current = decay[:, position] * current + step[:, position]
        states.append(current)
    shape = [x.shape[0], x.shape[1], state.shape[-2], x.shape[-1]]
    return torch.stack(states, dim=1).to(state.dtype) if states else state.new_empty(shape)


def _fake_scan(state, x, dt, A, B):
    if x.dim() < 2 or state.dim() < 2:
        raise IndexError("in_x and state dim cannot be less than 2.")
    return state.new_empty([*x.shape[:-2], state.shape[-2], x.shape[-1]])


@operator(
    "mamba_pscan(Tensor state, Tensor x, Tensor dt, Tensor A, Tensor B) -> Tensor", _fake_scan
)
def mamba_pscan(
    state: torch.Tensor, x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor
) -> torch.Tensor:
    """All states of ``h[t] = exp(A * dt[t]) * h[t-1] + dt[t] * B[t] * x[t]``.

    Args:
        state: ``[batch, 1, states, channels]``, before the first position.
        x, dt: ``[batch, positions, 1, channels]``.
        A: ``[1, 1, states, channels]``.
        B: ``[batch, positions, states, 1]``.

    Returns:
        ``[batch, positions, states, channels]`` in the dtype of ``state``; computed in float32.
    """
    if any(t.dim() != 4 for t in (state, x, dt, A, B)):
        raise ValueError("mamba_pscan: every argument must have 4 dimensions, see its docstring")
    return _scan(state, x, dt, A, B)


def _fake_update(state, x, C, D, z):
    return torch.empty_like(x)


@operator(
    "mamba_pscan_update(Tensor state, Tensor x, Tensor C, Tensor D, Tensor z) -> Tensor",
    _fake_update,
)
def mamba_pscan_update(
    state: torch.Tensor, x: torch.Tensor, C: torch.Tensor, D: torch.Tensor, z: torch.Tensor
) -> torch.Tensor:
    """The output of every position: ``(sum(C * state) + D * x) * silu(z)``.

    Args:
        state: ``[batch, positions, states, channels]``, as :func:`mamba_pscan` returns it.
        x, z: ``[batch, positions, 1, channels]``.
        C: ``[batch, positions, states, 1]``.
        D: ``[1, 1, 1, channels]``.

    Returns:
        the shape and dtype of ``x``; computed in float32.
    """
    wide = torch.float32
    out = (state.to(wide) * C.to(wide)).sum(dim=-2, keepdim=True) + D.to(wide) * x.to(wide)
    return (out * torch.nn.functional.silu(z.to(wide))).to(x.dtype)

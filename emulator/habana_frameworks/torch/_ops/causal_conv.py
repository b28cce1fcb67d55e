"""``hpu::causal_conv1d_fwd`` and ``hpu::causal_conv1d_update``: a short convolution over positions.

Names and order of the arguments, and the mathematics: the tests of HabanaAI/gaudi-pytorch-bridge
(newer public commit), whose schema file does not list them; defaults are what the tests omit.
"""

import torch

from .library import device_kernel, operator

__all__ = ["causal_conv1d_fwd", "causal_conv1d_update"]


def _check(x: torch.Tensor, conv_state: torch.Tensor, weight: torch.Tensor) -> None:
    expected = (conv_state.shape[1] + 1, x.shape[-1])
    if tuple(weight.shape) != expected or conv_state.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"causal_conv1d: weight must be [state length + 1, channels] = {list(expected)}, and "
            f"conv_state [lines, state length, channels]; got {list(weight.shape)} and "
            f"{list(conv_state.shape)}"
        )


def _sequence(
    x: torch.Tensor,
    state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One or more sequences ``[..., positions, channels]`` and their last positions, float32."""
    width, positions = weight.shape[0], x.shape[-2]
    padded = torch.cat((state, x), dim=-2)
    out = padded[..., :positions, :] * weight[0]
    for tap in range(1, width):
        out = out + padded[..., tap : tap + positions, :] * weight[tap]
    if bias is not None:
        out = out + bias
    return (torch.nn.functional.silu(out) if activation else out), padded[..., positions:, :]


def _wide(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(torch.float32)


@device_kernel(
    "causal_conv(Tensor x, Tensor conv_state, Tensor weight, Tensor? bias,"
    " Tensor has_initial_state, Tensor query_start_loc, Tensor cache_indices, bool activation,"
    " int pad_slot_id) -> (Tensor, Tensor)"
)
def _ragged(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    has_initial_state: torch.Tensor,
    query_start_loc: torch.Tensor,
    cache_indices: torch.Tensor,
    activation: bool,
    pad_slot_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.zeros(x.shape, dtype=torch.float32)
    states = conv_state.to(torch.float32, copy=True)
    values, taps, offset = x.to(torch.float32), weight.to(torch.float32), _wide(bias)
    starts = query_start_loc.tolist()
    rows = zip(cache_indices.tolist(), has_initial_state.tolist(), strict=True)
    for index, (line, has_state) in enumerate(rows):
        if line == pad_slot_id:
            continue
        own = slice(starts[index], starts[index + 1])
        state = states[line] if has_state else torch.zeros_like(states[line])
        out[own], states[line] = _sequence(values[own], state, taps, offset, activation)
    return out.to(x.dtype), states.to(conv_state.dtype)


def _fake(x, conv_state, *args, **kwargs):
    return torch.empty_like(x), torch.empty_like(conv_state)


@operator(
    "causal_conv1d_fwd(Tensor x, Tensor conv_state, Tensor weight, Tensor? bias,"
    " Tensor has_initial_state, Tensor query_start_loc, Tensor cache_indices,"
    " bool activation=False, int pad_slot_id=-1) -> (Tensor, Tensor)",
    _fake,
)
def causal_conv1d_fwd(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    has_initial_state: torch.Tensor,
    query_start_loc: torch.Tensor,
    cache_indices: torch.Tensor,
    activation: bool = False,
    pad_slot_id: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences one after the other, each with a line of the cache.

    Args:
        x: ``[all positions, channels]``.
        conv_state: ``[lines, width - 1, channels]``, the positions before.
        weight: ``[width, channels]``.
        bias: ``[channels]``.
        has_initial_state: ``[sequences]``, 0: what is before the sequence counts as zero.
        query_start_loc: int ``[sequences + 1]``, where each sequence begins.
        cache_indices: int ``[sequences]``, its line; ``pad_slot_id``: no sequence, result zero.
        activation: apply SiLU.

    Returns:
        the result, and a copy of ``conv_state`` with the last positions of each sequence.
    """
    _check(x, conv_state, weight)
    return _ragged(
        x,
        conv_state,
        weight,
        bias,
        has_initial_state,
        query_start_loc,
        cache_indices,
        activation,
        pad_slot_id,
    )


@operator(
    "causal_conv1d_update(Tensor x, Tensor conv_state, Tensor weight, Tensor? bias,"
    " bool activation=False, int pad_slot_id=-1) -> (Tensor, Tensor)",
    _fake,
)
def causal_conv1d_update(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: bool = False,
    pad_slot_id: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A few more positions of each sequence.

    Args:
        x: ``[sequences, positions, channels]``.
        conv_state: ``[sequences, width - 1, channels]``, the positions before.
        weight, bias, activation: as of :func:`causal_conv1d_fwd`.
        pad_slot_id: has no meaning without indices.

    Returns:
        the result in the shape of ``x``, and the new ``conv_state``.
    """
    _check(x, conv_state, weight)
    out, state = _sequence(
        x.to(torch.float32),
        conv_state.to(torch.float32),
        weight.to(torch.float32),
        _wide(bias),
        activation,
    )
    return out.to(x.dtype), state.to(conv_state.dtype)

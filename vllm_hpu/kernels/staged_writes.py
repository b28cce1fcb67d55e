"""Staged writes: changes of request state collected on the host, applied once per step.

Methods that replace those of vLLM's `StagedWriteTensor`, `FusedStagedWriter` and
`UvaBackedTensor`. vLLM sends four arrays per tensor to the device and lets the kernel work out
where each value goes. Here the host, which knows it anyway, works it out. A write is copied to its
place, without a launch. Tensors that get many short ones in a step (`scatter_many`) have them
scattered, in pieces of one size: one graph.
"""

from collections.abc import Sequence

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.buffer_utils import FusedStagedWriter, StagedWriteTensor, UvaBackedTensor

from vllm_hpu.device.own_graph import own_graph

_FEW = 8
"""Writes that are copied rather than scattered: a copy costs less than a launch."""

_PIECE = 1024
"""Values of a scatter."""

# Attributes that vLLM's classes do not declare.
_SENT, _SCATTERED = "_hpu_sent", "_hpu_scattered"


def scatter_many(tensor: StagedWriteTensor) -> None:
    """Scatter the tensor's writes when there are many in a step."""
    vars(tensor)[_SCATTERED] = True


def apply_write(self: StagedWriteTensor) -> None:
    """Write the staged values to `self.gpu` and forget them.

    Replaces `StagedWriteTensor.apply_write`. `self.gpu` is a contiguous tensor of one or more
    dimensions, int32, int64 or float32. Write i stores its values at row indices[i], from column
    starts[i] on; no two writes of a step may overlap.
    """
    if not self._staged_write_indices:
        return
    pieces = -(-len(self._staged_write_contents) // _PIECE)
    if len(self._staged_write_indices) <= _FEW * pieces or _SCATTERED not in vars(self):
        _copy_each(self)
        self.clear_staged_writes()
        return
    places, values = _places(self), _values(self)
    self.clear_staged_writes()
    for start in range(0, len(places), _PIECE):
        scatter(self, places[start : start + _PIECE], values[start : start + _PIECE])


def scatter(tensor: StagedWriteTensor, places: np.ndarray, values: np.ndarray) -> None:
    """Write 1 to ``_PIECE`` values, integers or the bits of float32, to flat places, all int64."""
    # The rest repeats the last write, which changes nothing.
    pairs = np.empty((2, _PIECE), dtype=np.int64)
    for target, source in zip(pairs, (places, values), strict=True):
        target[: len(places)] = source
        target[len(places) :] = source[-1]
    with own_graph():
        sent = async_tensor_h2d(pairs, device=tensor.gpu.device)
        new = sent[1]
        # float32 travels as its bits.
        new = new.to(torch.int32).view(torch.float32) if tensor.dtype.is_floating_point else new
        tensor.gpu.view(-1).index_copy_(0, sent[0], new.to(tensor.dtype))


def _copy_each(tensor: StagedWriteTensor) -> None:
    """Copy every write to its place, in their order."""
    flat, begin = tensor.gpu.view(-1), 0
    writes = zip(
        tensor._staged_write_indices,
        tensor._staged_write_starts,
        tensor._staged_write_cu_lens,
        strict=True,
    )
    for index, start, end in writes:
        place = index * tensor.gpu.stride(0) + int(start)
        values = tensor._staged_write_contents[begin:end]
        async_tensor_h2d(values, out=flat[place : place + end - begin])
        begin = end


def copy_to_device(self: UvaBackedTensor, n: int | None = None) -> torch.Tensor:
    """Send what the host changed. Replaces `UvaBackedTensor.copy_to_uva`.

    vLLM's goes round several buffers; a captured graph needs one that stays, and the stream orders
    its writes with its readers. Nothing is sent when nothing has changed. Returns the tensor, or
    its first `n` rows.
    """
    sent = vars(self).get(_SENT)
    if sent is None or not np.array_equal(sent, self.np):
        values = self.np.copy()
        vars(self)[_SENT] = values
        self.gpu.copy_(torch.from_numpy(values), non_blocking=True)
    return self.gpu if n is None else self.gpu[:n]


def _places(tensor: StagedWriteTensor) -> np.ndarray:
    """Flat index of each staged value, [values] int64."""
    ends = np.asarray(tensor._staged_write_cu_lens, dtype=np.int64)
    lengths = np.diff(ends, prepend=0)
    first = np.asarray(tensor._staged_write_indices, dtype=np.int64) * tensor.gpu.stride(0)
    first += np.asarray(tensor._staged_write_starts, dtype=np.int64)
    # Value j of write i stands at first[i] + (j - start of write i among the values).
    return np.repeat(first - (ends - lengths), lengths) + np.arange(ends[-1])


def _values(tensor: StagedWriteTensor) -> np.ndarray:
    """The staged values as integers: themselves, or the bits of a float32."""
    contents = tensor._staged_write_contents
    if tensor.dtype.is_floating_point:
        return np.asarray(contents, dtype=np.float32).view(np.int32)
    return np.asarray(contents, dtype=np.int64)


def apply_all(
    self: FusedStagedWriter,
    tensors: Sequence[StagedWriteTensor],
    output_ptrs: torch.Tensor,
    output_strides: torch.Tensor,
) -> None:
    """Apply the staged writes of several tensors. Replaces `FusedStagedWriter.apply`.

    The raw pointers and strides have no use here.
    """
    for tensor in tensors:
        tensor.apply_write()

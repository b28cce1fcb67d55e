"""Collectives between cards over HCCL, behind vLLM's communicator interface.

HCCL takes even shapes and contiguous tensors (Intel Gaudi documentation, "HCCL API"); the uneven
forms that data parallelism needs are padded to the largest rank. All sizes are host integers, so a
step of a given plan always issues the same collectives.
"""

from typing import Any

import torch
from torch import distributed as dist
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase

__all__ = ["HpuCommunicator"]

_ALL2ALL_BACKENDS = (None, "naive", "allgather_reducescatter")


class HpuCommunicator(DeviceCommunicatorBase):
    """Communicator of one group of ranks; broadcast, send and recv are the base class's.

    With expert parallelism over data-parallel ranks, experts see all ranks' tokens by all-gather
    and their results come back by reduce-scatter.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.use_all2all:
            return
        if self.all2all_backend not in _ALL2ALL_BACKENDS:
            raise ValueError(
                f"--all2all-backend {self.all2all_backend} needs NVIDIA or AMD libraries. "
                f"On Gaudi use allgather_reducescatter."
            )
        from vllm.distributed.device_communicators.all2all import AgRsAll2AllManager

        self.all2all_manager = AgRsAll2AllManager(self.cpu_group)

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in a new tensor.

        vLLM wraps this in an operator that is declared to change nothing, so the input must
        survive: a compiled region may use it again.
        """
        total = input_.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.device_group)
        return total

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """The ranks' tensors (all of one shape) side by side along ``dim``."""
        if self.world_size == 1:
            return input_
        dim %= input_.dim()
        everything = self._gather_first(input_)
        if dim == 0:
            return everything
        # [ranks · n, ...] -> the ranks' parts along dim.
        return torch.cat(everything.chunk(self.world_size), dim=dim)

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """As :meth:`all_gather` on rank ``dst`` of the group, else None; HCCL has no gather."""
        everything = self.all_gather(input_, dim)
        return everything if self.rank_in_group == dst else None

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """This rank's equal share along ``dim`` of the sum over all ranks."""
        return self.reduce_scatterv(input_, dim)

    def all_gatherv(
        self,
        input_: torch.Tensor | list[torch.Tensor],
        dim: int = 0,
        sizes: list[int] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """The ranks' tensors one after the other along dimension 0.

        Args:
            input_: ``[sizes[rank], ...]``, or a list of such tensors.
            dim: only 0.
            sizes: rows of each rank; None: all have as many as this one.

        Returns:
            ``[sum(sizes), ...]``, or a list of such tensors.
        """
        if dim != 0:
            raise NotImplementedError(f"all_gatherv works along dimension 0, not {dim}")
        if isinstance(input_, list):
            return [self._all_gatherv(tensor, sizes) for tensor in input_]
        return self._all_gatherv(input_, sizes)

    def _all_gatherv(self, input_: torch.Tensor, sizes: list[int] | None) -> torch.Tensor:
        if sizes is None or len(set(sizes)) == 1:
            return self._gather_first(input_)
        self._check_sizes(sizes)
        if input_.shape[0] != sizes[self.rank_in_group]:
            raise ValueError(
                f"Rank {self.rank_in_group} brings {input_.shape[0]} rows to all_gatherv, but "
                f"the sizes are {sizes}"
            )
        padded = self._gather_first(_pad_rows(input_, max(sizes)))
        parts = padded.chunk(self.world_size)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def reduce_scatterv(
        self, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None
    ) -> torch.Tensor:
        """This rank's share along ``dim`` of the sum over all ranks.

        Args:
            input_: the same shape on all ranks.
            dim: the dimension that is shared out.
            sizes: extent of each rank's share; None: equal shares.
        """
        if self.world_size == 1:
            return input_
        rows = input_.movedim(dim, 0)
        if sizes is None or len(set(sizes)) == 1:
            if rows.shape[0] % self.world_size:
                raise ValueError(
                    f"reduce_scatter cannot share {rows.shape[0]} rows equally among "
                    f"{self.world_size} ranks; give sizes"
                )
            share = rows.shape[0] // self.world_size
            return self._reduce_scatter_first(rows, share).movedim(0, dim).contiguous()
        self._check_sizes(sizes)
        if rows.shape[0] != sum(sizes):
            raise ValueError(
                f"reduce_scatterv got {rows.shape[0]} rows, but the sizes {sizes} sum to "
                f"{sum(sizes)}"
            )
        largest = max(sizes)
        padded = torch.cat([_pad_rows(part, largest) for part in rows.split(sizes)])
        mine = self._reduce_scatter_first(padded, largest)[: sizes[self.rank_in_group]]
        return mine.movedim(0, dim).contiguous()

    def _gather_first(self, input_: torch.Tensor) -> torch.Tensor:
        """``[n, ...]`` of every rank -> ``[ranks · n, ...]``."""
        everything = input_.new_empty((self.world_size * input_.shape[0], *input_.shape[1:]))
        dist.all_gather_into_tensor(everything, input_.contiguous(), group=self.device_group)
        return everything

    def _reduce_scatter_first(self, rows: torch.Tensor, share: int) -> torch.Tensor:
        """``[ranks · share, ...]`` of every rank -> the sum's ``[share, ...]`` of this rank."""
        mine = rows.new_empty((share, *rows.shape[1:]))
        dist.reduce_scatter_tensor(mine, rows.contiguous(), group=self.device_group)
        return mine

    def _check_sizes(self, sizes: list[int]) -> None:
        if len(sizes) != self.world_size:
            raise ValueError(f"{len(sizes)} sizes {sizes} for a group of {self.world_size} ranks")

    def _manager(self) -> Any:
        if self.all2all_manager is None:
            raise RuntimeError(
                "Tokens must be exchanged between expert-parallel ranks, but the group "
                f"'{self.unique_name}' was made without an all-to-all manager."
            )
        return self.all2all_manager

    def dispatch_router_logits(
        self,
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        is_sequence_parallel: bool = False,
        extra_tensors: list[torch.Tensor] | None = None,
    ) -> Any:
        """All ranks' ``hidden_states`` and ``router_logits`` (and extras), rank after rank."""
        return self._manager().dispatch_router_logits(
            hidden_states, router_logits, is_sequence_parallel, extra_tensors
        )

    def dispatch(
        self,
        hidden_states: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        is_sequence_parallel: bool = False,
        extra_tensors: list[torch.Tensor] | None = None,
    ) -> Any:
        """All ranks' ``hidden_states``, weights and expert ids (and extras), rank after rank."""
        return self._manager().dispatch(
            hidden_states, topk_weights, topk_ids, is_sequence_parallel, extra_tensors
        )

    def combine(
        self, hidden_states: torch.Tensor, is_sequence_parallel: bool = False
    ) -> torch.Tensor:
        """The sum over ranks of the experts' results, this rank's tokens of it."""
        return self._manager().combine(hidden_states, is_sequence_parallel)


def _pad_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """``[n, ...]`` with zeros appended up to ``[count, ...]``."""
    missing = count - rows.shape[0]
    if missing == 0:
        return rows
    return torch.cat((rows, rows.new_zeros((missing, *rows.shape[1:]))))

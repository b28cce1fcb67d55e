"""Counting the operators of graphs that ``hpu_backend`` compiles.

Names: python_packages/habana_frameworks/torch/utils/debug/dynamo_utils.py of
HabanaAI/gaudi-pytorch-bridge.
"""

import dataclasses
from types import TracebackType

import torch
from torch import fx

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.dynamo.compile_backend import node_log

__all__ = ["FxGraphAnalyzer"]


@dataclasses.dataclass
class _Count:
    """How often an operator of one graph is part of the recipe, and how often it is not."""

    graph_count: int = 0
    eager_count: int = 0


def _is_on_device(value: object) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(v, torch.Tensor) and v.device.type == "hpu" for v in values)


class FxGraphAnalyzer:
    """Counts operators of every graph compiled inside a ``with`` block.

    Args:
        reset_dynamo: forget compiled code at the block's start, so that all is compiled again.
        capture_non_hpu_output: count operators whose result is not on the device, too.
    """

    OpCount = _Count

    def __init__(self, reset_dynamo: bool = False, capture_non_hpu_output: bool = False) -> None:
        self.reset_dynamo = reset_dynamo
        self.capture_non_hpu_output = capture_non_hpu_output
        self.graphs: list[dict[str, _Count]] = []
        self.partition_num = 0

    def __enter__(self) -> "FxGraphAnalyzer":
        node_log.analyzers.append(self)
        if self.reset_dynamo:
            torch._dynamo.reset()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        node_log.analyzers.remove(self)

    def count_ops(self, module: fx.GraphModule) -> None:
        """Add one graph; the backend calls this."""
        counts: dict[str, _Count] = {}
        for node in node_log.operators(module):
            if not self.capture_non_hpu_output and not _is_on_device(node.meta.get("val")):
                continue
            count = counts.setdefault(node._pretty_print_target(node.target), _Count())
            if node_log.is_fallback(node):
                count.eager_count += 1
            else:
                count.graph_count += 1
        self.graphs.append(counts)
        self.partition_num += any(count.graph_count for count in counts.values())

    def get_ops_summary(self) -> list[dict[str, _Count]]:
        """Counts by operator (such as ``torch.ops.aten.add.Tensor``), a dictionary per graph."""
        return self.graphs

    def get_partition_num(self) -> int:
        """Recipes so far: one per graph with an operator on the device."""
        return self.partition_num


__getattr__ = refuse(__name__)

"""``hpu_backend``: what ``torch.compile(..., backend="hpu_backend")`` calls.

On the card the captured graph becomes a recipe, compiled for exact shapes and launched as one.
Here the graph's operators run one after the other on the device, inside one launch region, so
that the device counts one launch; every recipe that a card would compile is counted and timed.
Where possible, the first call is recorded and later ones run without Python (:mod:`.recording`).
Names and options: python_packages/habana_frameworks/torch/dynamo of HabanaAI/gaudi-pytorch-bridge.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_compiler
from torch._dynamo.backends.common import aot_autograd
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.graph import _BoxedCodeGen

from habana_frameworks.torch._device import enter_region, exit_region, recipes
from habana_frameworks.torch.internal import bridge_config
from habana_frameworks.torch.utils.internal import is_lazy

from . import config, node_log
from .decomposition import decompositions
from .graph_text import describe
from .options import check_options
from .recording import recorded

__all__ = ["hpu_backend"]

KIND = "hpu_backend"
"""The kind under which the device counts these compilations."""

_serial = itertools.count()


def _describe(example_inputs: Sequence[Any]) -> str:
    """Shapes of the tensors and values of the numbers that a graph was traced with."""
    parts = [
        "x".join(str(size) for size in value.shape) or "scalar"
        if isinstance(value, torch.Tensor)
        else str(value)
        for value in example_inputs
    ]
    return ",".join(parts)


def _is_symbolic(example_inputs: Sequence[Any]) -> bool:
    """Whether the graph was traced for any size, so that one graph serves many shapes."""
    return any(isinstance(value, torch.SymInt) for value in example_inputs)


def _as_one_launch(run: Callable) -> Callable:
    def launch(*args: Any) -> Any:
        enter_region()
        try:
            return run(*args)
        finally:
            exit_region()

    return launch


def _per_shape(graph: str, name: str, operators: int) -> Callable[[Sequence[Any]], None]:
    """Get a recipe for every combination of sizes that is seen for the first time.

    A recipe has exact shapes; a graph traced with symbolic sizes is compiled again for each.
    """
    seen: set[tuple[int, ...]] = set()

    def obtain(args: Sequence[Any]) -> None:
        sizes = tuple(value for value in args if isinstance(value, int))
        if sizes not in seen:
            seen.add(sizes)
            text = ",".join(map(str, sizes))
            recipes.obtain(KIND, f"{graph}\nsizes {text}", f"{name}:{text}", operators)

    return obtain


def _get_recipe(
    module: torch.fx.GraphModule, example_inputs: Sequence[Any]
) -> Callable[[Sequence[Any]], None] | None:
    """Get the recipe of a graph; of a symbolic one, what gets a recipe for the inputs of a call."""
    if node_log.wanted():
        node_log.note(module)
    started = time.perf_counter_ns()
    name = f"graph_{next(_serial)}"
    # Dynamo's modules write their code at the first call; a `forward` taken before that is a detour
    # through torch.nn.Module at every call.
    _LazyGraphModule.force_recompile(module)
    graph = describe(module, example_inputs)
    operators = sum(node.op.startswith("call_") for node in module.graph.nodes)
    if _is_symbolic(example_inputs):
        return _per_shape(graph, name, operators)
    spent_us = (time.perf_counter_ns() - started) // 1000
    recipes.obtain(KIND, graph, f"{name}:{_describe(example_inputs)}", operators, spent_us)
    return None


def _compile(module: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable:
    """Turn one traced graph into a function of its inputs, with a recipe."""
    obtain = _get_recipe(module, example_inputs)
    run = _as_one_launch(module.forward)
    if obtain is None:
        return recorded(run, module)

    def launch(*args: Any) -> Any:
        obtain(args)
        return run(*args)

    return launch


def _compile_backward(module: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable:
    """Turn a backward graph into a function of the list of its inputs, with a recipe.

    The function empties the list: what the forward graph saved is freed after its last use. A
    recorded graph would hold its inputs until it has run.
    """
    module.graph.set_codegen(_BoxedCodeGen())
    module.recompile()
    obtain = _get_recipe(module, example_inputs)
    run = _as_one_launch(module.forward)

    def launch(args: list[Any]) -> Any:
        if obtain is not None:
            obtain(args)
        return run(args)

    launch._boxed_call = True  # type: ignore[attr-defined]
    return launch


def _needs_gradients(module: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> bool:
    if not torch.is_grad_enabled():
        return False
    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    return any(t.requires_grad for t in itertools.chain(tensors, module.parameters()))


def _names_streams(module: torch.fx.GraphModule) -> bool:
    """Whether the program waits for streams or events, or enters a stream."""
    return any(
        "stream" in node.meta.get("custom", {})
        or str(node.target).startswith("streams.")
        or isinstance(node.meta.get("example_value"), torch.Stream | torch.Event)
        for node in module.graph.nodes
    )


def _with_gradients(
    module: torch.fx.GraphModule, example_inputs: Sequence[Any], boxed: bool, **how: Any
) -> Callable:
    """Compile a graph and the one that computes its gradients.

    Args:
        module: the graph.
        example_inputs: its inputs.
        boxed: whether the backward graph frees its inputs as it goes.
        how: further arguments of AOTAutograd.
    """
    keeping = make_boxed_compiler(_compile)
    backward = _compile_backward if boxed else keeping
    return aot_autograd(fw_compiler=keeping, bw_compiler=backward, **how)(module, example_inputs)


def hpu_backend(
    module: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any
) -> Callable:
    """Compile a graph that Dynamo traced.

    Args:
        module: the traced graph.
        example_inputs: its inputs: tensors, and sizes where the graph is symbolic.
        kwargs: ``mode`` and ``options`` of ``torch.compile``, see :mod:`.options`.

    Returns:
        a function of the graph's inputs.

    Raises:
        RuntimeError: in lazy mode, or with PT_HPU_DISALLOW_TORCH_COMPILE set.
        ValueError: an unknown option.
    """
    if is_lazy():
        raise RuntimeError(
            "hpu_backend does not work in lazy mode: set PT_HPU_LAZY_MODE=0, or use "
            "habana_frameworks.torch.hpu.wrap_in_hpu_graph"
        )
    if bridge_config.get_pt_hpu_disallow_torch_compile():
        raise RuntimeError(
            "torch.compile is disallowed by PT_HPU_DISALLOW_TORCH_COMPILE; unset it, or do not "
            "compile"
        )
    check_options(kwargs)
    boxed = (kwargs.get("options") or {}).get("use_boxed_input", config.use_boxed_input)
    if node_log.wanted():
        return _with_gradients(module, example_inputs, boxed, decompositions=decompositions())
    # AOTAutograd of PyTorch 2.13 plans streams with figures of CUDA, and cannot split a graph that
    # waits in the middle. Such a graph is one recipe; its gradients are computed one by one.
    if _needs_gradients(module, example_inputs) and not _names_streams(module):
        return _with_gradients(module, example_inputs, boxed)
    return _compile(module, example_inputs)

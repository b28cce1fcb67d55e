"""HPU graphs: capture once, replay without Python.

API: python_packages/habana_frameworks/torch/hpu/graphs.py of HabanaAI/gaudi-pytorch-bridge and
docs.habana.ai, "Run inference using HPU graphs". As on the card they belong to the lazy mode.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch

from habana_frameworks.torch._device import DeviceGraph, data_ptr, synchronize
from habana_frameworks.torch._device import device_functions as _below
from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.core.step import mark_step
from habana_frameworks.torch.utils.internal import is_lazy

from .signature import signature_of, tensors_in

__all__ = [
    "HPUGraph",
    "ModuleCacher",
    "graph",
    "make_graphed_callables",
    "wrap_in_hpu_graph",
    "wrap_in_hpu_graph_func",
]


def _require_lazy(what: str) -> None:
    if not is_lazy():
        raise RuntimeError(
            f"{what} needs the lazy mode: set PT_HPU_LAZY_MODE=1 in the environment before "
            "habana_frameworks is imported, or use torch.compile(backend='hpu_backend')"
        )


def _copy_into(static: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> None:
    """Give a graph's inputs new contents; a tensor that is the input itself stays as it is."""
    if len(static) != len(new):
        raise ValueError(f"the graph has {len(static)} input tensors, got {len(new)}")
    for target, source in zip(static, new, strict=True):
        if target is source or (
            data_ptr(target) == data_ptr(source) and target.device == source.device
        ):
            continue
        target.copy_(source, non_blocking=True)


class HPUGraph:
    """A recorded sequence of device work."""

    def __init__(self) -> None:
        self.hpu_graph = DeviceGraph()
        self._inputs: list[torch.Tensor] = []
        self._outputs: list[torch.Tensor] = []

    def capture_begin(self, dry_run: bool = False) -> None:
        """Start to record what this thread runs on the device.

        Args:
            dry_run: the card would only record; the emulated device always executes while it
                records, so results are right with either value.

        Raises:
            RuntimeError: not in lazy mode, or this thread captures already.
        """
        _require_lazy("an HPU graph")
        self.hpu_graph.capture_begin()

    def capture_end(self) -> None:
        """Finish the recording; :meth:`replay` may follow."""
        self.hpu_graph.capture_end()

    def replay(self, asynchronous: bool = False) -> None:
        """Submit the recorded work to the current stream, on the tensors it was recorded with.

        The host does not wait for it, on the card as here (HPUGraph.cpp of the bridge).

        Args:
            asynchronous: on the card another thread of the host submits; no difference here.
        """
        self.hpu_graph.replay()

    def replayV2(
        self,
        static_tlist: Sequence[torch.Tensor],
        tlist: Sequence[torch.Tensor],
        asynchronous: bool = False,
    ) -> None:
        """Copy ``tlist`` into the recorded tensors ``static_tlist``, then replay."""
        _copy_into(static_tlist, tlist)
        self.replay(asynchronous)

    def replayV3(self, tlistI: Sequence[torch.Tensor], asynchronous: bool = False) -> None:
        """Copy ``tlistI`` into the tensors given to :meth:`mark_user_inputs`, then replay."""
        _copy_into(self._inputs, tlistI)
        self.replay(asynchronous)

    def mark_user_inputs(self, static_tlist: Sequence[torch.Tensor]) -> None:
        """Tell which recorded tensors :meth:`replayV3` replaces."""
        self._inputs = list(static_tlist)

    def mark_user_outputs(self, static_tlist: Sequence[torch.Tensor]) -> None:
        """Keep these results alive as long as the graph."""
        self._outputs = list(static_tlist)

    def get_user_input_match_indices(self) -> list[int]:
        """Positions of the marked inputs; every marked input is kept by the graph."""
        return list(range(len(self._inputs)))

    def clear_inputs(self) -> None:
        """Forget the marked inputs; :meth:`replayV3` needs new marks afterwards."""
        self._inputs = []

    def reset(self) -> None:
        """Free the recording and its memory."""
        self.hpu_graph.reset()
        self._inputs = []
        self._outputs = []


class graph(contextlib.AbstractContextManager):
    """``with torch.hpu.graph(g):`` captures the block into the :class:`HPUGraph` ``g``.

    Args:
        hpu_graph: takes the recording.
        stream: current stream inside the block; the default stream without it.
        dry_run: see :meth:`HPUGraph.capture_begin`.
    """

    def __init__(self, hpu_graph: HPUGraph, stream=None, dry_run: bool = False) -> None:
        self.hpu_graph = hpu_graph
        self.dry_run = dry_run
        self.capture_stream = stream if stream is not None else _below.default_stream()
        self._stream_context = _below.stream(self.capture_stream)

    def __enter__(self) -> None:
        synchronize()
        self._stream_context.__enter__()
        try:
            self.hpu_graph.capture_begin(self.dry_run)
        except BaseException:
            self._stream_context.__exit__(None, None, None)
            raise

    def __exit__(self, kind, value, traceback) -> None:
        try:
            if kind is None:
                self.hpu_graph.capture_end()
            else:
                self.hpu_graph.reset()
        finally:
            self._stream_context.__exit__(kind, value, traceback)


class _Captured(NamedTuple):
    """One graph of a wrapped module."""

    graph: HPUGraph
    inputs: list[torch.Tensor]
    outputs: Any


class _Cache:
    """The graphs of one wrapped function, by the signature of its inputs."""

    def __init__(
        self,
        function: Callable,
        asynchronous: bool,
        disable_tensor_cache: bool,
        dry_run: bool,
        max_graphs: int | None,
    ) -> None:
        forced = os.environ.get("PT_HPUGRAPH_DISABLE_TENSOR_CACHE")
        self.function = function
        self.asynchronous = asynchronous
        self.disable_tensor_cache = disable_tensor_cache if forced is None else forced == "1"
        self.dry_run = dry_run or self.disable_tensor_cache
        self.max_graphs = max_graphs
        self.graphs: dict[Hashable, _Captured] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        warmup_mode = kwargs.pop("warmup_mode", False)
        if kwargs.pop("bypass_hpu_graphs", False):
            return self.function(*args, **kwargs)
        key = signature_of((args, kwargs))
        captured = self.graphs.get(key)
        if captured is None:
            if self.max_graphs is not None and len(self.graphs) >= self.max_graphs:
                return self.function(*args, **kwargs)
            return self._capture(key, args, kwargs)
        if warmup_mode:
            mark_step()
            return captured.outputs
        _copy_into(captured.inputs, list(tensors_in((args, kwargs))))
        captured.graph.replay(self.asynchronous)
        return captured.outputs

    def _capture(self, key: Hashable, args: tuple, kwargs: dict) -> Any:
        inputs = list(tensors_in((args, kwargs)))
        for tensor in inputs:
            if tensor.device.type != "hpu":
                raise ValueError(
                    f"an HPU graph got an input on '{tensor.device}' of shape "
                    f"{tuple(tensor.shape)}: its present value would be baked into the graph. "
                    "Move it to 'hpu', or pass it as a Python value"
                )
        recording = HPUGraph()
        with graph(recording, dry_run=self.dry_run):
            outputs = self.function(*args, **kwargs)
        recording.mark_user_inputs(inputs)
        self.graphs[key] = _Captured(recording, inputs, outputs)
        return outputs

    def clear(self) -> None:
        self.graphs.clear()

    def clear_inputs(self) -> None:
        for captured in self.graphs.values():
            captured.graph.clear_inputs()


def wrap_in_hpu_graph_func(
    func: Callable,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
    max_graphs: int | None = None,
) -> Callable:
    """A function that runs ``func`` as HPU graphs; arguments as in :func:`wrap_in_hpu_graph`."""
    _require_lazy("wrap_in_hpu_graph_func")
    cache = _Cache(func, asynchronous, disable_tensor_cache, dry_run, max_graphs)

    @functools.wraps(func)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return cache(*args, **kwargs)

    return forward


def wrap_in_hpu_graph(
    module: torch.nn.Module,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
    max_graphs: int | None = None,
) -> torch.nn.Module:
    """Run a module's forward as HPU graphs, one per signature of its inputs.

    The first call with a signature captures (and returns its result); later calls copy their
    tensors into those of the first call and replay. Two consequences, on the card as here: the
    tensors of the first call are overwritten, and every replay returns the same output tensors.

    The wrapped forward takes two more keyword arguments: ``bypass_hpu_graphs=True`` runs the
    module as it is; ``warmup_mode=True`` returns the captured outputs without a replay, if the
    signature is known.

    Args:
        module: changed in place: ``forward`` is replaced, ``clear_cache()`` and
            ``clear_inputs()`` are added.
        asynchronous: see :meth:`HPUGraph.replay`.
        disable_tensor_cache: let the card free a graph's tensors between replays; the emulated
            graphs keep only inputs and outputs in any case. PT_HPUGRAPH_DISABLE_TENSOR_CACHE=0/1
            overrides it.
        dry_run: see :meth:`HPUGraph.capture_begin`.
        max_graphs: capture at most so many; further signatures run without a graph.

    Returns:
        ``module``.
    """
    _require_lazy("wrap_in_hpu_graph")
    original = module.forward
    cache = _Cache(original, asynchronous, disable_tensor_cache, dry_run, max_graphs)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return cache(*args, **kwargs)

    module.forward = forward
    module.clear_cache = cache.clear
    module.clear_inputs = cache.clear_inputs
    return module


class ModuleCacher:
    """``ModuleCacher()(model, ...)``: the older way to :func:`wrap_in_hpu_graph`, inference only.

    Source: docs.habana.ai, "HPU graphs for training"; arguments that concern training are refused.
    """

    def __call__(
        self,
        model: torch.nn.Module,
        inplace: bool = True,
        allow_unused_input: bool = False,
        asynchronous: bool = False,
        have_grad_accumulation: bool = False,
        verbose: bool = False,
        disable_tensor_cache: bool = False,
        dry_run: bool = False,
        max_graphs: int | None = None,
    ) -> torch.nn.Module:
        """Wrap ``model``; see :func:`wrap_in_hpu_graph` for the arguments of the same name."""
        if not inplace or have_grad_accumulation:
            raise NotImplementedError(
                "ModuleCacher: inplace=False and have_grad_accumulation are training features "
                "which the emulated bridge does not provide"
            )
        return wrap_in_hpu_graph(model, asynchronous, disable_tensor_cache, dry_run, max_graphs)


def make_graphed_callables(
    callables: Callable | tuple[Callable, ...],
    sample_args: tuple,
    warmups: int = 0,
    allow_unused_input: bool = False,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
) -> Callable | tuple[Callable, ...]:
    """Graphed versions of functions, captured with sample arguments; inference only.

    Args:
        callables: one function or module, or a tuple of them.
        sample_args: a tuple of tensors per callable (one tuple for one callable).
        warmups: times to run each before its capture.
        allow_unused_input: concerns gradients only, which there are none of.
        asynchronous, disable_tensor_cache, dry_run: as in :func:`wrap_in_hpu_graph`.

    Returns:
        functions of the same arguments, in the form that ``callables`` came in.
    """
    single = not isinstance(callables, tuple)
    functions: tuple = (callables,) if single else callables  # type: ignore[assignment]
    samples = (sample_args,) if single else sample_args
    graphed = []
    with torch.no_grad():
        for function, args in zip(functions, samples, strict=True):
            if any(t.requires_grad for t in tensors_in(args)):
                raise NotImplementedError(
                    "make_graphed_callables: graphs of a backward pass are not provided by the "
                    "emulated bridge; pass inputs that need no gradient"
                )
            for _ in range(warmups):
                function(*args)
            runner = wrap_in_hpu_graph_func(
                function.forward if isinstance(function, torch.nn.Module) else function,
                asynchronous,
                disable_tensor_cache,
                dry_run,
            )
            runner(*args)
            graphed.append(runner)
    return graphed[0] if single else tuple(graphed)


__getattr__ = refuse(__name__)

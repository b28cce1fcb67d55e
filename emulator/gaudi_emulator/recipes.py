"""Which graphs are compiled, which are known already, and what does a compilation cost?

A recipe is known by a hash of its graph, its device and the software. It is compiled once per
process, and not at all when the folder of recipes has it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

from . import graph_files
from .config import CompileTime
from .recipe_store import Recipe, RecipeStore

__all__ = ["forget", "hits", "obtain", "use_compile_time", "use_folder", "write_files"]

# Processes started from one that has emptied the folder must not empty it again.
_EMPTIED = "GAUDI_EMULATOR_RECIPES_EMPTIED"


class _State:
    """The recipes of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: set[str] = set()
        self.hits: dict[str, int] = {"memory": 0, "disk": 0}
        self.store: RecipeStore | None = None
        self.time = CompileTime(0.0, 0.0)
        self.environment = ""
        self.files = False


_state = _State()


def use_compile_time(device_name: str, compile_time: CompileTime) -> None:
    """Set what a compilation costs, and the device that recipes are for."""
    versions = [f"{name} {metadata.version(name)}" for name in ("gaudi-emulator", "torch")]
    _state.environment = "\n".join([device_name, *versions])
    _state.time = compile_time


def write_files(on: bool) -> None:
    """Whether every compilation writes its graph's file, see :mod:`.graph_files`."""
    _state.files = on


def use_folder(folder: str, empty_first: bool, limit_bytes: int) -> None:
    """Keep recipes in ``folder`` too, for later processes; "" keeps none.

    Args:
        folder: created when the first recipe is written.
        empty_first: delete the recipes of earlier runs. Of several processes of one run, the first
            does it: not those it starts, and of ranks (``RANK`` in the environment) number 0.
        limit_bytes: the oldest recipes go when all are larger.
    """
    _state.store = RecipeStore(Path(folder), limit_bytes) if folder else None
    if _state.store is None or not empty_first or os.environ.get(_EMPTIED) == folder:
        return
    if os.environ.get("RANK", "0") == "0":
        _state.store.clear()
    os.environ[_EMPTIED] = folder


def obtain(kind: str, graph: str, detail: str, operators: int, spent_us: int = 0) -> bool:
    """Make sure that a graph has a recipe.

    Args:
        kind: how the graph came about, such as "graph_capture".
        graph: a text that is equal for equal graphs.
        detail: a text for a person.
        operators: how many operators the graph has.
        spent_us: what it took already to come this far.

    Returns:
        whether it was compiled, which is counted and takes GAUDI_EMULATOR_COMPILE_SECONDS.
    """
    from . import _C

    content = "\n".join([_state.environment, kind, graph])
    key = hashlib.sha256(content.encode()).hexdigest()
    with _state.lock:
        if key in _state.known:
            _state.hits["memory"] += 1
            return False
        _state.known.add(key)
    store = _state.store
    if store is not None and _C.fault_point("recipe_read") == "corrupt":
        store.damage(key)
    if _on_disk(store, key):
        return False
    with nullcontext() if store is None else store.turn(key):
        if _on_disk(store, key):  # another process was first
            return False
        try:
            _C.fault_point("compile")
        except RuntimeError:
            with _state.lock:
                _state.known.discard(key)
            raise
        started = time.perf_counter_ns()
        time.sleep(_state.time.seconds + _state.time.per_operator * operators)
        microseconds = spent_us + (time.perf_counter_ns() - started) // 1000
        _C.note_compilation(kind, detail, microseconds)
        if _state.files:
            graph_files.write(kind, graph)
        if store is not None:
            store.save(Recipe(key, kind, detail, operators, microseconds))
    return True


def _on_disk(store: RecipeStore | None, key: str) -> bool:
    found = store is not None and store.load(key) is not None
    with _state.lock:
        _state.hits["disk"] += found
    return found


def hits() -> dict[str, int]:
    """How often a recipe was found instead of compiled: in "memory" or on "disk"."""
    with _state.lock:
        return dict(_state.hits)


def forget() -> None:
    """Forget the recipes of this process, as a new one would; those on disk stay."""
    with _state.lock:
        _state.known.clear()

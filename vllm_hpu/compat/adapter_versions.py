"""Let the prefix cache tell apart what was loaded under one adapter's name, one after the other.

Replaces: ``_gen_lora_extra_hash_keys`` of ``vllm.v1.core.kv_cache_utils`` (adds the adapter's
number and how often it was loaded anew), ``EngineCore.add_lora``, ``remove_lora`` and
``add_request`` (count that) and ``OpenAIServingModels.load_lora_adapter`` (loads once), each
calling the original.
Reason: the keys of cached blocks name an adapter and the folder it came from. Files that are
replaced there (``load_inplace``, as a training loop does) answer with the keys and values of the
old weights. Besides, a request that carries ``load_inplace`` has the worker read the files anew in
every step, so whatever is in them then ends up in its answer; here they are read as it arrives.
Unnecessary when: keys of cached blocks change with the weights of an adapter.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from pathlib import Path
from typing import Any

_loads: Counter[int] = Counter()
"""How often the adapter of a number was loaded anew or removed in this process."""


@functools.cache  # once per process
def install() -> None:
    """Replace the functions. Raises ImportError if they are not the known ones."""
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine.core import EngineCore

    from vllm_hpu import vllm_seams as seams

    seams.check(seams.ENGINE_SEAMS)
    keys = kv_cache_utils._gen_lora_extra_hash_keys
    add_adapter, remove_adapter = EngineCore.add_lora, EngineCore.remove_lora
    add = EngineCore.add_request
    load = OpenAIServingModels.load_lora_adapter

    @functools.wraps(keys)
    def lora_keys(request: Any) -> list[tuple[Any, ...]]:
        found = keys(request)
        if not found:
            return found
        number = request.lora_request.lora_int_id
        return [(*key, number, _loads[number]) for key in found]

    @functools.wraps(add_adapter)
    def add_lora(self: Any, lora_request: Any) -> bool:
        done = add_adapter(self, lora_request)
        if lora_request.load_inplace:
            _changed(self, lora_request.lora_int_id)
        return done

    @functools.wraps(remove_adapter)
    def remove_lora(self: Any, lora_id: int) -> bool:
        done = remove_adapter(self, lora_id)
        _changed(self, lora_id)
        return done

    @functools.wraps(add)
    def add_request(self: Any, request: Any, request_wave: int = 0) -> None:
        lora = request.lora_request
        if lora is not None and lora.load_inplace:
            now = self.scheduler.current_step, lora.lora_path, _files(lora.lora_path)
            loaded = self.__dict__.setdefault("hpu_loaded_adapters", {})
            # Requests that come together, before a step, do not each load the same files.
            if loaded.get(lora.lora_int_id) != now:
                self.add_lora(lora)
                loaded[lora.lora_int_id] = now
            request.lora_request = copy.copy(lora)
            request.lora_request.load_inplace = False
            _hash_again(request)
        add(self, request, request_wave)

    @functools.wraps(load)
    async def load_lora_adapter(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await load(self, request, *args, **kwargs)
        stored = self.lora_requests.get(request.lora_name)
        if stored is not None:
            # It has been loaded; requests with it are not to load it again.
            stored.load_inplace = False
        return answer

    utilities: Any = kv_cache_utils
    utilities._gen_lora_extra_hash_keys = lora_keys
    core: Any = EngineCore
    core.add_lora, core.remove_lora, core.add_request = add_lora, remove_lora, add_request
    serving: Any = OpenAIServingModels
    serving.load_lora_adapter = load_lora_adapter


def _changed(engine_core: Any, number: int) -> None:
    """From now on the adapter's weights are others, also for requests that have not started."""
    _loads[number] += 1
    scheduler = engine_core.scheduler
    running = {request.request_id for request in scheduler.running}
    for name, request in scheduler.requests.items():
        lora = request.lora_request
        if lora is not None and lora.lora_int_id == number and name not in running:
            _hash_again(request)


def _hash_again(request: Any) -> None:
    """Name the request's blocks anew, of which nothing has been computed."""
    if request.num_computed_tokens == 0:
        request.block_hashes.clear()
        request.update_block_hashes()


def _files(folder: str) -> tuple[tuple[str, int, int, int], ...]:
    """What tells versions of an adapter's files apart without reading them."""
    try:
        found = [(path.name, path.stat()) for path in sorted(Path(folder).iterdir())]
    except OSError:
        return ()  # the name of a repository
    return tuple((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found)

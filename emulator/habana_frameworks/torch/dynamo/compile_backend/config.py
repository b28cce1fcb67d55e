"""Settings of ``hpu_backend``, for the whole process; ``options`` of a call go before them.

Names, variables and defaults: python_packages/habana_frameworks/torch/dynamo/compile_backend/
config.py of HabanaAI/gaudi-pytorch-bridge. They steer how the card's compiler cuts and rewrites a
graph. The emulated backend runs every traced operator on the device, so that results and counts
are the same with any of them; values are kept, so that a program reads back what it set. With
``use_boxed_input`` (the default) a backward graph frees each input after its last use.
``config.patch(...)`` and the refusal of unknown names come from PyTorch's configuration modules.
"""

import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

from torch.utils._config_module import install_config_module

from habana_frameworks.torch.internal.flags import truthy


# PyTorch takes all values and classes above install_config_module for settings.
def _switch(variable: str, default: bool) -> bool:
    text = os.environ.get(variable, str(int(default)))
    if not truthy(text) and text.strip().lower() not in {"0", "false", "f", "no", "n", "off"}:
        raise ValueError(f"{variable}='{text}' is neither yes nor no; give 1 or 0")
    return truthy(text)


def _decomposition_mode() -> str:
    text = os.environ.get("PT_HPU_COMPILE_DECOMPOSITION_MODE", "habana").lower()
    if text not in ("habana", "core_aten", "none"):
        raise ValueError(
            f"PT_HPU_COMPILE_DECOMPOSITION_MODE='{text}' is not habana, core_aten or none"
        )
    return text


use_compiled_recipes = _switch("PT_HPU_COMPILE_USE_RECIPES", True)
decomposition_mode = _decomposition_mode()
keep_input_mutations = _switch("PT_HPU_KEEP_INPUT_MUTATIONS", True)
use_eager_fallback = _switch("PT_HPU_USE_EAGER_FALLBACK", True)
use_graph_freezing = _switch("PT_HPU_COMPILE_GRAPH_FREEZE", False)
discard_frozen_params = _switch("PT_HPU_COMPILE_DISCARD_FROZEN_PARAMS", False)
remove_unnecessary_clones = _switch("PT_HPU_COMPILE_REMOVE_UNNECESSARY_CLONES", True)
use_inplace_allreduce = _switch("PT_HPU_USE_INPLACE_COLLECTIVE", True)
use_inplace_index_copy = _switch("PT_HPU_USE_INPLACE_INDEX_COPY", True)
inference = _switch("PT_HPU_USE_INFERENCE_COMPILER", True)
enable_sfg = _switch("PT_HPU_ENABLE_SFG", False)
use_cpp_partitioner = _switch("PT_HPU_USE_CPP_PARTITIONER", True)
enable_allreduce_graph_split = _switch("PT_HPU_ENABLE_ALLREDUCE_GRAPH_SPLIT", True)
force_static_compile = _switch("PT_HPU_FORCE_STATIC_COMPILE", False)
reinplace_add = _switch("PT_HPU_REINPLACE_ADD", True)
reassign_full_copy = _switch("PT_HPU_REASSIGN_FULL_COPY", True)
reassign_copy_ = _switch("PT_HPU_REASSIGN_COPY_", True)
use_boxed_input = _switch("PT_HPU_USE_BOXED_INPUT", True)

install_config_module(sys.modules[__name__])


class _Flags(MutableMapping[str, Any]):
    """The settings as a mapping."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getitem__(self, name: str) -> Any:
        return self._module.get_config_copy()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"configuration_flags: '{name}' cannot be removed, only set")

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.get_config_copy())

    def __len__(self) -> int:
        return len(self._module.get_config_copy())


configuration_flags = _Flags(sys.modules[__name__])

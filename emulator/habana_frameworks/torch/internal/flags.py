"""The bridge's configuration flags: name, type, default, and whether a program may set them.

Source: scripts/env_flags.yaml of HabanaAI/gaudi-pytorch-bridge (newer public commit). Only flags
that users of inference set are listed; asking for another one raises.
"""

from typing import NamedTuple

__all__ = ["FLAGS", "Flag", "parse", "truthy"]

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})

FlagValue = bool | int | str


class Flag(NamedTuple):
    """One flag.

    Attributes:
        default: value when the variable is unset; its type is the flag's type.
        settable: whether ``set_<flag>`` and ``env_setting`` exist for it.
        honoured: whether it changes what the emulated bridge does. The others tune parts of the
            card's software that have no counterpart here; they are kept, so that a program reads
            back what it configured.
    """

    default: FlagValue
    settable: bool = False
    honoured: bool = False


FLAGS: dict[str, Flag] = {
    "PT_HPU_LAZY_MODE": Flag(0, honoured=True),
    "PT_COMPILE_ONLY_MODE": Flag(False, settable=True, honoured=True),
    "PT_HPU_ENABLE_LAZY_COLLECTIVES": Flag(False, honoured=True),
    "PT_HPU_DISALLOW_TORCH_COMPILE": Flag(False, settable=True, honoured=True),
    "PT_HPU_ENABLE_FUSED_SDPA_SINK": Flag(True, settable=True, honoured=True),
    "PT_HPU_ENABLE_CACHE_METRICS": Flag(False, settable=True, honoured=True),
    "PT_HPU_RECIPE_CACHE_CONFIG": Flag(",false,1024,false", honoured=True),
    "PT_HPU_RECIPE_CACHE_NFS_TIMEOUT_S": Flag(300),
    "PT_RECIPE_CACHE_IGNORE_VERSION": Flag(False),
    "PT_RECIPE_CACHE_DUMP_DEBUG": Flag(False),
    "PT_HPU_COMPILE_THREAD_POOL_SIZE": Flag(8),
    "PT_HPU_MAX_COMPOUND_OP_SIZE": Flag(2**63 - 1, honoured=True),
    "PT_HPU_LAZY_ACC_PAR_MODE": Flag(1),
    "PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES": Flag(False, settable=True),
    "PT_HPU_EAGER_PIPELINE_ENABLE": Flag(True),
    "PT_HPU_EAGER_COLLECTIVE_PIPELINE_ENABLE": Flag(True),
    "PT_HPU_ENABLE_EAGER_CACHE": Flag(False, settable=True),
    "PT_ENABLE_INT64_SUPPORT": Flag(False, settable=True, honoured=True),
    "PT_ENABLE_COMM_GROUP_CACHE": Flag(True),
    "PT_HPU_INITIAL_WORKSPACE_SIZE": Flag(0),
    "PT_HPU_POOL_STRATEGY": Flag(4),
    "PT_HPU_POOL_MEM_ACQUIRE_PERC": Flag(100),
    "PT_HPU_HUGE_PAGES_LIMIT_MB": Flag(0),
    "PT_HPU_PLACE_ON_CPU": Flag("", honoured=True),
    "PT_HPU_INFERENCE_MODE": Flag(False),
    "PT_HPU_MATMUL3D_2D_RESHAPE": Flag(False),
    "PT_HPU_ENABLE_H2D_SCALES": Flag(True, settable=True),
    "PT_HPU_H2D_TRIVIAL_SCALES_MODE": Flag(0, settable=True),
    "PT_HPU_MARK_NON_RECIPROCAL_CASTS": Flag(False, settable=True),
    "PT_HPU_STOCHASTIC_ROUNDING_MODE": Flag(1),
    "PT_HPU_GPU_MIGRATION": Flag(False),
    "PT_HPU_PRINT_DEVICE_CONFIG": Flag(False),
    "PT_HPU_GRAPH_DUMP_MODE": Flag("", settable=True),
    "PT_HPU_GRAPH_DUMP_FORMAT": Flag("pbtxt", settable=True),
    "PT_HPU_GRAPH_DUMP_PREFIX": Flag(".graph_dumps"),
    "PT_COMPILATION_STATS_PATH": Flag("", settable=True),
    "PT_RECIPE_TRACE_PATH": Flag(""),
    "PT_HPU_USE_JIT_FORK": Flag(True, settable=True),
}


def truthy(text: str) -> bool:
    """Whether a text means yes, as the bridge reads boolean variables."""
    return text.strip().lower() in _TRUE


def parse(name: str, text: str) -> FlagValue:
    """The value that ``text``, from the environment, gives the flag ``name``."""
    default = FLAGS[name].default
    if isinstance(default, bool):
        return truthy(text)
    if isinstance(default, int):
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError(f"{name}='{text}' is not an integer; correct or unset it") from None
    return text

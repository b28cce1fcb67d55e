"""The lazy mode's gathering of operators: PT_HPU_LAZY_MODE and PT_HPU_MAX_COMPOUND_OP_SIZE.

Source: scripts/env_flags.yaml and habana_lazy/hpu_stage_submission.h of
HabanaAI/gaudi-pytorch-bridge. The bridge compares the size without a sign, so that a negative one
is no limit.
"""

import gaudi_emulator

from ._device import lazy_graphs
from .internal import bridge_config
from .utils.internal import is_lazy

__all__ = ["follow_lazy_mode"]

_UNLIMITED = 2**63 - 1


def follow_lazy_mode() -> None:
    """Gather operators if the process has chosen the lazy mode and GAUDI_EMULATOR_LAZY_GRAPHS."""
    if is_lazy() and gaudi_emulator.activate().lazy_graphs:
        size = bridge_config.get_pt_hpu_max_compound_op_size()
        lazy_graphs.gather(size if size >= 0 else _UNLIMITED)

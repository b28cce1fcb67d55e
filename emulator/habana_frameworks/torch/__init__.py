"""The bridge between PyTorch and Gaudi; importing it makes the device ``hpu`` work.

Side effects, as with Intel's bridge: ``torch.hpu`` and tensors on ``hpu`` exist, the operators
``torch.ops.hpu.*`` are registered, ``torch.compile`` knows ``hpu_backend`` and
``torch.distributed`` knows ``hccl``.
"""

import habana_frameworks.autoload

# Before `import torch`, which would otherwise begin this import a second time.
habana_frameworks.autoload.is_loaded = True

import gaudi_emulator  # noqa: E402
import torch  # noqa: E402

gaudi_emulator.activate()

# The device must be active before the modules over it are imported; torch.hpu comes first, since
# the others ask for it.
from . import hpu  # noqa: E402, I001
from . import _ops, core, distributed, dynamo, hpex, internal, utils  # noqa: E402
from ._autocast import register as register_autocast  # noqa: E402
from ._compile_only import follow_flag  # noqa: E402
from ._lazy import follow_lazy_mode  # noqa: E402
from ._missing import refuse  # noqa: E402
from ._placement import follow_placement_flags  # noqa: E402
from ._recipes import use_recipe_cache  # noqa: E402

__all__ = ["core", "distributed", "dynamo", "hpex", "hpu", "internal", "torch", "utils"]

_REGISTERED = _ops

register_autocast()
follow_flag()
follow_placement_flags()
use_recipe_cache()
follow_lazy_mode()

__getattr__ = refuse(__name__)

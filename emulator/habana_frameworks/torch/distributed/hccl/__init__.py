"""The ``hccl`` backend of ``torch.distributed``, for tensors on ``hpu``.

Importing this package registers the backend, so that ``init_process_group("hccl")``,
``new_group(backend="hccl")`` and ``"cpu:gloo,hpu:hccl"`` work.
"""

from habana_frameworks.torch._missing import refuse

from . import collectives
from .backend import register
from .initialize import initialize_distributed_hpu

__all__ = ["collectives", "initialize_distributed_hpu"]

register()

__getattr__ = refuse(__name__)

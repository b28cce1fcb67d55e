"""Which operators of a traced graph leave the recipe, and the logger of that question.

Names: python_packages/habana_frameworks/torch/dynamo/compile_backend/shared_layer.py of
HabanaAI/gaudi-pytorch-bridge.
"""

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.dynamo.debug_utils.logger import get_compile_backend_logger

__all__ = ["hpu_fallback_op_list", "logger"]

hpu_fallback_op_list: set[str] = set()
"""Operators that run outside the recipe. The emulated device has none that must; the results of an
operator added here are the same."""

logger = get_compile_backend_logger()

__getattr__ = refuse(__name__)

"""The logger of the check whether an operator of a traced graph runs on the card."""

from habana_frameworks.torch._missing import refuse
from habana_frameworks.torch.dynamo.debug_utils.logger import get_compile_backend_logger

__all__ = ["logger"]

logger = get_compile_backend_logger()

__getattr__ = refuse(__name__)

"""All cases. Importing this module imports vLLM's launchers."""

from tests.oracle import (  # noqa: F401
    case_derived,
    case_features,
    case_inputs,
    case_logprobs,
    case_sampling,
    case_speculation,
    case_tables,
)
from tests.oracle.case import CASES

__all__ = ["CASES"]

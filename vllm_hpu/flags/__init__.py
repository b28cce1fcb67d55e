"""Every flag of vLLM's engine and what becomes of it here: data, one module per answer.

A flag is named as a field of vLLM's ``AsyncEngineArgs``, or, for a flag whose value is an object,
as ``config.field``. Tests compare the names with vLLM's own; docs/flags.md is made from them.
"""

from vllm_hpu.flags.flag import Flag, Verdict, flag_option
from vllm_hpu.flags.in_part import IN_PART
from vllm_hpu.flags.meaningless import MEANINGLESS
from vllm_hpu.flags.obeyed import OBEYED
from vllm_hpu.flags.refused import REFUSED

__all__ = ["FLAGS", "Flag", "Verdict", "flag_option"]

FLAGS: dict[str, Flag] = {flag.name: flag for flag in (*OBEYED, *IN_PART, *MEANINGLESS, *REFUSED)}

"""Hand the plugin's flags of ``vllm serve`` to the engine's configuration.

Replaces: ``EngineArgs.from_cli_args``; the original is called, and what the flags said is added to
``additional_config``.
Reason: a platform may add flags (``pre_register_and_update``), but parsed arguments that are not
fields of ``EngineArgs`` are dropped before a platform sees the configuration.
Unnecessary when: a platform is given the parsed arguments.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any


@functools.cache  # once per process
def install() -> None:
    """Replace the method. Raises ImportError if it is not the known one."""
    from vllm.engine.arg_utils import EngineArgs

    from vllm_hpu import vllm_seams as seams
    from vllm_hpu.options import given

    seams.check(seams.ARGUMENT_SEAMS)
    parsed = EngineArgs.from_cli_args.__func__  # type: ignore[attr-defined]  # a class method

    @functools.wraps(parsed)
    def from_cli_args(cls: type[EngineArgs], args: argparse.Namespace) -> EngineArgs:
        found: EngineArgs = parsed(cls, args)
        options = given(args)
        if options:
            found.additional_config = {**found.additional_config, **options}
        return found

    replaced: Any = EngineArgs
    replaced.from_cli_args = classmethod(from_cli_args)

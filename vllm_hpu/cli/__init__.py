"""The command ``vllm-hpu``: what can be asked without starting a server."""

import argparse
import sys
from collections.abc import Sequence

from vllm_hpu import __version__
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.planner import command as plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit status, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="vllm-hpu",
        description="Plan for vLLM on Intel Gaudi. No card is needed, and no weights are read.",
    )
    parser.add_argument("--version", action="version", version=f"vllm-hpu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ConfigurationError as error:
        print(f"vllm-hpu {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
    return 0

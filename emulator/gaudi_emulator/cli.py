"""The command ``gaudi-emulator``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

_EXAMPLES = """examples:
  gaudi-emulator report -- python step.py           run it, then report
  gaudi-emulator report --keep traces -- python step.py
  gaudi-emulator report traces                      report on a run of before
  gaudi-emulator report --card GAUDI2 trace.json    the same work on another card
"""


def _parser() -> argparse.ArgumentParser:
    from .roofline import PEAKS

    parser = argparse.ArgumentParser(
        prog="gaudi-emulator", description="An Intel Gaudi device for PyTorch, emulated."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="what a run launched, copied and compiled, and what a card is predicted to take",
        description="Summarise traces, or run a program and summarise what it did. Times of a card "
        "are predictions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("paths", nargs="*", type=Path, help="traces, or folders of traces")
    report.add_argument("--card", choices=sorted(PEAKS), help="predict for it; default: as traced")
    report.add_argument(
        "--launch-us", type=float, help="assumed for each launch; default: as traced"
    )
    report.add_argument("--top", type=int, default=15, help="rows of the table (%(default)s)")
    report.add_argument("--plot", type=Path, help="draw the prediction into this file (png, svg)")
    report.add_argument("--json", action="store_true", help="print JSON instead of tables")
    report.add_argument("--keep", type=Path, help="folder for the traces of a program that is run")
    return parser


def _report(options: argparse.Namespace, paths: Sequence[Path]) -> None:
    from . import report, trace_file
    from .roofline import peaks_of

    summary = trace_file.read(paths)
    if options.card is None and len(summary.devices) > 1:
        raise ValueError(f"the traces are of {' and '.join(summary.devices)}: choose with --card")
    launch_us = summary.launch_us if options.launch_us is None else options.launch_us
    peaks = peaks_of(options.card or next(iter(summary.devices)), launch_us)
    if options.plot is not None:
        report.plot(summary, peaks, options.top, options.plot)
    if options.json:
        print(json.dumps(report.as_json(summary, peaks), indent=1))
    else:
        print(report.as_text(summary, peaks, options.top))


def _run_and_report(options: argparse.Namespace, program: Sequence[str], folder: Path) -> int:
    if folder.is_dir() and any(folder.glob("trace-*.json")):
        raise ValueError(f"{folder} holds traces already; give --keep another folder")
    environment = {**os.environ, "GAUDI_EMULATOR_TRACE": str(folder.resolve())}
    code = subprocess.run(program, env=environment, check=False).returncode
    if code:
        print(f"gaudi-emulator: the program ended with {code}", file=sys.stderr)
    if not any(folder.glob("trace-*.json")):
        raise ValueError(f"{program[0]} did not use the emulated device; nothing to report")
    _report(options, [folder])
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, that of the program if one was run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    place = given.index("--") if "--" in given else len(given)
    options = _parser().parse_args(given[:place])
    program = given[place + 1 :]
    try:
        if bool(program) == bool(options.paths):
            raise ValueError("report needs traces, or -- and a program to run; see --help")
        if not program:
            _report(options, options.paths)
            return 0
        if options.keep is not None:
            return _run_and_report(options, program, options.keep)
        with tempfile.TemporaryDirectory(prefix="gaudi-emulator-") as folder:
            return _run_and_report(options, program, Path(folder))
    except (OSError, ValueError, ImportError) as error:
        print(f"gaudi-emulator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Run the test suite of Intel's bridge on the emulated device, and publish the table.

The suite is never part of this repository: fetch HabanaAI/gaudi-pytorch-bridge and name the
checkout. Test files run in processes of their own, each test with a time limit. Results go to
docs/bridge-suite.json, from which docs/bridge-suite.md is written; what is not counted stands in
scripts/bridge_suite_exclusions.toml with the reason.

    python scripts/bridge_suite.py CHECKOUT --mode eager
"""

import argparse
import collections
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EXCLUSIONS = ROOT / "scripts" / "bridge_suite_exclusions.toml"
RESULTS = ROOT / "docs" / "bridge-suite.json"
TABLE = ROOT / "docs" / "bridge-suite.md"
MODES = ("eager", "lazy", "compile")
COUNTED = ("passed", "failed", "excluded", "skipped")

Counts = dict[str, int]


class Exclusion(NamedTuple):
    """Tests that are not about what a program computes on the device.

    Attributes:
        tests: pattern for ``folder/file.py::test[case]``.
        modes: where it holds.
        reason: why, in words for the reader of the table.
    """

    tests: str
    modes: tuple[str, ...]
    reason: str


def exclusions(path: Path = EXCLUSIONS) -> list[Exclusion]:
    """Read the data file."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["exclusion"]
    return [
        Exclusion(tests, tuple(entry.get("modes", MODES)), entry["reason"])
        for entry in entries
        for tests in entry["tests"]
    ]


def reason_for(test: str, mode: str, listed: Iterable[Exclusion]) -> str | None:
    """Why ``test`` is not counted in ``mode``, or None if it is."""
    # Square brackets are part of a test's name, not a set of characters.
    return next(
        (
            entry.reason
            for entry in listed
            if mode in entry.modes and fnmatch.fnmatchcase(test, entry.tests.replace("[", "[[]"))
        ),
        None,
    )


def count(lines: Iterable[dict], mode: str, listed: list[Exclusion]) -> tuple[Counts, list[dict]]:
    """Sum up the record of one file.

    Args:
        lines: as written by :mod:`bridge_suite_record`.

    Returns:
        counts by outcome, and one entry with ``test`` and ``why`` per failed test.
    """
    last: dict[str, dict] = {}
    for line in lines:
        before = last.get(line["test"], {"outcome": "collected"})["outcome"]
        if before in ("collected", "begun") or line["outcome"] == "failed":
            last[line["test"]] = line
    counts: Counts = collections.Counter()
    failures = []
    for name, line in last.items():
        test = name.removeprefix("pytest_working/")
        outcome = {
            "xfailed": "skipped",
            "collected": "failed",
            "begun": "failed",
            "error": "failed",
        }.get(line["outcome"], line["outcome"])
        if reason_for(test if "::" in test else f"{test}::", mode, listed):
            outcome = "excluded"
        counts[outcome] += 1
        if outcome == "failed":
            failures.append({"test": test, "why": line.get("why", "did not finish")})
    return dict(counts), failures


def ending(code: int, limit: int) -> str | None:
    """What the exit code of a process says, in words; None if pytest ended by itself."""
    if code == -signal.SIGALRM:
        return f"not finished after {limit} s"
    return None if code in (0, 1, 2, 5) else f"the process ended with code {code}"


def run_files(files: list[str], suite: Path, mode: str, extra: str, limit: int) -> list[dict]:
    """Run test files in one process, and in a further one after each crash or time-out.

    Args:
        files: paths below ``pytest_working``.
        limit: seconds per test.

    Returns:
        the record, with a line for every crash.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        record.touch()
        path = [str(suite / "pytest_working"), str(ROOT / "scripts"), extra]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "BRIDGE_SUITE_RECORD": str(record),
            "BRIDGE_SUITE_LIMIT": str(limit),
            # The suite sets it, too, but only after lazy/conftest.py has imported the bridge.
            "PT_HPU_LAZY_MODE": str(int(mode == "lazy")),
            "HABANA_LOGS": folder,
            "GAUDI_EMULATOR_MEMORY": "8GiB",
            "GAUDI_EMULATOR_DEVICE": "GAUDI2",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "bridge_suite_record"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(suite)]
        command += ["--tb=short", f"--mode={mode}", "--continue-on-collection-errors"]
        command += [f"pytest_working/{file}" for file in files]
        while True:
            done = subprocess.run(
                command, cwd=suite, env=environment, capture_output=True, check=False
            )
            lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
            why = ending(done.returncode, limit)
            if why is None:
                return lines
            states: dict[str, str] = {}
            for line in lines:
                states[line["test"]] = line["outcome"]
            guilty = [test for test, state in states.items() if state == "begun"]
            if not guilty:
                # Not a test: the process when it ended, if every test has, or the collecting.
                if states and "collected" not in states.values():
                    return lines
                why += f": {done.stderr.decode(errors='replace')[-200:]}"
                guilty = [f"pytest_working/{file}" for file in files]
            crashes = [{"test": test, "outcome": "error", "why": why} for test in guilty]
            if "::" not in guilty[0]:
                return lines + crashes
            with record.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(line) + "\n" for line in crashes)


def files_of(suite: Path, mode: str, only: list[str]) -> list[str]:
    """Test files of ``any_mode`` and of the mode's own folder, those of ``only`` if given."""
    root = suite / "pytest_working"
    found = sorted(
        str(path.relative_to(root))
        for folder in ("any_mode", mode)
        for path in (root / folder).rglob("test_*.py")
    )
    return [file for file in found if not only or any(fnmatch.fnmatch(file, o) for o in only)]


def table(results: dict[str, dict]) -> str:
    """The page: totals per mode, files that do not pass whole, and the exclusions."""
    lines = [
        "# The bridge's own test suite",
        "",
        "Written by `scripts/bridge_suite.py` from `docs/bridge-suite.json`; do not edit.",
        "",
        "Intel's bridge, HabanaAI/gaudi-pytorch-bridge (1.19.0), has a test suite of its own. This",
        "is what becomes of it when the device is the emulated Gaudi 2. To make the table again:",
        "",
        "```sh",
        "git clone https://github.com/HabanaAI/gaudi-pytorch-bridge CHECKOUT",
        "pip install --target EXTRA pandas expecttest pytest-instafail",
        "for mode in eager lazy compile; do",
        "    python scripts/bridge_suite.py CHECKOUT --mode $mode --extra EXTRA",
        "done",
        "```",
        "",
        "`pandas`, `expecttest` and `pytest-instafail` are imported by the suite, not by us.",
        "*Excluded* tests are about something else than what a program computes; the list with",
        "reasons is below. *Skipped* is what the suite skips by itself. A file of which every",
        "test is excluded is not run and counts as one. A test folder has more files than the",
        "column `files` says when not all of them have been run yet.",
        "",
        "| mode | files | passed | failed | excluded | skipped |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for mode, files in results.items():
        sums = [sum(entry["counts"].get(key, 0) for entry in files.values()) for key in COUNTED]
        lines.append(f"| {mode} | {len(files)} | " + " | ".join(f"{n:,}" for n in sums) + " |")
    lines += ["", "Commits of this repository that the rows are from:", ""]
    for mode, files in results.items():
        commits = collections.Counter(entry.get("commit", "unknown") for entry in files.values())
        lines.append(
            f"- {mode}: " + ", ".join(f"{commit} ({n} files)" for commit, n in commits.items())
        )
    for mode, files in results.items():
        lines += ["", f"## Failures in {mode} mode", ""]
        bad = {file: entry for file, entry in files.items() if entry["counts"].get("failed")}
        if not bad:
            lines.append("None.")
            continue
        lines += ["| file | passed | failed | first failure |", "|---|---:|---:|---|"]
        for file, entry in bad.items():
            counts = entry["counts"]
            why = " ".join(entry["failures"][0]["why"].split())[:110].replace("|", "\\|")
            lines.append(
                f"| {file} | {counts.get('passed', 0)} | {counts['failed']} | `{why or '?'}` |"
            )
    lines += ["", "## Exclusions", "", "| tests | modes | reason |", "|---|---|---|"]
    for entry in exclusions():
        name = entry.tests.replace("*", "\\*")
        lines.append(f"| {name} | {', '.join(entry.modes)} | {entry.reason} |")
    return "\n".join(lines) + "\n"


def commit_here() -> str:
    """The commit that runs, with a mark if the files differ from it (but for the results)."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    name = ask("rev-parse", "--short", "HEAD")
    changed = ask("status", "--porcelain", "--", ".", ":!docs/bridge-suite.*")
    return f"{name} with changes" if changed else name


def save(mode: str, entries: dict[str, dict]) -> None:
    """Put the results of some files of a mode into the data and write the table anew."""
    commit = commit_here()
    entries = {file: entry | {"commit": commit} for file, entry in entries.items()}
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[mode] = dict(sorted((results.get(mode, {}) | entries).items()))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(results), encoding="utf-8")


def main() -> None:
    """Run what the command line asks for, write results and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="checkout of HabanaAI/gaudi-pytorch-bridge")
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--only", action="append", default=[], help="pattern of folder/file.py")
    parser.add_argument("--extra", default="", help="folder with packages the suite imports")
    parser.add_argument("--limit", type=int, default=120, help="seconds per test")
    parser.add_argument("--batch", type=int, default=1, help="files per process")
    arguments = parser.parse_args()
    suite = (arguments.checkout / "tests").resolve()
    if not (suite / "pytest_working").is_dir():
        parser.error(f"{suite}/pytest_working does not exist; name a checkout of the bridge")
    listed = exclusions()
    mode = arguments.mode
    waiting = []
    for file in files_of(suite, mode, arguments.only):
        if reason_for(f"{file}::", mode, listed):
            save(mode, {file: {"counts": {"excluded": 1}, "failures": []}})
        else:
            waiting.append(file)
    for first in range(0, len(waiting), arguments.batch):
        files = waiting[first : first + arguments.batch]
        lines = run_files(files, suite, mode, arguments.extra, arguments.limit)
        entries = {}
        for file in files:
            own = [
                line for line in lines if line["test"].split("::")[0] == f"pytest_working/{file}"
            ]
            counts, failures = count(own, mode, listed)
            # The first failures say why; the rest is their number.
            entries[file] = {"counts": counts, "failures": failures[:10]}
            print(file, " ".join(f"{n} {key}" for key, n in counts.items()), flush=True)
        save(mode, entries)


if __name__ == "__main__":
    main()

"""A pytest plugin that writes what was collected and how each test ended, one JSON line each.

Lines reach the file at once, so that a crash or a time-out loses only the test that caused it.
"""

import json
import os
from pathlib import Path


def _write(**line: str) -> None:
    with Path(os.environ["BRIDGE_SUITE_RECORD"]).open("a", encoding="utf-8") as record:
        record.write(json.dumps(line) + "\n")


def pytest_collection_finish(session) -> None:
    """Note every test that will run."""
    for item in session.items:
        _write(test=item.nodeid, outcome="collected")


def pytest_collectreport(report) -> None:
    """Note a file that cannot be imported."""
    if report.failed:
        _write(test=report.nodeid, outcome="error", why=str(report.longrepr)[-300:])


def pytest_runtest_logreport(report) -> None:
    """Note the end of a test: its call, or a set-up or tear-down that failed or skipped."""
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    crash = getattr(report.longrepr, "reprcrash", None)
    why = (crash.message if crash else str(report.longrepr or ""))[:300]
    _write(test=report.nodeid, outcome=outcome, why=why)

"""A pytest plugin that writes what was collected and how each test ended, one JSON line each.

Lines reach the file at once, so that a crash loses only the test that caused it: run again with the
same file, the plugin leaves out what has begun before. A test that takes longer than
``BRIDGE_SUITE_LIMIT`` seconds ends the process.
"""

import json
import os
import signal
import sys
import types
from pathlib import Path


def _record() -> Path:
    return Path(os.environ["BRIDGE_SUITE_RECORD"])


def _write(**line: str) -> None:
    with _record().open("a", encoding="utf-8") as record:
        record.write(json.dumps(line) + "\n")


class _Absent:
    """Stands for a name that some tests of a file need and others do not; any use raises."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError("this name is not part of the emulated bridge")


def pytest_configure() -> None:
    """Let files be imported that name absent modules at their top; their other tests count."""
    parent = "habana_frameworks.torch.hpex"
    for name, names in {
        "experimental": (),
        "experimental.transformer_engine": ("Linear", "fp8_autocast"),
        "experimental.transformer_engine.recipe": ("DelayedScaling", "Format"),
    }.items():
        module = types.ModuleType(f"{parent}.{name}")
        module.__dict__.update({absent: _Absent for absent in names}, __path__=[])
        sys.modules[module.__name__] = module
        above, _, last = module.__name__.rpartition(".")
        if above in sys.modules:
            setattr(sys.modules[above], last, module)


def pytest_collection_modifyitems(items) -> None:
    """Leave out what an earlier process began."""
    lines = map(json.loads, _record().read_text(encoding="utf-8").splitlines())
    begun = {line["test"] for line in lines if line["outcome"] != "collected"}
    items[:] = [item for item in items if item.nodeid not in begun]


def pytest_collection_finish(session) -> None:
    """Note every test that will run."""
    for item in session.items:
        _write(test=item.nodeid, outcome="collected")


def pytest_collectreport(report) -> None:
    """Note a file that cannot be imported, or that skips itself."""
    if report.failed:
        _write(test=report.nodeid, outcome="error", why=str(report.longrepr)[-300:])
    elif report.skipped:
        _write(test=report.nodeid, outcome="skipped", why=str(report.longrepr)[-300:])


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins; it has a time limit."""
    _write(test=nodeid, outcome="begun")
    signal.alarm(int(os.environ["BRIDGE_SUITE_LIMIT"]))  # its default action ends the process


def pytest_runtest_logfinish() -> None:
    """Stop the clock."""
    signal.alarm(0)


def pytest_runtest_logreport(report) -> None:
    """Note the end of a test: its call, or a set-up or tear-down that failed or skipped."""
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    crash = getattr(report.longrepr, "reprcrash", None)
    why = (crash.message if crash else str(report.longrepr or ""))[:300]
    _write(test=report.nodeid, outcome=outcome, why=why)


def pytest_sessionfinish() -> None:
    """Let the process not hang when it ends."""
    signal.alarm(int(os.environ["BRIDGE_SUITE_LIMIT"]))

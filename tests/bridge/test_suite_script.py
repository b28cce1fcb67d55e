"""How the table of the bridge's suite counts."""

import runpy
from pathlib import Path

suite = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bridge_suite.py"))
Exclusion = suite["Exclusion"]


def test_counts_failures_and_exclusions():
    def line(name, outcome, why=""):
        return {"test": f"pytest_working/any_mode/{name}", "outcome": outcome, "why": why}

    listed = [Exclusion("any_mode/test_x.py::test_dump[*", ("eager",), "graph dumps")]
    lines = [
        line("test_x.py::test_a[1]", "collected"),
        line("test_x.py::test_a[1]", "passed"),
        line("test_x.py::test_b", "failed", "wrong"),
        line("test_x.py::test_b", "passed"),
        line("test_x.py::test_hangs", "collected"),
        line("test_x.py::test_dump[2]", "failed"),
        line("test_x.py::test_other", "skipped"),
    ]
    counts, failures = suite["count"](lines, "eager", listed)
    assert counts == {"passed": 1, "failed": 2, "excluded": 1, "skipped": 1}
    assert [entry["test"].rpartition("::")[2] for entry in failures] == ["test_b", "test_hangs"]
    counts, _ = suite["count"](lines, "lazy", listed)
    assert counts["failed"] == 3


def test_every_exclusion_has_a_reason():
    entries = suite["exclusions"]()
    assert entries
    assert all(
        entry.reason and set(entry.modes) <= {"eager", "lazy", "compile"} for entry in entries
    )

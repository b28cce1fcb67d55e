"""The table of ``make bench`` compares contenders round by round."""

from __future__ import annotations

from typing import Any

from benchmarks.report import paired_ratio, table


def record() -> dict[str, Any]:
    """Two contenders; a slow last round hits both. The ratio of their medians would be 1.5."""
    rates = {"fast": [30.0, 60.0, 12.0], "slow": [20.0, 30.0, 4.0]}
    about = {"version": "1", "torch": "2", "device": "hpu", "mode": "eager"}
    return {
        "model": "m",
        "prompt_tokens": 1,
        "new_tokens": 1,
        "threads": 1,
        "rounds": 3,
        "contenders": dict.fromkeys(rates, about),
        "results": [
            {
                "contender": name,
                "batch": 1,
                "tokens_per_s": values,
                "median_tokens_per_s": sorted(values)[1],
                "same_tokens_as_baseline": None,
            }
            for name, values in rates.items()
        ],
    }


def test_ratios_are_paired() -> None:
    assert paired_ratio(record(), "fast", "slow", 1) == 2.0  # of 1.5, 2.0 and 3.0
    assert paired_ratio(record(), "fast", "absent", 1) is None
    assert paired_ratio(record(), "fast", "slow", 16) is None


def test_table_prints_a_ratio_per_base() -> None:
    line = next(row for row in table(record(), ["slow", "absent"]).splitlines() if "fast" in row)
    assert line.split()[-3:] == ["2.00", "-", "-"]

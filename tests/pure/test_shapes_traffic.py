"""Traffic profiles: recording, the file, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.traffic import FORMAT, Length, Load, Traffic, TrafficRecorder, short

TRAFFIC = Traffic((Length(500, 80, 3), Length(9000, 300, 1.5, 4096)), (Load(1, 2), Load(64, 0.5)))


def test_a_recorder_counts() -> None:
    recorder = TrafficRecorder()
    assert not recorder
    recorder.step(3)
    recorder.step(3)
    recorder.step(1)
    recorder.step(0)
    assert not recorder
    for _ in range(4):
        recorder.finished(500, 80)
    recorder.finished(500, 80, 100)
    recorder.finished(7, 0, 7)
    recorder.finished(0, 5)
    assert recorder
    assert recorder.traffic() == Traffic(
        (Length(7, 1, 1, 6), Length(496, 80, 4), Length(496, 80, 1, 100)), (Load(1, 1), Load(3, 2))
    )


def test_a_recorder_that_saw_nothing_has_no_traffic() -> None:
    recorder = TrafficRecorder()
    with pytest.raises(ConfigurationError, match="no lengths"):
        recorder.traffic()
    recorder.finished(1, 1)
    assert not recorder
    with pytest.raises(ConfigurationError, match="no concurrency"):
        recorder.traffic()


@given(st.integers(0, 1 << 20))
def test_short_numbers_are_close_and_few(number: int) -> None:
    assert abs(short(number) - number) * 32 <= number
    assert short(short(number)) == short(number)
    assert len(bin(short(number)).removeprefix("0b").rstrip("0")) <= 5


def test_short_by_hand() -> None:
    assert [short(n) for n in (0, 1, 31, 32, 33, 34, 35, 63, 64, 500)] == [
        0, 1, 31, 32, 34, 34, 36, 64, 64, 496,
    ]  # fmt: skip


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text("old", encoding="utf-8")
    TRAFFIC.write(path)
    assert Traffic.read(path) == TRAFFIC
    assert [entry.name for entry in tmp_path.iterdir()] == ["profile.json"]
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "format": "vllm-hpu traffic 1",
        "lengths": [
            {"input": 500, "output": 80, "number": 3, "cached": 0},
            {"input": 9000, "output": 300, "number": 1.5, "cached": 4096},
        ],
        "concurrency": [{"requests": 1, "share": 2}, {"requests": 64, "share": 0.5}],
    }


def test_cached_may_be_left_out() -> None:
    data = TRAFFIC.to_json()
    del data["lengths"][0]["cached"]
    assert Traffic.from_json(data) == TRAFFIC


def _with(name: str, **change: Any) -> dict[str, Any]:
    data = TRAFFIC.to_json()
    data[name][0].update(change)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "format"),
        ({}, "format"),
        (TRAFFIC.to_json() | {"format": "other"}, FORMAT),
        ({"format": FORMAT, "lengths": []}, "concurrency"),
        (TRAFFIC.to_json() | {"lengths": []}, "no lengths"),
        (TRAFFIC.to_json() | {"concurrency": []}, "no concurrency"),
        (TRAFFIC.to_json() | {"concurrency": 3}, "TypeError"),
        (TRAFFIC.to_json() | {"lengths": [{"input": 1, "output": 1}]}, "number"),
        (_with("lengths", mean=4), "mean"),
        (_with("lengths", input=0), "input=0"),
        (_with("lengths", input=2.5), "input=2.5"),
        (_with("lengths", input=True), "input=True"),
        (_with("lengths", input="500"), "input='500'"),
        (_with("lengths", output=0), "output=0"),
        (_with("lengths", cached=500), "cached=500"),
        (_with("lengths", cached=-1), "cached=-1"),
        (_with("lengths", number=0), "number=0"),
        (_with("lengths", number=float("inf")), "number=inf"),
        (_with("lengths", number=float("nan")), "number=nan"),
        (_with("lengths", number=True), "number=True"),
        (_with("lengths", number=None), "number=None"),
        (_with("concurrency", requests=0), "requests=0"),
        (_with("concurrency", requests=1.5), "requests=1.5"),
        (_with("concurrency", share=0), "share=0"),
    ],
)
def test_wrong_profiles_are_refused_by_file(data: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message) as caught:
        Traffic.read(path)
    assert str(path) in str(caught.value)
    assert "Correct the profile" in str(caught.value)


def test_the_least_that_is_allowed() -> None:
    assert Traffic((Length(1, 1, 1e-9, 0),), (Load(1, 1e-9),)).lengths[0].cached == 0
    assert Traffic((Length(2, 1, 1, 1),), (Load(1, 1),)).lengths[0].cached == 1


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{\n "format": 1,\n oops\n}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"profile\.json:3: not JSON"):
        Traffic.read(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="VLLM_HPU_TRAFFIC_PROFILE"):
        Traffic.read(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Traffic.read(tmp_path / "binary.json")

"""What warm-up remembers between starts, and what it makes of a file that is something else."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.warmup.manifest import GraphRecord, Manifest, fingerprint

NAME = "0123456789abcdef"
RECORD = GraphRecord(seconds=1.5, bytes=4096, cached=False)


def written(folder: Path) -> Path:
    manifest = Manifest.load(folder, NAME)
    manifest.record("decode 1 row, 1 block", RECORD)
    assert manifest.path is not None
    return manifest.path


def test_records_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    manifest = Manifest.load(folder, NAME)
    assert manifest.graphs == {}
    manifest.record("a", RECORD)
    manifest.record("b", GraphRecord(0.25, 0, True))
    manifest.record("a", GraphRecord(2.0, 1, True))
    expected = {"a": GraphRecord(2.0, 1, True), "b": GraphRecord(0.25, 0, True)}
    assert Manifest.load(folder, NAME).graphs == expected
    # One file, beside whatever else a recipe cache holds.
    assert [path.name for path in folder.iterdir()] == [f"vllm_hpu-{NAME}.json"]


def test_nothing_is_said_about_a_first_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Manifest.load(tmp_path, NAME)
    assert caplog.records == []


GOOD = {
    "format": 1,
    "fingerprint": NAME,
    "graphs": {"a": {"seconds": 1, "bytes": 2, "cached": False}},
}


def graph(**changes: object) -> dict[str, object]:
    return GOOD | {"graphs": {"a": {"seconds": 1, "bytes": 2, "cached": False} | changes}}


BAD = {
    "empty": "",
    "cut off": json.dumps(GOOD)[:-10],
    "no object": "[]",
    "binary": "\x00\x01",
    "nested too deep": "[" * 100_000,
    "other format": json.dumps(GOOD | {"format": 2}),
    "foreign": json.dumps(GOOD | {"fingerprint": "f" * 16}),
    "no graphs": json.dumps(GOOD | {"graphs": [1]}),
    "no record": json.dumps(GOOD | {"graphs": {"a": 1}}),
    "missing field": json.dumps(GOOD | {"graphs": {"a": {"seconds": 1, "bytes": 2}}}),
    "negative": json.dumps(graph(bytes=-1)),
    "endless": json.dumps(graph(seconds=float("inf"))),
    "not a number": json.dumps(graph(seconds=float("nan"))),
    "text": json.dumps(graph(seconds="1")),
    "not a truth value": json.dumps(graph(cached=0)),
    "more fields": json.dumps(graph(run="rm -rf")),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_that_is_no_manifest_is_ignored_with_one_line(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path)
    path.write_text(content)
    manifest = Manifest.load(tmp_path, NAME)
    assert manifest.graphs == {}
    (line,) = caplog.messages
    assert str(path) in line
    assert "\n" not in line
    # And replaced by the next record.
    manifest.record("b", RECORD)
    assert Manifest.load(tmp_path, NAME).graphs == {"b": RECORD}


def test_a_good_file_is_read(tmp_path: Path) -> None:
    written(tmp_path).write_text(json.dumps(GOOD))
    assert Manifest.load(tmp_path, NAME).graphs == {"a": GraphRecord(1.0, 2, False)}


@given(content=st.binary(max_size=200))
def test_any_bytes_are_survived(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    (folder / f"vllm_hpu-{NAME}.json").write_bytes(content)
    assert Manifest.load(folder, NAME).graphs == {}


@given(cut=st.integers(0, 200), value=st.integers(0, 255))
def test_a_changed_byte_is_survived(
    cut: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    path = written(folder)
    content = bytearray(path.read_bytes())
    content[cut % len(content)] = value
    path.write_bytes(content)
    for record in Manifest.load(folder, NAME).graphs.values():
        assert record.seconds >= 0
        assert record.bytes >= 0


def test_a_folder_that_cannot_be_written_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest.load(Path("/proc/recipes"), NAME)
    assert caplog.messages == []
    manifest.record("a", RECORD)
    manifest.record("b", RECORD)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert set(manifest.graphs) == {"a", "b"}


def test_a_folder_in_its_place_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"vllm_hpu-{NAME}.json" / "something").mkdir(parents=True)
    manifest = Manifest.load(tmp_path, NAME)
    manifest.record("a", RECORD)
    manifest.record("b", RECORD)
    (line,) = caplog.messages
    assert "Ignored" in line
    assert [path.name for path in tmp_path.iterdir()] == [f"vllm_hpu-{NAME}.json"]


def test_a_file_where_the_folder_should_be_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    manifest = Manifest.load(tmp_path / "file", NAME)
    manifest.record("a", RECORD)
    manifest.record("b", RECORD)
    assert len(caplog.messages) == 1
    assert (tmp_path / "file").read_text() == ""


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    path = written(tmp_path)
    young, old = path.with_name(f"{path.name}.1"), path.with_name(f"{path.name}.2")
    other = tmp_path / "vllm_hpu-other.json.3"
    for leftover in (young, old, other):
        leftover.write_text("half")
    for leftover in (old, other):
        os.utime(leftover, (1, 1))
    Manifest.load(tmp_path, NAME).record("b", RECORD)
    assert {found.name for found in tmp_path.iterdir()} == {path.name, young.name, other.name}


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 while records are written as fast as can be: the file is the old or the new one."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vllm_hpu.warmup.manifest import GraphRecord, Manifest\n"
        f"manifest = Manifest.load(Path(sys.argv[1]), {NAME!r})\n"
        "for index in range(10**9):\n"
        "    manifest.record(f'graph {index % 500}', GraphRecord(index, index, False))\n"
        "    if index == 600: print('going', flush=True)\n"
    )
    seen = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
        graphs = Manifest.load(tmp_path, NAME).graphs
        assert len(graphs) == 500
        seen += 1
    assert seen == 3


def test_fingerprints_tell_configurations_apart() -> None:
    facts = {"model": {"layers": 2}, "mode": "HPU graphs", "ranks": 1, "lora": None}
    assert fingerprint(facts) == fingerprint(dict(reversed(facts.items())))
    for change in ({"ranks": 2}, {"mode": "torch.compile"}, {"model": {"layers": 3}}, {"x": 1}):
        assert fingerprint(facts | change) != fingerprint(facts)
    assert fingerprint(facts).isalnum()

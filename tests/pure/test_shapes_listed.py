"""Plans from a file of buckets."""

from pathlib import Path

import pytest

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes import GraphKey, Limits, ShapePlan
from vllm_hpu.shapes.kinds import largest_keys
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.listed import Listed

LIMITS = Limits(max_num_seqs=8, max_num_batched_tokens=512, max_model_len=1024, block_size=128)
LARGEST = {
    GraphKey(8, 8, 64, False, 0),
    GraphKey(512, 8, 64, True, 0),
    GraphKey(512, 8, 64, True, 64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buckets.txt"


def keys(path: Path, text: str, of: Limits = LIMITS) -> set[GraphKey]:
    """What the file adds to the keys that are always there."""
    path.write_text(text, encoding="utf-8")
    found = set(Listed(path).keys(of, lambda key: 1.0))
    assert set(largest_keys(of)) <= found
    return found - set(largest_keys(of))


def test_the_largest_keys_are_always_there(path: Path) -> None:
    assert set(largest_keys(LIMITS)) == LARGEST
    assert keys(path, "(9, 1, 3)") == set()


def test_decode_buckets(path: Path) -> None:
    assert keys(path, "(2, 1, 7)") == {GraphKey(2, 2, 7, False, 0)}
    # Two rows have at most 16 blocks; none at all makes no graph.
    assert keys(path, "(2, 1, 99)\n(2, 1, 0)") == {GraphKey(2, 2, 16, False, 0)}
    assert keys(path, "(8, 1, 5)") == {GraphKey(8, 8, 5, False, 0)}
    drafts = Limits(8, 512, 1024, 128, query_len=3)
    assert keys(path, "(2, 1, 7)", drafts) == {GraphKey(6, 2, 7, False, 0)}
    few = Limits(8, 512, 1024, 128, max_decode_blocks=9)
    assert keys(path, "(4, 1, 30)", few) == {GraphKey(4, 4, 9, False, 0)}


def test_prompt_buckets_stand_alone_and_with_decode_rows(path: Path) -> None:
    assert keys(path, "(1, 256, 0)") == {
        GraphKey(256, 0, 0, True, 0),
        GraphKey(256, 8, 64, True, 0),
    }
    # Two prompts of 130 tokens, which fill two blocks each, behind three cached blocks each.
    assert keys(path, "(2, 130, 3)") == {
        GraphKey(260, 0, 0, True, 10),
        GraphKey(260, 8, 64, True, 10),
    }
    alone = Limits(1, 512, 1024, 128)
    assert keys(path, "(1, 128, 0)", alone) == {GraphKey(128, 0, 0, True, 0)}


def test_buckets_beyond_the_limits_are_left_out(path: Path) -> None:
    assert keys(path, "(1, 513, 0)\n(2, 257, 0)\n(1, 128, 64)\n(9, 1, 9)") == set()
    assert keys(path, "(1, 511, 0)\n(1, 128, 63)") == {
        GraphKey(511, 0, 0, True, 0),
        GraphKey(511, 8, 64, True, 0),
        GraphKey(128, 0, 0, True, 64),
        GraphKey(128, 8, 64, True, 64),
    }
    # As many tokens as a step may have: with decode rows that is the largest key.
    assert keys(path, "(1, 512, 0)") == {GraphKey(512, 0, 0, True, 0)}


def test_lists_and_ranges_and_comments(path: Path) -> None:
    path.write_text(
        "# sizes of the night\n\n([1, 2], 1, range(8, 25, 8))  # decode\n 1, [128,256], range(2)\n"
        "(4, 1, range(3, 5))\n",
        encoding="utf-8",
    )
    assert Listed(path).buckets == (
        *((batch, 1, blocks) for batch in (1, 2) for blocks in (8, 16, 24)),
        *((1, query, context) for query in (128, 256) for context in (0, 1)),
        (4, 1, 3),
        (4, 1, 4),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hello world", "not understood"),
        ("(1, 2", "not understood"),
        ("1" + "+1" * 100_000, "not understood"),
        ("(1, 128)", "not three sizes"),
        ("(1, 128, 0, 4)", "not three sizes"),
        ("128", "not three sizes"),
        ("[1, 128, 0]", "not three sizes"),
        ("(0, 1, 4)", "batch '0'"),
        ("(1, 0, 4)", "query '0'"),
        ("(1, 1, -1)", "context '-1'.*least context is 0"),
        ("(1.5, 1, 4)", "batch '1.5'"),
        ("(True, 1, 4)", "batch 'True'"),
        ("('1', 1, 4)", "batch"),
        ("([], 1, 4)", "batch '\\[\\]'"),
        ("([1, 'x'], 1, 4)", "batch"),
        ("([1, [2]], 1, 4)", "batch"),
        ("(1, range(0), 4)", "query 'range\\(0\\)'"),
        ("(1, range(), 4)", "query"),
        ("(1, range(1, 9, 0), 4)", "query"),
        ("(1, range(1, 9, 2, 3), 4)", "query"),
        ("(1, range(1, x), 4)", "query"),
        ("(1, range(1, stop=4), 4)", "query"),
        ("(1, list(4), 4)", "query"),
        ("(1, __import__('os').getpid(), 4)", "query"),
        ("(1, batch, 4)", "query 'batch'"),
        ("(range(1, 1000), range(1, 1000), 4)", "more than 100000 buckets"),
        ("(range(1, 10**12), 1, 4)", "batch"),
        ("(range(1, 1000000000000), 1, 4)", "more than 100000 buckets"),
    ],
)
def test_bad_lines_are_refused_by_place(path: Path, line: str, words: str) -> None:
    path.write_text(f"(1, 128, 0)\n\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=words) as caught:
        Listed(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "VLLM_BUCKETING_FROM_FILE" in str(caught.value)


def test_files_without_buckets_are_refused(path: Path, tmp_path: Path) -> None:
    path.write_text("# nothing yet\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"buckets\.txt:1: no bucket"):
        Listed(path)
    with pytest.raises(ConfigurationError, match=r"absent.* cannot be read.*FROM_FILE"):
        Listed(tmp_path / "absent")
    path.write_bytes(b"\xff\xfe(1, 1, 1)")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Listed(path)


def test_the_plan_has_the_listed_sizes(path: Path) -> None:
    path.write_text("(2, 1, 8)\n(1, 128, 0)\n(1, 128, 8)\n", encoding="utf-8")
    plan = ShapePlan(LIMITS, strategy_named("file", {}, file=str(path)))
    assert plan.strategy.name == f"from file {path}"
    # Prompts of 128 tokens behind 8 blocks are 9 blocks long, and a request has at most 8.
    assert set(plan.keys) == LARGEST | {
        GraphKey(2, 2, 8, False, 0),
        GraphKey(128, 0, 0, True, 0),
        GraphKey(128, 8, 64, True, 0),
        GraphKey(128, 0, 0, True, 9),
        GraphKey(128, 8, 64, True, 9),
    }


def test_a_file_has_to_be_named() -> None:
    with pytest.raises(ConfigurationError, match="no bucketing strategy 'file'"):
        strategy_named("file", {})

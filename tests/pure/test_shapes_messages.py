"""What users and developers are told, word for word: what happened, why, and what to do."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from vllm_hpu.shapes import GraphKey, Limits, ShapePlan, Step
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.grid import Grids
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import Cost
from vllm_hpu.shapes.reach import rows_of
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.listed import Listed
from vllm_hpu.shapes.strategies.padded import Padded
from vllm_hpu.shapes.traffic import FORMAT, Length, Load, Traffic

LIMITS = Limits(8, 64, 256, 16)
PLAN = ShapePlan(LIMITS, Exponential())
CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "vocab_size": 9,
}
RIGHT = Length(1, 1, 1), Load(1, 1)


class Gap:
    """No key for eight decode rows."""

    name = "gap"

    def keys(self, limits: Limits, cost: Cost) -> Iterable[GraphKey]:
        return [key for key in Exponential().keys(limits, cost) if key.decode_rows < 8]


def told(action: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared as a whole
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        ("STEP", 0, "_STEP is 0. Sizes grow by it. Set it to 1 or more, or unset it."),
        ("MIN", -1, "_MIN is -1. A size cannot be negative. Set it to 0 or more, or unset it."),
        (
            "MAX",
            7,
            "_MAX=7 is below 8. Steps of up to 8 can occur, and a larger one would compile while a "
            "request waits. Raise or unset VLLM_DECODE_BS_BUCKET_MAX, or lower --max-num-seqs.",
        ),
        (
            "MIN",
            9,
            "_MIN=9 is above 8, the most that a step can have. Lower or unset "
            "VLLM_DECODE_BS_BUCKET_MIN, or raise --max-num-seqs.",
        ),
        (
            "PAD_MAX",
            -1,
            "_PAD_MAX is -1. Padding cannot be negative. Set it to 0 or more, or unset it.",
        ),
        (
            "PAD_PERCENT",
            51,
            "_PAD_PERCENT is 51. At 50 percent sizes double already. Set it to 0 to 50, or unset "
            "it.",
        ),
    ],
)
def test_bucket_variables(part: str, value: int, text: str) -> None:
    name = "VLLM_DECODE_BS_BUCKET"
    assert told(lambda: ShapePlan(LIMITS, Padded({f"{name}_{part}": value}))) == name + text


def test_contradicting_bucket_variables() -> None:
    variables = {"VLLM_DECODE_BS_BUCKET_MIN": 9, "VLLM_DECODE_BS_BUCKET_MAX": 8}
    assert told(lambda: ShapePlan(LIMITS, Padded(variables))) == (
        "VLLM_DECODE_BS_BUCKET_MIN=9 is above VLLM_DECODE_BS_BUCKET_MAX=8. No size lies between "
        "them. Lower the first, raise the second, or unset both."
    )


@pytest.mark.parametrize(
    ("part", "flag"),
    [
        ("PROMPT_QUERY", "--max-num-batched-tokens"),
        ("PROMPT_CTX", "--max-model-len"),
        ("DECODE_BLOCK", "--max-model-len or --max-num-seqs"),
    ],
)
def test_the_flag_that_sets_a_dimension(part: str, flag: str) -> None:
    text = told(lambda: ShapePlan(LIMITS, Padded({f"VLLM_{part}_BUCKET_MIN": 1000})))
    assert text.endswith(f" Lower or unset VLLM_{part}_BUCKET_MIN, or raise {flag}.")


_FORM = (
    "A line is (batch, query, context): each a whole number, a list of them, or range(first, end, "
    "step). "
)
_LINE = "Correct the line, or unset VLLM_BUCKETING_FROM_FILE."


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("1 2", f"'1 2' is not understood. {_FORM}{_LINE}"),
        ("(1, 2)", f"'(1, 2)' is not three sizes. {_FORM}{_LINE}"),
        ("(1, 0, 2)", f"the query '0' is not understood. {_FORM}The least query is 1. {_LINE}"),
        (
            "(range(1, 999), range(1, 999), 1)",
            "'(range(1, 999), range(1, 999), 1)' are more than 100000 buckets. Each would be a "
            "graph to compile. Choose larger steps, or unset VLLM_BUCKETING_FROM_FILE.",
        ),
        ("", f"no bucket in the whole file. {_FORM}{_LINE}"),
    ],
)
def test_lines_of_buckets(line: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "buckets.txt"
    path.write_text(line, encoding="utf-8")
    assert told(lambda: Listed(path)) == f"{path}:1: {text}"


def test_files_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    why = f"cannot be read. [Errno 2] No such file or directory: '{path}'. Correct or unset VLLM_"
    assert told(lambda: Listed(path)) == f"The file of buckets {path} {why}BUCKETING_FROM_FILE."
    assert told(lambda: Traffic.read(path)) == (
        f"The traffic profile {path} {why}HPU_TRAFFIC_PROFILE."
    )


_PROFILE = "Correct the profile, or record it again."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", f":1: not JSON. Expecting property name enclosed in double quotes. {_PROFILE}"),
        (
            "[]",
            ': This is no traffic profile. Its "format" must be "vllm-hpu traffic 1". ' + _PROFILE,
        ),
        (
            json.dumps({"format": FORMAT, "lengths": []}),
            ": A traffic profile lacks a name or has one too many. KeyError: 'concurrency'. "
            + _PROFILE,
        ),
    ],
)
def test_profiles(content: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(content, encoding="utf-8")
    assert told(lambda: Traffic.read(path)) == f"{path}{text}"


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (
            lambda: PlanBudget.parse("many"),
            "A plan's budget of 'many' is not understood. It is a list of numbers with one of the "
            "units graphs, s, min, h, MiB, GiB. Write for example "
            'VLLM_HPU_PLAN_BUDGET="100 graphs, 20 min".',
        ),
        (
            lambda: Limits(0, 64, 64, 16),
            "max_num_seqs is 0. Shapes can only be planned for a whole number of at least 1. Set "
            "--max-num-seqs to a positive whole number.",
        ),
        (
            lambda: Limits(8, 7, 64, 16),
            "max_num_batched_tokens (7) is below max_num_seqs (8). Every running request needs at "
            "least one token of a step. Raise --max-num-batched-tokens or lower --max-num-seqs.",
        ),
        (
            lambda: strategy_named("best", {}),
            "There is no bucketing strategy 'best'. Set VLLM_BUCKETING_STRATEGY to one of: opt, "
            "exp, lin, pad.",
        ),
        (
            lambda: Traffic((), RIGHT[1:]),
            f"A traffic profile has no lengths. Without requests there is nothing to plan for. "
            f"{_PROFILE}",
        ),
        (
            lambda: Traffic((Length(0, 1, 1),), RIGHT[1:]),
            "A traffic profile has Length(input=0, output=1, number=1, cached=0). Lengths are "
            "whole numbers of at least 1, fewer tokens are cached than given, and the number of "
            f"requests is above 0. {_PROFILE}",
        ),
        (
            lambda: Traffic(RIGHT[:1], (Load(0, 1),)),
            "A traffic profile has Load(requests=0, share=1). Requests in flight are a whole "
            f"number of at least 1, their share is above 0. {_PROFILE}",
        ),
        (
            lambda: ModelShape.from_config(CONFIG | {"hidden_size": None}),
            "The model's configuration says None for hidden_size. The cost of a graph follows from "
            "it. Choose VLLM_BUCKETING_STRATEGY=exp, which needs no costs.",
        ),
        (
            lambda: ModelShape.from_config(CONFIG | {"num_key_value_heads": 0}),
            "kv_heads of the model is 0. Costs can only be computed for whole numbers of at least "
            "1. Check the model's config.json, or choose VLLM_BUCKETING_STRATEGY=exp, which needs "
            "no costs.",
        ),
        (
            lambda: ModelShape.from_config(CONFIG | {"num_experts": 2, "num_experts_per_tok": 3}),
            "The model computes a token in 3 of 2 experts. Check the model's config.json.",
        ),
        (
            lambda: PLAN.dispatch(Step(9, 9, 9, 0, 0, 0)),
            "A step has 9 decode rows, more than any step within the limits (8). The limits of the "
            "shape plan and those of the scheduler differ.",
        ),
        (
            lambda: PLAN.dispatch(Step(1, 1, 129, 1, 9, 0)),
            "A step has 129 decode blocks, more than any step within the limits (128). The limits "
            "of the shape plan and those of the scheduler differ.",
        ),
        (
            lambda: PLAN.dispatch(Step(2, 40, 2, 0, 0, 0)),
            "A step has 40 tokens in 2 decode rows, more than 1 each. Rows with more tokens are "
            "prefill rows.",
        ),
        (
            lambda: PLAN.rows(9),
            "A step has 9 rows, more than max_num_seqs (8). The limits of the shape plan and those "
            "of the scheduler differ.",
        ),
        (
            lambda: ShapePlan(LIMITS, Gap()),
            "No decode key of the strategy gap covers (8, 128), the largest sizes within the "
            "limits. Correct the strategy.",
        ),
        (
            lambda: Grids((1, 1), (1,), (1,), (1,), (1,), (1,)),
            "decode_rows is (1, 1); a grid holds increasing sizes of at least 1. Correct the "
            "strategy that made it.",
        ),
        (
            lambda: rows_of(Step(2, 1, 2, 0, 0, 0), LIMITS),
            "1 tokens do not fit in 2 rows of 1 to [1, 1].",
        ),
        (
            lambda: rows_of(Step(2, 2, 99, 0, 0, 0), LIMITS),
            f"99 blocks are not what 2 rows can have within {LIMITS}.",
        ),
    ],
)
def test_messages(action: Callable[[], object], text: str) -> None:
    assert told(action) == text

"""The promise of the shape plan: every step has a planned key, and every planned key has a step."""

import subprocess
import sys
import timeit
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.settings import Settings
from vllm_hpu.shapes import GraphKey, Limits, ShapePlan, Step, step_of
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.shapes.cost import CostModel, padded_work
from vllm_hpu.shapes.grid import Grid, Grids, geometric
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import Cost
from vllm_hpu.shapes.reach import rows_of
from vllm_hpu.shapes.strategies import strategy_named
from vllm_hpu.shapes.strategies.exponential import Exponential
from vllm_hpu.shapes.strategies.linear import Linear
from vllm_hpu.shapes.strategies.listed import Listed
from vllm_hpu.shapes.strategies.optimal import Optimal
from vllm_hpu.shapes.strategies.padded import Padded
from vllm_hpu.shapes.traffic import Length, Load, Traffic

TINY = ModelShape(layers=2, hidden=8, heads=2, kv_heads=1, head_size=4, intermediate=16, vocab=100)


@st.composite
def limits(draw: st.DrawFn, largest: int = 1) -> Limits:
    """Legal limits; ``largest`` scales them from what can be enumerated to what servers have."""
    seqs = draw(st.integers(1, 3 * largest))
    caps = st.none() | st.integers(1, 6 * largest)
    return Limits(
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + draw(st.integers(0, 7 * largest)),
        max_model_len=draw(st.integers(1, 7 * largest)),
        block_size=draw(st.integers(1, 4 * largest)),
        query_len=draw(st.integers(1, 4)),
        max_decode_blocks=draw(caps),
        max_prefill_blocks=draw(caps),
    )


@st.composite
def linear(draw: st.DrawFn, of: Limits) -> Linear:
    """A linear or padding-aware strategy with any legal variables."""
    context = max(1, (of.max_model_len - of.block_size) // of.block_size)
    dimensions = [
        ("PROMPT_QUERY", 1, of.step_tokens),
        ("PROMPT_CTX", 0, context),
        ("DECODE_BS", 1, of.max_num_seqs),
        ("DECODE_BLOCK", 1, of.decode_blocks),
    ]
    variables = {}
    for dimension, least, needed in dimensions:
        choices = {
            "MIN": st.integers(least, needed),
            "STEP": st.integers(1, 2 * needed),
            "MAX": st.integers(needed, 2 * needed),
            "PAD_MAX": st.integers(0, needed),
            "PAD_PERCENT": st.integers(0, 50),
        }
        for part, values in choices.items():
            value = draw(st.none() | values)
            if value is not None:
                variables[f"VLLM_{dimension}_BUCKET_{part}"] = value
    return draw(st.sampled_from([Linear, Padded]))(variables)


@st.composite
def listed(draw: st.DrawFn, of: Limits) -> Listed:
    """A file of buckets, some of them beyond the limits."""
    bucket = st.tuples(
        st.integers(1, of.max_num_seqs + 1),
        st.just(1) | st.integers(1, of.step_tokens + 1),
        st.integers(0, of.prefill_blocks + 1),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "buckets.txt"
        lines = draw(st.lists(bucket, min_size=1, max_size=8))
        path.write_text("\n".join(map(str, lines)), encoding="utf-8")
        return Listed(path)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    """Any traffic, of requests that may be longer than a server allows."""
    lengths = draw(
        st.lists(st.tuples(*[st.integers(1, 100)] * 2, st.integers(0, 99)), min_size=1, max_size=3)
    )
    loads = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True))
    return Traffic(
        tuple(
            Length(given, output, 1, min(cached, given - 1)) for given, output, cached in lengths
        ),
        tuple(Load(load, 1) for load in loads),
    )


@st.composite
def optimal(draw: st.DrawFn) -> Optimal:
    budget = PlanBudget(draw(st.none() | st.integers(0, 30)))
    return Optimal(draw(st.none() | traffics()), budget, samples=40)


# Costs that rise with every size, and one for which sizes hardly matter.
COSTS = st.sampled_from([padded_work, CostModel(TINY, 4).price, CostModel(TINY, 4).operations])


@st.composite
def plans(draw: st.DrawFn, largest: int = 1) -> ShapePlan:
    of = draw(limits(largest))
    strategy = draw(st.one_of(st.just(Exponential()), linear(of), listed(of), optimal()))
    return ShapePlan(of, strategy, draw(COSTS))


@st.composite
def steps(draw: st.DrawFn, of: Limits) -> Step:
    """A step of real rows, drawn row by row with no knowledge of keys."""
    scheduled: list[int] = []
    computed: list[int] = []
    budget = of.max_num_batched_tokens
    for _ in range(draw(st.integers(1, of.max_num_seqs))):
        most = min(budget, of.max_model_len)
        if most == 0:
            break
        longest = draw(st.sampled_from([min(of.query_len, most), most]))
        scheduled.append(draw(st.integers(1, longest)))
        budget -= scheduled[-1]
        rest = of.max_model_len - scheduled[-1]
        computed.append(draw(st.sampled_from([0, rest]) | st.integers(0, rest)))
    return step_of(scheduled, computed, of.block_size, of.query_len)


def within_caps(step: Step, of: Limits) -> bool:
    return step.decode_blocks <= of.decode_blocks and step.prefill_blocks <= of.prefill_blocks


def all_steps(of: Limits) -> set[Step]:
    """Every step within the limits, by listing all combinations of rows."""
    rows = [
        (new, old)
        for new in range(1, of.max_model_len + 1)
        for old in range(of.max_model_len - new + 1)
    ]
    found = set()
    for count in range(1, of.max_num_seqs + 1):
        for chosen in combinations_with_replacement(rows, count):
            scheduled, computed = zip(*chosen, strict=True)
            if sum(scheduled) <= of.max_num_batched_tokens:
                found.add(step_of(scheduled, computed, of.block_size, of.query_len))
    return found


@given(plans())
def test_keys_are_the_image_of_dispatch(plan: ShapePlan) -> None:
    """Exactly: nothing missing, nothing that no step reaches."""
    planned_for = [step for step in all_steps(plan.limits) if within_caps(step, plan.limits)]
    assert set(plan.keys) == {plan.dispatch(step) for step in planned_for}
    assert len(plan.keys) == len(set(plan.keys))


@given(st.data())
def test_every_step_has_a_key_that_covers_it(data: st.DataObject) -> None:
    plan = data.draw(plans(largest=40))
    step = data.draw(steps(plan.limits))
    key = plan.dispatch(step)
    assert key.covers(step)
    assert (key.kind != "decode") == (step.prefill_rows > 0)
    assert key.kind != "prefill" or step.decode_rows == 0
    if within_caps(step, plan.limits):
        assert key in plan
        assert any(other.covers(step) for other in plan.covering)


@given(plans(largest=40))
def test_every_key_has_real_rows(plan: ShapePlan) -> None:
    for key in plan.keys:
        witness = plan.witness(key)
        scheduled, computed = rows_of(witness, plan.limits)
        assert all(new >= 1 and old >= 0 for new, old in zip(scheduled, computed, strict=True))
        assert max(map(sum, zip(scheduled, computed, strict=True))) <= plan.limits.max_model_len
        assert len(scheduled) <= plan.limits.max_num_seqs
        assert sum(scheduled) <= plan.limits.max_num_batched_tokens
        step = step_of(scheduled, computed, plan.limits.block_size, plan.limits.query_len)
        assert step == witness
        assert plan.dispatch(step) == key


@given(st.data())
def test_dispatch_takes_the_cheapest_key(data: st.DataObject) -> None:
    """Of all planned keys that cover a step, whatever the strategy had in mind."""
    plan = data.draw(plans(largest=20))
    step = data.draw(steps(plan.limits))
    key = plan.dispatch(step)
    covering = [other for other in plan.keys if other.covers(step)]
    if key in plan:
        assert plan.cost(key) == min(map(plan.cost, covering))
    else:
        assert not covering
        assert not within_caps(step, plan.limits)


@given(st.data())
def test_a_larger_step_never_costs_less(data: st.DataObject) -> None:
    plan = data.draw(plans(largest=20))
    small = data.draw(steps(plan.limits))
    large = data.draw(steps(plan.limits))
    larger = Step(*map(max, small, large))
    same_kind = [(small.prefill_rows > 0), (small.prefill_blocks > 0)] == [
        (larger.prefill_rows > 0),
        (larger.prefill_blocks > 0),
    ]
    if same_kind and larger.tokens <= plan.limits.step_tokens and within_caps(larger, plan.limits):
        assert plan.cost(plan.dispatch(small)) <= plan.cost(plan.dispatch(larger))


@given(st.data())
def test_dispatch_of_a_full_graph_is_that_graph(data: st.DataObject) -> None:
    plan = data.draw(plans(largest=40))
    key = plan.dispatch(data.draw(steps(plan.limits)))
    if key.kind == "decode":
        full = Step(key.decode_rows, key.tokens, key.decode_blocks, 0, 0, 0)
    else:
        decode = min(key.decode_rows, key.tokens - 1)
        full = Step(decode, decode, key.decode_blocks, 1, key.tokens - decode, key.prefill_blocks)
    assert plan.dispatch(full) == key


@given(plans(largest=40))
def test_warm_up_starts_with_the_covering_set(plan: ShapePlan) -> None:
    count = len(plan.covering)
    assert plan.keys[:count] == plan.covering
    order = ["decode", "prefill", "mixed"]
    kinds = [order.index(key.kind) for key in plan.keys[count:]]
    assert kinds == sorted(kinds)
    assert plan.max_tokens == max(key.tokens for key in plan.keys)


# Limits, and the most graphs that a start with them may compile (exponential).
SERVERS = [
    (Limits(64, 2048, 2048, 128), 130),
    (Limits(64, 2048, 2048, 128, query_len=4), 130),
    (Limits(4, 64, 256, 16), 33),
    (Limits(8, 512, 512, 16), 90),
    (Limits(256, 8192, 4096, 128), 210),
    (Limits(256, 8192, 32768, 128, 1, 4127, 4127), 210),
]


@pytest.mark.parametrize(("of", "most"), SERVERS)
def test_exponential_plans_stay_small(of: Limits, most: int) -> None:
    plan = ShapePlan(of, Exponential())
    assert len(plan.keys) <= most
    assert len(plan.covering) <= 12


@pytest.mark.parametrize("name", ["exp", "lin", "pad", "opt"])
@pytest.mark.parametrize("model_len", [1000, 1023, 1024, 1025])
def test_the_longest_requests_are_planned(name: str, model_len: int) -> None:
    """The top sizes exist also when the model length is no multiple of the block size."""
    of = Limits(max_num_seqs=6, max_num_batched_tokens=100, max_model_len=model_len, block_size=128)
    plan = ShapePlan(of, strategy_named(name, {}))
    full = -(-model_len // 128)
    decode = step_of([1] * 6, [model_len - 1] * 6, 128, 1)
    assert decode.decode_blocks == 6 * full
    assert plan.dispatch(decode) in plan
    assert plan.dispatch(decode).decode_blocks == 6 * full
    prefill = step_of([10] * 6, [model_len - 10] * 6, 128, 1)
    assert plan.dispatch(prefill) in plan
    assert plan.dispatch(prefill).prefill_blocks == 6 * full
    tokens = step_of([100], [0], 128, 1)
    assert plan.dispatch(tokens).tokens == 100


def test_blocks_beyond_the_planned_still_have_a_key() -> None:
    plan = ShapePlan(Limits(8, 64, 256, 16, max_decode_blocks=20), Exponential())
    inside = plan.dispatch(Step(8, 8, 20, 0, 0, 0))
    assert (inside.decode_blocks, inside in plan) == (20, True)
    beyond = plan.dispatch(Step(8, 8, 41, 0, 0, 0))
    assert (beyond.decode_blocks, beyond in plan) == (80, False)
    assert plan.dispatch(Step(8, 8, 128, 0, 0, 0)).decode_blocks == 128


def test_dispatch_values() -> None:
    plan = ShapePlan(Limits(6, 200, 256, 16, query_len=2), Exponential())
    assert plan.dispatch(Step(3, 4, 5, 0, 0, 0)) == GraphKey(8, 4, 8, False, 0)
    assert plan.dispatch(Step(5, 10, 90, 0, 0, 0)) == GraphKey(12, 6, 96, False, 0)
    assert plan.dispatch(Step(0, 0, 0, 1, 33, 0)) == GraphKey(64, 0, 0, True, 0)
    assert plan.dispatch(Step(0, 0, 0, 2, 129, 17)) == GraphKey(200, 0, 0, True, 64)
    assert plan.dispatch(Step(1, 1, 1, 1, 3, 0)) == GraphKey(32, 6, 24, True, 0)
    assert plan.dispatch(Step(0, 0, 0, 0, 0, 0)) == GraphKey(2, 1, 1, False, 0)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(9, 9, 9, 0, 0, 0), "9 decode rows"),
        (Step(8, 8, 129, 0, 0, 0), "129 decode blocks"),
        (Step(0, 0, 0, 1, 65, 0), "65 tokens"),
        (Step(0, 0, 0, 1, 8, 129), "129 prefill blocks"),
        (Step(2, 40, 2, 0, 0, 0), "40 tokens in 2 decode rows"),
    ],
)
def test_steps_outside_the_limits_are_refused(step: Step, message: str) -> None:
    plan = ShapePlan(Limits(8, 64, 256, 16), Exponential())
    with pytest.raises(ValueError, match=message):
        plan.dispatch(step)


@pytest.mark.parametrize(
    ("seqs", "buckets"), [(1, (1,)), (8, (1, 2, 4, 8)), (11, (1, 2, 4, 8, 11))]
)
def test_row_buckets(seqs: int, buckets: tuple[int, ...]) -> None:
    plan = ShapePlan(Limits(seqs, 64, 64, 16), Exponential())
    assert plan.row_buckets == buckets
    for number in range(1, seqs + 1):
        assert plan.rows(number) == min(size for size in buckets if size >= number)
    with pytest.raises(ValueError, match="max_num_seqs"):
        plan.rows(seqs + 1)


def test_a_plan_without_prefill() -> None:
    """When no row can have more than query_len tokens, all rows are decode rows."""
    plan = ShapePlan(Limits(2, 8, 3, 16, query_len=3), Exponential())
    assert {key.kind for key in plan.keys} == {"decode"}
    assert "prefill" not in plan.describe()
    with pytest.raises(ValueError, match="tokens"):
        plan.dispatch(Step(0, 0, 0, 1, 4, 0))


def test_dispatch_is_fast() -> None:
    """Under 5 µs also in the largest plan: it runs on every step."""
    plan = ShapePlan(Limits(256, 8192, 32768, 128, 1, 4127, 4127), Linear())
    step = Step(100, 100, 1111, 1, 777, 0)
    seconds = min(timeit.repeat(lambda: plan.dispatch(step), number=1000, repeat=20)) / 1000
    assert seconds < 5e-6


def test_settings_choose_strategy_and_cost() -> None:
    of = Limits(6, 200, 256, 16, query_len=2)
    cost = CostModel(TINY, 16, query_len=2)
    key = GraphKey(64, 6, 24, True, 0)
    for name, expected in [("time", cost.price), ("operations", cost.operations)]:
        settings = Settings.from_env({"VLLM_HPU_PLAN_COST": name, "VLLM_BUCKETING_STRATEGY": "pad"})
        plan = ShapePlan.from_settings(of, settings, TINY)
        assert plan.strategy.name == "padding-aware"
        assert plan.cost(key) == expected(key)
        assert ShapePlan.from_settings(of, settings).cost is padded_work


def test_describe_names_every_size() -> None:
    plan = ShapePlan(Limits(4, 64, 256, 16), Exponential())
    text = plan.describe()
    assert text.splitlines()[0] == f"Shape plan: {len(plan.keys)} graphs, strategy exponential"
    assert "rows 1, 2, 4; decode blocks 1, 2, 4, 8, 16, 32, 64" in text
    assert sum(int(line.split()[1]) for line in text.splitlines()[1:]) == len(plan.keys)
    assert "..." in ShapePlan(Limits(64, 2048, 2048, 16), Linear()).describe()


def test_keys_read_well() -> None:
    assert str(GraphKey(8, 8, 16, False, 0)) == "decode 8 rows, 16 blocks"
    assert str(GraphKey(1, 1, 1, False, 0)) == "decode 1 row, 1 block"
    assert str(GraphKey(64, 0, 0, True, 0)) == "prefill 64 tokens, no context"
    assert (
        str(GraphKey(64, 8, 16, True, 4)) == "mixed 64 tokens, 4 blocks + decode 8 rows, 16 blocks"
    )


def test_geometric() -> None:
    assert geometric(1, 8) == (1, 2, 4, 8)
    assert geometric(1, 9) == (1, 2, 4, 9)
    assert geometric(1, 10) == (1, 2, 4, 8, 10)
    assert geometric(32, 5) == (5,)
    assert geometric(32, 0) == ()
    assert geometric(1, 64, 4) == (1, 4, 16, 64)


class _Wrong:
    """A strategy whose largest number of rows is not what the limits need."""

    name = "wrong"

    def __init__(self, change: dict[str, Grid]) -> None:
        self.change = change

    def keys(self, of: Limits, cost: Cost) -> Iterable[GraphKey]:
        return replace(Exponential().grids(of), **self.change).keys(of)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decode_rows": (1, 2)}, r"No decode key .* wrong covers \(4, 64\)"),
        ({"prefill_tokens": (32,)}, r"No prefill key .* covers \(64, 64\)"),
        ({"prefill_tokens": ()}, r"No prefill key .* covers \(64, 64\)"),
        ({"mixed_prefill_blocks": (20,)}, r"No cached prefill key .* covers \(64, 64, 64\)"),
    ],
)
def test_a_strategy_that_leaves_a_gap_is_refused(change: dict[str, Grid], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ShapePlan(Limits(4, 64, 256, 16), _Wrong(change))
    with pytest.raises(ValueError, match="increasing"):
        Grids((1, 1), (1,), (1,), (1,), (1,), (1,))


def test_shapes_need_neither_torch_nor_vllm() -> None:
    program = (
        "import sys, vllm_hpu.shapes.strategies, vllm_hpu.settings;"
        "print([m for m in ('torch', 'vllm', 'habana_frameworks') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

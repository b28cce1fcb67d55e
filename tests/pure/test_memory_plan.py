"""Sharing out a card is arithmetic: it must add up, and offer only what fits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vllm_hpu.engine_plan import engine_limits
from vllm_hpu.memory.plan import (
    Ask,
    Need,
    Room,
    corrected,
    largest,
    planned_blocks,
    share_out,
    ways_out,
)
from vllm_hpu.memory.predict import predict, weight_bytes
from vllm_hpu.memory.refusal import Prediction
from vllm_hpu.planner.memory_forecast import forecast
from vllm_hpu.shapes.model import ModelShape

SIZE = st.integers(0, 1 << 40)
NEEDS = st.builds(
    Need,
    weights=SIZE,
    buffers=SIZE,
    steps=SIZE,
    sampler=SIZE,
    graphs=SIZE,
    kv_block=st.integers(1, 1 << 30),
    kv_least=st.integers(1, 1 << 12),
)
ROOMS = st.builds(
    Room, usable=st.integers(1, 1 << 42), reserve=st.floats(0, 0.99), kv_bytes=st.none() | SIZE
)
MODEL = ModelShape(
    layers=4, hidden=256, heads=8, kv_heads=2, head_size=32, intermediate=688, vocab=4096
)


@given(NEEDS, ROOMS)
def test_a_plan_that_fits_adds_up(need: Need, room: Room) -> None:
    plan = share_out(need, room)
    if not plan.fits:
        assert plan.missing > 0
        return
    assert need.fixed + plan.kv + plan.reserve == room.usable
    assert plan.reserve >= 0
    if room.kv_bytes is None:
        assert plan.kv >= need.kv_least * need.kv_block
    else:
        assert plan.kv == room.kv_bytes


@given(NEEDS, ROOMS)
def test_what_is_missing_is_exactly_enough(need: Need, room: Room) -> None:
    plan = share_out(need, room)
    assert share_out(need, replace(room, usable=room.usable + plan.missing)).fits
    if plan.missing:
        assert not share_out(need, replace(room, usable=room.usable + plan.missing - 1)).fits


@given(NEEDS, st.integers(1, 1 << 42), st.floats(0, 0.99))
def test_the_reserve_gives_way_to_the_smallest_cache(need: Need, usable: int, share: float) -> None:
    without, kept = (share_out(need, Room(usable, reserve)) for reserve in (0.0, share))
    assert without.fits == kept.fits
    if kept.fits:
        assert kept.kv <= without.kv
        least = need.kv_least * need.kv_block
        assert kept.kv == least or kept.reserve >= int(share * without.kv)


@given(NEEDS, ROOMS, st.integers(1, 1 << 20))
def test_fewer_blocks_are_planned_until_all_fits(need: Need, room: Room, more: int) -> None:
    most = need.kv_least + more
    blocks = planned_blocks(most, need, room)
    assert need.kv_least <= blocks <= most
    plan = share_out(need, room)
    fits = plan.fits and (room.kv_bytes is not None or plan.kv_blocks >= most)
    assert (blocks == most) == fits
    if fits or room.kv_bytes is not None or blocks == need.kv_least:
        return
    # Were steps proportional to the blocks, cache and steps would fit together.
    scaled = (need.transient + need.graphs) * blocks / most
    left = (room.usable - need.weights - need.buffers) * (1 - room.reserve)
    assert blocks * need.kv_block + scaled <= left * (1 + 1e-9)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 64))
def test_the_largest_that_fits_is_found(most: int, limit: int, step: int) -> None:
    found = largest(most, lambda value: value <= limit, step)
    assert found <= min(most, limit)
    assert found == most or found % step == 0
    if found < most:
        assert found + step > limit


ASKS = st.builds(
    Ask,
    max_model_len=st.integers(1, 1 << 15),
    max_num_seqs=st.integers(1, 256),
    max_num_batched_tokens=st.integers(256, 8192),
)


def need_of(ask: Ask, block_size: int = 128, graphs: bool = True) -> Need:
    limits = engine_limits(
        ask.max_num_seqs,
        ask.max_num_batched_tokens,
        ask.max_model_len,
        block_size,
        num_blocks=-(-ask.max_model_len // block_size) + 1,
    )
    return predict(MODEL, limits, graphs)


def fits_in(usable: int, ask: Ask) -> bool:
    return share_out(need_of(ask), Room(usable)).fits


def read(way: str, ask: Ask) -> Ask:
    """``ask`` with the flags of ``way``."""
    words = way.split()
    flags = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    return replace(ask, **{flag[2:].replace("-", "_"): value for flag, value in flags.items()})


@given(ASKS, st.integers(1 << 22, 1 << 33))
def test_every_way_out_fits_and_is_the_largest(ask: Ask, usable: int) -> None:
    def fits(one: Ask) -> bool:
        return fits_in(usable, one)

    ways = ways_out(ask, 128, fits)
    for way in ways:
        changed = read(way, ask)
        assert fits(changed)
        alone = len(way.split()) == 2
        if alone and changed != ask:
            name = way.split()[0]
            step = 1 if name == "--max-num-seqs" else 128
            value = int(way.split()[1])
            assert not fits(read(f"{name} {value + step}", ask)) or value + step > getattr(
                ask, name[2:].replace("-", "_")
            )
    if not ways:
        assert not fits(Ask(128, 1, min(ask.max_num_batched_tokens, 512)))


@given(ASKS, st.booleans())
def test_the_prediction_grows_with_every_limit(ask: Ask, graphs: bool) -> None:
    need = need_of(ask, graphs=graphs)
    larger = [
        replace(ask, max_model_len=ask.max_model_len + 128),
        replace(ask, max_num_batched_tokens=ask.max_num_batched_tokens + 128),
    ]
    if ask.max_num_seqs < ask.max_num_batched_tokens:
        larger.append(replace(ask, max_num_seqs=ask.max_num_seqs + 1))
    for one in larger:
        assert need_of(one, graphs=graphs).least >= need.least
    assert (need.graphs > 0) == graphs


def test_weights_of_a_known_model() -> None:
    """Llama 3.1 8B: 8,030,261,248 parameters, of which 266,240 are norms."""
    llama = ModelShape(
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_size=128,
        intermediate=14336,
        vocab=128256,
    )
    assert weight_bytes(llama) == 2 * (8_030_261_248 - 266_240)


@given(ASKS, st.integers(1 << 22, 1 << 36), st.floats(0, 0.9))
def test_a_forecast_is_a_plan_that_fits_or_a_refusal(ask: Ask, usable: int, reserve: float) -> None:
    of = Prediction(ask, 128, 1, MODEL, graphs=True)
    most = ask.max_num_seqs * -(-ask.max_model_len // 128)
    room = Room(usable, reserve)
    found = forecast(of, most, room, usable)
    assert found is not None
    assert 1 <= found.blocks <= max(most, found.plan.need.kv_least)
    if found.refused is None:
        assert found.plan.missing == 0
        # The cache holds every step that is planned.
        assert found.plan.kv_blocks >= min(found.blocks, most)
        more = forecast(of, most, Room(2 * usable, reserve), 2 * usable)
        assert more is not None
        assert more.blocks >= found.blocks
    else:
        assert "does not fit" in found.refused
        need = of.of(ask)
        assert need is not None
        assert not share_out(need, room).fits


def test_no_forecast_without_sizes() -> None:
    of = Prediction(Ask(1024, 8, 512), 128, 1, None, graphs=True)
    assert forecast(of, 64, Room(1 << 30), 1 << 30) is None


@given(NEEDS, NEEDS, NEEDS)
def test_a_correction_never_lowers_what_was_predicted(
    predicted: Need, measured: Need, expected: Need
) -> None:
    need = corrected(predicted, measured, expected)
    assert (need.weights, need.kv_block) == (measured.weights, measured.kv_block)
    for name in ("buffers", "steps", "sampler", "graphs", "kv_least"):
        assert getattr(need, name) >= getattr(predicted, name)


@given(NEEDS, NEEDS)
def test_a_correction_of_the_same_limits_is_at_least_what_was_measured(
    expected: Need, measured: Need
) -> None:
    need = corrected(expected, measured, expected)
    for name in ("buffers", "steps", "sampler", "graphs", "kv_least"):
        if getattr(expected, name):
            assert getattr(need, name) >= getattr(measured, name)

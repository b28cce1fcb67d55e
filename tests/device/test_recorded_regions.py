"""A compiled region runs again without Python, on the tensors of each call."""

import sys
from contextlib import contextmanager

import gaudi_emulator._C as _C  # noqa: PLR0402 (mypy finds the stub of an extension only so)
import habana_frameworks.torch  # noqa: F401 - registers the device
import pytest
import torch
from habana_frameworks.torch.internal import bridge_config

from .conftest import counted, emulated_only, run_python

pytestmark = [emulated_only, pytest.mark.usefixtures("compiling")]


def compiled(function):
    return torch.compile(function, backend="hpu_backend", dynamic=False, fullgraph=True)


@contextmanager
def traced_calls():
    """How often Python runs the code of a traced graph inside the block."""
    calls = []

    def notice(frame, event, _):
        if event == "call" and "eval_with_key" in frame.f_code.co_filename:
            calls.append(frame.f_code.co_name)

    sys.setprofile(notice)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def on_card(*shape):
    return torch.randn(*shape, device="hpu")


def layer(x, gamma, weight):
    y = torch.ops.hpu.rms_norm(x, gamma, 1e-6)[0]
    gate, up = torch.nn.functional.linear(y, weight).chunk(2, -1)
    return torch.nn.functional.silu(gate) * up + x, gate


def test_results_in_compile_only_mode_can_be_used_as_indices():
    run = compiled(lambda x: x.cumsum(0) - 1)
    ones, table = torch.ones(64, dtype=torch.int64, device="hpu"), on_card(64, 4)
    run(ones)
    with bridge_config.env_setting("PT_COMPILE_ONLY_MODE", True):
        table.index_select(0, run(ones))


def test_later_calls_run_without_python_and_keep_earlier_results():
    run = compiled(layer)
    gamma, weight = torch.rand(8, device="hpu"), on_card(16, 8)
    inputs = [on_card(3, 8) for _ in range(4)]
    kept = [run(inputs[0], gamma, weight)]
    with traced_calls() as calls, counted() as happened:
        kept += [run(x, gamma, weight) for x in inputs[1:]]
    assert calls == []
    assert happened.region_launches == 3
    assert happened.eager_launches == 0
    assert happened.fused_ops >= 3 * 5
    for x, results in zip(inputs, kept, strict=True):
        for found, expected in zip(results, layer(x, gamma, weight), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
            assert found.stride() == expected.stride()


def test_other_weights_are_other_inputs():
    """One region serves all layers of a kind, as one recipe does."""
    run = compiled(layer)
    x = on_card(2, 8)
    weights = [(torch.rand(8, device="hpu"), on_card(16, 8)) for _ in range(3)]
    run(x, *weights[0])
    with traced_calls() as calls:
        for gamma, weight in weights:
            torch.testing.assert_close(run(x, gamma, weight), layer(x, gamma, weight))
    assert calls == []


def test_writes_reach_the_slice_that_a_call_was_given():
    @compiled
    def store(cache, slots, rows):
        cache.index_copy_(0, slots, rows)
        return cache.sum(), cache[1:3]

    caches = torch.zeros(3, 4, 2, device="hpu")
    slots = torch.tensor([1, 3], device="hpu")
    for number in range(3):
        rows = torch.full((2, 2), float(number + 1), device="hpu")
        with traced_calls() as calls:
            total, view = store(caches[number], slots, rows)
        assert bool(calls) == (number == 0)
        assert total.item() == 4 * (number + 1)
        assert view.data_ptr() == caches[number, 1].data_ptr()
    assert caches.sum((1, 2)).tolist() == [4, 8, 12]


def test_a_result_that_is_an_input_stays_one():
    @compiled
    def advance(x, y):
        x.add_(y)
        return x, x.view(-1)

    for _ in range(3):
        x, y = torch.zeros(2, 3, device="hpu"), torch.ones(2, 3, device="hpu")
        same, flat = advance(x, y)
        assert same.data_ptr() == x.data_ptr() == flat.data_ptr()
        assert flat.tolist() == [1] * 6


def test_inputs_that_share_memory_differently():
    @compiled
    def shift(target, source):
        target.copy_(source)
        return target + source

    def expected(target, source):
        target.copy_(source)
        return target + source

    def halves(buffer):
        return buffer[:4], buffer[4:]

    def apart(buffer):
        return buffer[:4], buffer[4:].clone()

    for split in (halves, apart, halves):
        found, wanted = torch.arange(8.0, device="hpu"), torch.arange(8.0, device="hpu")
        torch.testing.assert_close(shift(*split(found)), expected(*split(wanted)))
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.tensor([1.0, 2.0], device="hpu"),
        lambda x: torch.nn.functional.dropout(x, 0.0, training=True) + 1,
        lambda x: torch.as_strided(x, (2,), (1,), 0) * 2,
    ],
    ids=["host values", "random", "absolute offset"],
)
def test_what_cannot_be_recorded_is_traced_every_time(function):
    run = compiled(function)
    for _ in range(3):
        x = on_card(2)
        torch.testing.assert_close(run(x), function(x))


def test_operators_of_others_are_called_every_time():
    """They may look at something that no input shows: here, at which call it is."""
    library = torch.library.Library("recorded_regions", "FRAGMENT")
    library.define("numbered(Tensor x) -> Tensor")
    numbers = iter(range(10))
    library.impl("numbered", lambda x: x + next(numbers), "HPU")
    library.impl("numbered", torch.empty_like, "Meta")
    run = compiled(lambda x: torch.ops.recorded_regions.numbered(x) * 2)
    zero = torch.zeros(1, device="hpu")
    assert [run(zero).item() for _ in range(4)] == [0, 2, 4, 6]


def test_a_gradient_is_not_lost():
    with torch.inference_mode(False):
        run = torch.compile(lambda x, w: (x * w).sum(), backend="hpu_backend", dynamic=False)
        w = torch.ones(3, device="hpu", requires_grad=True)
        with torch.no_grad():
            run(on_card(3), w)
            run(on_card(3), w)
        x = on_card(3)
        run(x, w).backward()
        torch.testing.assert_close(w.grad, x)


def test_results_belong_to_the_mode_of_the_caller():
    """AOTAutograd saves what a forward graph returns; an inference tensor cannot be saved."""
    with torch.inference_mode(False):
        run = compiled(lambda x: (x * 2, x[0]))
        x = on_card(3)
        with torch.no_grad():
            assert not any(y.is_inference() for _ in range(3) for y in run(x))


def test_a_training_loop_gets_the_gradients_of_every_step():
    with torch.inference_mode(False):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(10, 15), torch.nn.Tanh(), torch.nn.Linear(15, 5), torch.nn.Softmax(-1)
        ).to("hpu")
        run = torch.compile(model, backend="hpu_backend", dynamic=False)
        for _ in range(4):
            x = on_card(4, 10)
            wanted = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
            found = torch.autograd.grad(run(x).square().sum(), list(model.parameters()))
            for ours, theirs in zip(found, wanted, strict=True):
                torch.testing.assert_close(ours, theirs)


def test_memory_comes_back():
    run = compiled(lambda x: (x @ x).relu() @ x)
    x = on_card(64, 64)
    run(x)
    before = torch.hpu.memory_allocated()
    result = run(x)
    assert torch.hpu.memory_allocated() == before + result.numel() * 4
    del result
    assert torch.hpu.memory_allocated() == before


def record(function, *inputs):
    region = _C.Region()
    region.record_begin()
    outputs = function(*inputs)
    return region, region.record_end(inputs, outputs), outputs


def test_a_tensor_that_is_no_input_is_an_obstacle():
    hidden = on_card(2)
    region, recorded, _ = record(lambda x: [x + hidden], on_card(2))
    assert not recorded
    assert "no input" in region.obstacle
    assert region.run([on_card(2)]) is None


def test_other_geometry_is_not_run():
    region, recorded, _ = record(lambda x: [x * 2], on_card(4, 2))
    assert recorded
    x = on_card(4, 2)
    torch.testing.assert_close(region.run([x])[0], x * 2)
    for other in (on_card(2, 4), on_card(2, 4).t(), x.double(), x.to("cpu")):
        assert region.run([other]) is None
    assert region.run([x, x]) is None


def test_fresh_memory_of_a_region_is_poisoned():
    """Reading what a region allocates and never writes gives NaN, as outside of it."""
    code = """
import torch, habana_frameworks.torch
import gaudi_emulator._C as _C  # noqa: PLR0402 (mypy finds the stub of an extension only so)
region = _C.Region()
x = torch.ones(4, device="hpu")
with torch.inference_mode():
    for _ in range(2):
        results = region.run([x])
        if results is None:
            region.record_begin()
            y = torch.empty(4, device="hpu")
            y[:2].copy_(x[:2])
            assert region.record_end([x], [y]), region.obstacle
            results = [y]
        print(results[0].tolist())
"""
    done = run_python(code, GAUDI_EMULATOR_POISON="1")
    assert done.stdout.splitlines() == ["[1.0, 1.0, nan, nan]"] * 2, done.stderr


def test_an_error_ends_the_recording():
    region = _C.Region()
    region.record_begin()
    region.record_abandon()
    assert not _C.is_capturing()


def test_a_fault_strikes_a_run_once():
    from gaudi_emulator import faults

    run, x = compiled(lambda x: (x + 1) * 2), on_card(8)
    expected = run(x).tolist()
    with faults.armed("launch:2:nan"):
        assert run(x).tolist() == expected
        assert run(x).isnan().all()
        assert run(x).tolist() == expected
    with faults.armed("launch:1:device_error"), pytest.raises(RuntimeError, match="synStatus 26"):
        run(x)
    assert run(x).tolist() == expected

"""A region runs as the mode says that was chosen last, whenever its module was imported."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import habana_frameworks.torch  # noqa: F401  (brings the hpu device)
import pytest
import torch
from gaudi_emulator import counters

from vllm_hpu.graphs import region as regions
from vllm_hpu.graphs.compiled_layers import compile_region
from vllm_hpu.graphs.mode import Mode

from .attention_case import make, reference
from .conftest import emulated_only


@pytest.fixture
def mode() -> Iterator[Callable[[Any], None]]:
    """Sets how regions run, for the test."""
    before = regions._mode[0]
    yield regions.use
    regions.use(before)


def plus(x: int, y: int) -> int:
    return x + y


def test_regions_made_before_and_after_the_mode_was_chosen(
    mode: Callable[[Any], None],
) -> None:
    def wrap(name: str) -> Any:
        return lambda function, per_shape: lambda *args: (name, per_shape, function(*args))

    early = regions.region(plus)
    mode(None)
    assert early(1, 2) == 3
    mode(wrap("first"))
    late = regions.region(plus, per_shape=True)
    assert early(1, 2) == ("first", False, 3)
    assert late(1, 2) == ("first", True, 3)
    mode(wrap("second"))
    assert early(1, 2) == ("second", False, 3)
    mode(None)
    assert late(1, 2) == 3


def test_a_region_is_wrapped_once(mode: Callable[[Any], None]) -> None:
    made = []
    mode(lambda function, per_shape: made.append(function) or function)
    again = regions.region(plus)
    assert (again(1, 2), again(3, 4)) == (3, 7)
    assert made == [plus]


@emulated_only
@pytest.mark.usefixtures("compiling")
def test_latent_attention_writes_and_reads_in_one_region(mode: Callable[[Any], None]) -> None:
    """Compile mode: no operator on its own but those that put a layer's operands together."""
    from . import test_attention_mla as latent

    mode(partial(compile_region, mode=Mode.COMPILE))
    step = make(latent.random_case(3), "hpu", parts=1)
    impl = latent.impl_for(step.case)
    cache = step.cache.squeeze(1)
    parts = step.key.squeeze(1).split([latent.LATENT, latent.ROPE], dim=-1)
    before = counters()
    step.metadata.plans(impl.need(cache, step.query.dtype))
    impl.do_kv_cache_update(
        *parts, cache, step.metadata.slot_mapping, "auto", torch.ones(1, device="cpu")
    )
    output, _ = impl.forward_mqa(step.query, cache, step.metadata, None)
    done = counters() - before
    assert done.region_launches == 2  # the plans, and the layer
    assert done.eager_launches <= 1  # the latents' two parts
    expected = reference(step)[..., : latent.LATENT]
    torch.testing.assert_close(
        output.cpu()[: step.case.tokens].double(), expected, rtol=0, atol=3e-6
    )

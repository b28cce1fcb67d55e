"""Random numbers: seeds, generators, states, independence of host and cards."""

import pytest
import torch

DRAWS = {
    "rand": lambda **k: torch.rand(16, **k),
    "randn": lambda **k: torch.randn(16, **k),
    "randint": lambda **k: torch.randint(0, 100, (16,), **k),
    "randperm": lambda **k: torch.randperm(16, **k),
}
FILLS = {
    "normal_": lambda x, g: x.normal_(generator=g),
    "uniform_": lambda x, g: x.uniform_(generator=g),
    "exponential_": lambda x, g: x.exponential_(generator=g),
    "bernoulli_": lambda x, g: x.bernoulli_(0.5, generator=g),
    "multinomial": lambda x, g: torch.multinomial(x.fill_(1.0), 8, generator=g),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_same_seed_draws_the_same_numbers(draw):
    torch.manual_seed(7)
    first = draw(device="hpu")
    torch.hpu.manual_seed(7)
    assert torch.equal(draw(device="hpu"), first)
    assert not torch.equal(draw(device="hpu"), first)


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_generators_are_used_and_leave_the_default_alone(fill):
    state = torch.hpu.get_rng_state()
    results = []
    for _ in range(2):
        generator = torch.Generator(device="hpu").manual_seed(3)
        x = torch.empty(16, device="hpu")
        results += [fill(x, generator).clone(), fill(x, generator).clone()]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])
    assert torch.equal(torch.hpu.get_rng_state(), state)


def test_states_can_be_kept_and_restored():
    generator = torch.Generator(device="hpu").manual_seed(1)
    state = generator.get_state()
    first = torch.rand(4, device="hpu", generator=generator)
    generator.set_state(state)
    assert torch.equal(torch.rand(4, device="hpu", generator=generator), first)
    states = torch.hpu.get_rng_state_all()
    drawn = torch.rand(4, device="hpu")
    torch.hpu.set_rng_state_all(states)
    assert torch.equal(torch.rand(4, device="hpu"), drawn)
    with torch.random.fork_rng(devices=[0], device_type="hpu"):
        torch.rand(4, device="hpu")
    torch.hpu.set_rng_state_all(states)
    assert torch.equal(torch.rand(4, device="hpu"), drawn)


def test_host_and_cards_do_not_disturb_each_other():
    host, card = torch.get_rng_state(), torch.hpu.get_rng_state()
    torch.rand(4, device="hpu")
    torch.nn.functional.dropout(torch.ones(64, device="hpu"))
    assert torch.equal(torch.get_rng_state(), host)
    assert not torch.equal(torch.hpu.get_rng_state(), card)
    card = torch.hpu.get_rng_state()
    torch.rand(4)
    assert torch.equal(torch.hpu.get_rng_state(), card)


def test_dropout_follows_the_seed_of_the_card():
    x = torch.ones(256, device="hpu")
    torch.hpu.manual_seed(1)
    first = torch.nn.functional.dropout(x)
    torch.hpu.manual_seed(1)
    assert torch.equal(torch.nn.functional.dropout(x), first)
    assert 0 < int((first == 0).sum()) < 256


def test_every_card_has_its_own_generator():
    torch.hpu.manual_seed_all(11)
    first = torch.rand(4, device="hpu:0")
    assert torch.equal(torch.rand(4, device="hpu:1").cpu(), first.cpu())
    assert torch.hpu.initial_seed() == 11
    assert len(torch.hpu.default_generators) == torch.hpu.device_count()


def test_generators_of_the_host_are_taken():
    host = torch.Generator().manual_seed(3)
    first, second = (torch.rand(4, device="hpu", generator=host).tolist() for _ in range(2))
    assert first != second
    host.manual_seed(3)
    assert torch.empty(4, device="hpu").uniform_(generator=host).tolist() == first


def test_generators_of_another_card_are_refused():
    with pytest.raises(RuntimeError, match="generator of hpu:0"):
        torch.rand(2, device="hpu:0", generator=torch.Generator(device="hpu:1"))


def test_host_and_card_draw_different_numbers_from_one_seed():
    torch.manual_seed(5)
    host, card = torch.rand(256), torch.rand(256, device="hpu").cpu()
    assert abs(torch.corrcoef(torch.stack([host, card]))[0, 1]) < 0.3
    torch.manual_seed(5)
    drawn = torch.bernoulli(torch.rand(256).to("hpu"))
    assert 64 < int(drawn.sum()) < 192
    generator = torch.Generator(device="hpu")
    assert torch.initial_seed() == torch.hpu.initial_seed() == 5
    assert generator.manual_seed(2**63 + 9).initial_seed() == 2**63 + 9
    assert generator.seed() == generator.initial_seed()


def test_host_and_card_have_one_state_after_one_seed():
    torch.manual_seed(8)
    state = torch.hpu.get_rng_state()
    assert torch.equal(state, torch.get_rng_state())
    first = torch.rand(4, device="hpu").cpu()
    later = torch.hpu.get_rng_state()
    assert not torch.equal(later, state)
    second = torch.rand(4, device="hpu").cpu()
    torch.hpu.manual_seed(9)
    for kept, drawn in ((state, first), (later, second)):
        torch.hpu.set_rng_state(kept)
        assert torch.hpu.initial_seed() == 8
        assert torch.equal(torch.hpu.get_rng_state(), kept)
        assert torch.equal(torch.rand(4, device="hpu").cpu(), drawn)
    torch.hpu.set_rng_state(torch.Generator().manual_seed(8).get_state())
    assert torch.equal(torch.rand(4, device="hpu").cpu(), first)

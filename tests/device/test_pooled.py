"""Poolers in one shape against float64 arithmetic, row by row."""

import habana_frameworks.torch  # noqa: F401
import pytest
import torch
from torch import nn

from vllm_hpu.kernels import register

register()

from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.model_executor.layers.pooler.activations import (  # noqa: E402
    PoolerMultiLabelClassify,
    PoolerNormalize,
)
from vllm.model_executor.layers.pooler.seqwise import (  # noqa: E402
    ClassifierPoolerHead,
    CLSPool,
    EmbeddingPoolerHead,
    LastPool,
    MeanPool,
    SequencePooler,
)
from vllm.model_executor.layers.pooler.tokwise import (  # noqa: E402
    AllPool,
    TokenClassifierPoolerHead,
    TokenEmbeddingPoolerHead,
    TokenPooler,
)

from vllm_hpu.pooling.pooled import is_planned, is_tokenwise, pool  # noqa: E402

LENGTHS, ROWS, TOKENS, HIDDEN, SIZE = [3, 1, 7], 5, 16, 8, 6


@pytest.fixture
def hidden() -> torch.Tensor:
    """[TOKENS, HIDDEN]; NaN behind the rows' tokens, as in memory that nobody has written."""
    states = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0))
    states[sum(LENGTHS) :] = float("nan")
    return states


@pytest.fixture
def starts() -> torch.Tensor:
    """[ROWS + 1]; the last two rows are padding."""
    ends = torch.tensor([0, *LENGTHS, 0, 0]).cumsum(0)
    return ends.to(torch.int32).to("hpu")


def rows_of(hidden: torch.Tensor) -> list[torch.Tensor]:
    return list(hidden[: sum(LENGTHS)].to(torch.float64).split(LENGTHS))


def sizes(*wanted: int) -> torch.Tensor:
    return torch.tensor([*wanted, *[0] * (ROWS - len(wanted))], dtype=torch.int32, device="hpu")


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(HIDDEN, SIZE)


PICKS = {
    CLSPool: lambda row: row[0],
    LastPool: lambda row: row[-1],
    MeanPool: lambda row: row.mean(0),
}


@pytest.mark.parametrize("method", PICKS)
@torch.inference_mode()
def test_embeddings(method, hidden, starts):
    projector = linear()
    head = EmbeddingPoolerHead(projector=projector.to("hpu"), activation=PoolerNormalize())
    pooler = SequencePooler(method(), head)
    assert is_planned(pooler)
    assert not is_tokenwise(pooler)
    found = pool(pooler, hidden.to("hpu"), starts, sizes(0, 2, 6))
    weight, bias = (one.double().cpu() for one in (projector.weight, projector.bias))
    for number, (row, wanted) in enumerate(zip(rows_of(hidden), (SIZE, 2, 6), strict=True)):
        plain = (PICKS[method](row) @ weight.T + bias)[:wanted]
        torch.testing.assert_close(
            found.plain[number].cpu().double()[:wanted], plain, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            found.activated[number].cpu().double()[:wanted],
            plain / plain.norm(),
            atol=1e-5,
            rtol=1e-5,
        )


@torch.inference_mode()
def test_classes_on_an_encoders_pooler(hidden, starts):
    """A cross-encoder's classifier stands on its encoder's own pooler."""
    dense, classifier = linear(), nn.Linear(SIZE, 2)
    inner = SequencePooler(
        CLSPool(), EmbeddingPoolerHead(projector=lambda x: torch.tanh(dense.to("hpu")(x)))
    )
    head = ClassifierPoolerHead(
        classifier=classifier.to("hpu"),
        logit_mean=0.5,
        logit_sigma=2.0,
        activation=PoolerMultiLabelClassify(),
    )
    pooler = SequencePooler(inner, head)
    assert is_planned(pooler)
    found = pool(pooler, hidden.to("hpu"), starts, sizes())
    first, second = dense.cpu().double(), classifier.cpu().double()
    for number, row in enumerate(rows_of(hidden)):
        plain = (second(torch.tanh(first(row[0]))) - 0.5) / 2.0
        torch.testing.assert_close(found.plain[number].cpu().double(), plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            found.activated[number].cpu().double(), plain.sigmoid(), atol=1e-5, rtol=1e-5
        )


@torch.inference_mode()
def test_every_token(hidden, starts):
    with set_current_vllm_config(VllmConfig()):
        method = AllPool()
    pooler = TokenPooler(method, TokenEmbeddingPoolerHead(activation=PoolerNormalize()))
    assert is_planned(pooler)
    assert is_tokenwise(pooler)
    found = pool(pooler, hidden.to("hpu"), starts, sizes(0, 0, 3))
    expected = torch.cat(
        [
            nn.functional.normalize(row[:, :wanted], dim=-1)
            for row, wanted in zip(rows_of(hidden)[2:], (3,), strict=True)
        ]
    )
    tokens = slice(sum(LENGTHS[:2]), sum(LENGTHS))
    torch.testing.assert_close(
        found.activated[tokens, :3].cpu().double(), expected, atol=1e-5, rtol=1e-5
    )


def test_others_are_left_to_vllm():
    class Reversed(SequencePooler):
        def forward(self, hidden_states, pooling_metadata):
            return super().forward(hidden_states.flip(0), pooling_metadata)

    head = EmbeddingPoolerHead()
    assert not is_planned(Reversed(CLSPool(), head))
    assert not is_planned(SequencePooler(lambda hidden, metadata: hidden, head))
    assert not is_planned(SequencePooler(CLSPool(), lambda pooled, metadata: pooled))


@torch.inference_mode()
def test_results_are_no_views_of_hidden_states(hidden, starts):
    """The next step's forward writes there while the host still reads."""
    head = ClassifierPoolerHead()
    states = hidden.to("hpu")
    pooler = SequencePooler(LastPool(), head)
    for method in (pooler, TokenPooler(LastPool(), TokenClassifierPoolerHead())):
        found = pool(method, states, starts, sizes())
        before = found.plain.cpu()
        states.fill_(7.0)
        torch.testing.assert_close(found.plain.cpu(), before, equal_nan=True)
        states.copy_(hidden)

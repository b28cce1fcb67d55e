"""Prompt lookup on the device against the same rules in plain Python."""

import dataclasses
import random

import pytest
import torch

from vllm_hpu.spec_decode.ngram import lookup, window_for


def plain_lookup(tokens, min_n, max_n, k):
    """What followed the last earlier occurrence of the longest repeated suffix; None: no match."""
    for n in range(min(max_n, len(tokens) - 1), min_n - 1, -1):
        suffix = tokens[-n:]
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == suffix:
                return tokens[start + n : start + n + k]
    return None


def table(rows, window, rubbish):
    """Rows left-aligned in ``[rows, window]``, whatever behind them."""
    filled = [row + [rubbish.randrange(9) for _ in range(window - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int32).to("hpu")


@pytest.mark.parametrize(("min_n", "max_n"), [(1, 1), (1, 3), (2, 4), (3, 3), (5, 8)])
@pytest.mark.parametrize("k", [1, 4])
def test_lookup_against_plain_python(min_n, max_n, k):
    random_numbers = random.Random(f"{min_n}-{max_n}-{k}")
    window = 40
    rows = [
        [random_numbers.randrange(alphabet) for _ in range(random_numbers.randint(1, window))]
        for alphabet in (2, 3, 6)
        for _ in range(40)
    ]
    drafts, found = lookup(
        table(rows, window, random_numbers),
        torch.tensor([len(row) for row in rows], dtype=torch.int32).to("hpu"),
        min_n,
        max_n,
        k,
    )
    assert drafts.device.type == "hpu"
    matches = 0
    for row, got, ok in zip(rows, drafts.tolist(), found.tolist(), strict=True):
        wanted = plain_lookup(row, min_n, max_n, k)
        assert [token for token, there in zip(got, ok, strict=True) if there] == (wanted or [])
        matches += wanted is not None
    assert matches > 0


def test_longest_match_wins_over_the_last_one():
    #       [1 2 3] 9           [3] 7          [1 2 3] -> 9, not 7
    row = [1, 2, 3, 9, 5, 3, 7, 4, 1, 2, 3]
    lengths = torch.tensor([len(row)], dtype=torch.int32).to("hpu")
    drafts, found = lookup(torch.tensor([row], dtype=torch.int32).to("hpu"), lengths, 1, 3, 2)
    assert drafts.tolist() == [[9, 5]]
    assert found.tolist() == [[True, True]]


def test_last_of_equally_long_matches_wins():
    row = [1, 2, 8, 1, 2, 9, 1, 2]
    lengths = torch.tensor([len(row)], dtype=torch.int32).to("hpu")
    drafts, _ = lookup(torch.tensor([row], dtype=torch.int32).to("hpu"), lengths, 2, 2, 1)
    assert drafts.tolist() == [[9]]


def test_tokens_behind_the_row_do_not_matter():
    row = [4, 5, 6, 4, 5]
    padded = [*row, 4, 5, 6, 4, 5, 7]
    lengths = torch.tensor([len(row)], dtype=torch.int32).to("hpu")
    drafts, found = lookup(torch.tensor([padded], dtype=torch.int32).to("hpu"), lengths, 1, 2, 5)
    assert found.tolist() == [[True, True, True, False, False]]
    assert drafts.tolist()[0][:3] == [6, 4, 5]


@pytest.mark.parametrize("longest", [1, 255, 256, 257, 4000, 5000, 8192])
def test_window_covers_the_row_with_few_sizes(longest):
    window = window_for(longest, 8192)
    assert longest <= window <= 8192
    assert window in (256, 512, 1024, 2048, 4096, 8192)


def test_window_never_exceeds_the_table():
    assert window_for(90, 100) == 100


ROWS, LIMIT, DRAFTS = 4, 64, 3


@pytest.fixture(scope="module")
def speculative_config(model_directory):
    """An engine's configuration with ngram speculation, as the command line makes it."""
    from vllm.engine.arg_utils import EngineArgs

    from models.tiny import build

    return EngineArgs(
        model=str(build("llama", model_directory)),
        max_model_len=LIMIT,
        max_num_seqs=ROWS,
        max_num_batched_tokens=LIMIT,
        speculative_config={
            "method": "ngram",
            "num_speculative_tokens": DRAFTS,
            "prompt_lookup_min": 2,
            "prompt_lookup_max": 3,
        },
    ).create_engine_config()


def test_proposer_on_the_runners_request_states(speculative_config):
    """Rows in another order than their states; a row without a match; a row still in its prompt."""
    from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
    from vllm.v1.worker.gpu.states import RequestState

    from vllm_hpu import kernels
    from vllm_hpu.spec_decode import init_speculator

    kernels.register()
    device = torch.device("hpu")
    states = RequestState(ROWS, LIMIT, LIMIT, DRAFTS, 512, device, use_dense_all_token_ids=True)
    texts = {
        "match": [4, 5, 6, 7, 8, 4, 5],
        "no match": [1, 2, 3, 4, 5],
        "in its prompt": [9, 8, 7, 9, 8],  # would match, but nothing has been sampled
    }
    for name, tokens in texts.items():
        states.add_request(name, len(tokens), tokens, 0, 8)
    states.apply_staged_writes()
    last = torch.zeros(ROWS, 1, dtype=torch.int64)
    for name, row in states.req_id_to_index.items():
        last[row] = texts[name][-1]

    order = ["no match", "in its prompt", "match"]
    rows = [states.req_id_to_index[name] for name in order]
    batch = dataclasses.replace(
        InputBatch.make_dummy(len(order), 16, InputBuffers(ROWS, LIMIT, device)),
        idx_mapping=torch.tensor(rows).to(device),
        seq_lens_cpu_upper_bound=torch.tensor([len(texts[name]) - 1 for name in order]),
    )
    proposer = init_speculator(speculative_config, device, states)
    nothing = torch.zeros(0, device=device)
    drafts = proposer.propose(
        batch,
        None,
        None,
        nothing,
        None,
        torch.tensor([1, 0, 1]).to(device),
        torch.zeros(3, dtype=torch.int64, device=device),
        last.to(device),
        nothing,
        nothing,
        nothing,
    )
    assert drafts.dtype == torch.int64
    assert drafts.tolist() == [[5, 5, 5], [8, 8, 8], [6, 7, 8]]

"""Temperature, min-p and the Gumbel-max draw. Same hash as vLLM's, hence the same tokens."""

import torch
from vllm.v1.worker.gpu.sample import gumbel, min_p

from tests.oracle.case import Make, Outputs, case

STATES = 6
SIZES = [(rows, vocab) for rows in (1, 5) for vocab in (17, 1024, 2500)]


def mapping(make: Make, rows: int) -> torch.Tensor:
    return make.ints(0, STATES, rows, dtype=torch.int64)


def temperatures(make: Make) -> torch.Tensor:
    return make.made([0.0, 1.0, 0.3, 2.5, 0.0, 0.7])


@case(*SIZES)
def temperature(make: Make, rows: int, vocab: int, dtype: torch.dtype = torch.float32) -> Outputs:
    logits = make.normal(rows, vocab, dtype=dtype)
    gumbel.apply_temperature(logits, mapping(make, rows), temperatures(make))
    return {"logits": logits}


@case(*SIZES, tolerance=2**-7)  # the interpreter cuts to bfloat16 where devices round
def temperature_bfloat16(make: Make, rows: int, vocab: int) -> Outputs:
    return temperature(make, rows, vocab, torch.bfloat16)


@case(*[(*size, dtype) for size in SIZES for dtype in (torch.float32, torch.bfloat16)])
def minimum_probability(make: Make, rows: int, vocab: int, dtype: torch.dtype) -> Outputs:
    logits = make.normal(rows, vocab, dtype=dtype)
    min_p.apply_min_p(logits, mapping(make, rows), make.made([0.0, 0.1, 0.9, 1.0, 0.02, 0.0]))
    return {"logits": logits}


@case(
    *[
        (*size, drafting, scaled, exact)
        for size in SIZES
        for drafting, scaled, exact in ((False, False, False), (True, True, False), (0, 1, 1))
    ]
)
def gumbel_sample(
    make: Make, rows: int, vocab: int, drafting: bool, scaled: bool, exact: bool
) -> Outputs:
    idx = mapping(make, rows)
    if rows > 1:
        idx[1] = -1
    sampled = gumbel.gumbel_sample(
        make.normal(rows, vocab),
        idx,
        temperatures(make),
        make.ints(-(2**62), 2**62, STATES, dtype=torch.int64),
        make.ints(0, 100_000, rows, dtype=torch.int64),
        apply_temperature=bool(scaled),
        is_drafting=bool(drafting),
        use_fp64=bool(exact),
    )
    return {"sampled": sampled}

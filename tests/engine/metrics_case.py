"""An engine made to leave its plan, with all it says: run as ``python -m ... MODEL OUT``.

One process, so that the plan's own bound on contexts can be lowered: reaching it as it is takes
more memory than a test may use.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vllm_hpu import engine_plan as plan

BLOCK = 16
LONGEST = 64
# Two rows that share a cached block and have three blocks each are more than is planned for.
SHARED, OWN = 16, 32


def main() -> None:
    model, out = sys.argv[1], Path(sys.argv[2])
    plan.MAX_PREFILL_SCORES = 1  # contexts are planned up to one row of full length
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        dtype="float32",
        block_size=BLOCK,
        max_model_len=LONGEST,
        max_num_seqs=4,
        max_num_batched_tokens=LONGEST,
        num_gpu_blocks_override=64,
        disable_log_stats=False,
    )
    once = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)

    def ask(*prompts: list[int]) -> None:
        llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], once, use_tqdm=False)

    def told() -> dict[str, Any]:
        time.sleep(2.5)  # the device is asked every second
        shown = [metric for metric in llm.get_metrics() if metric.name.startswith("vllm:hpu_")]
        [compilations] = llm.collective_rpc("compilations")
        return {
            "metrics": [[metric.name, metric.labels, metric.value] for metric in shown],
            "compilations": compilations,
        }

    results = {"started": told()}
    head = list(range(20, 20 + SHARED))
    ask([*head, *range(40, 40 + OWN)])
    results["planned"] = told()

    def ask_together(first: int) -> None:
        ask(*([*head, *range(first + row * 5, first + row * 5 + OWN - 8)] for row in (0, 40)))

    ask_together(61)
    results["bounded"] = told()
    # The scheduler holds such rows apart; without its bound they meet in a step.
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    scheduler.hpu_step_guard = None
    del scheduler.kv_cache_manager.allocate_slots
    for first in (90, 130):
        ask_together(first)
    results["beyond"] = told()
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()

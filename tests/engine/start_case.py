"""One start of an engine: ``python -m tests.engine.start_case ARGUMENTS OUT``.

ARGUMENTS is a JSON object, those of an `LLM`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

PROMPT = [30, 31, 32, 33, 34]


def run(arguments: dict[str, Any], out: Path) -> None:
    """Start an engine, ask it once, and write what it did to ``out``."""
    import gaudi_emulator
    from vllm import LLM, SamplingParams

    from vllm_hpu.engine_plan import plan_for

    engine = LLM(**arguments)
    counters = gaudi_emulator.counters()
    progress, *_ = engine.collective_rpc("warm_up_progress")
    ranks = engine.collective_rpc("compilations")
    once = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    [answer] = engine.generate([{"prompt_token_ids": PROMPT}], once, use_tqdm=False)
    result = {
        "plan": [str(key) for key in plan_for(engine.llm_engine.vllm_config).keys],
        "progress": progress and asdict(progress),
        "compilations": counters.total_compilations,
        "ranks": ranks,
        "from_disk": counters.recipe_hits["disk"],
        "later": gaudi_emulator.counters().total_compilations - counters.total_compilations,
        "tokens": list(answer.outputs[0].token_ids),
    }
    out.write_text(json.dumps(result))
    engine.llm_engine.engine_core.shutdown()  # ranks of a tensor-parallel engine are processes


if __name__ == "__main__":
    run(json.loads(sys.argv[1]), Path(sys.argv[2]))

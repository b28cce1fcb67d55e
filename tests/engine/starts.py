"""Starts of engines, each in a process of its own that may be killed: ``python -m ...``.

Importing what vLLM imports costs more than a tiny engine's start, so it is done once, and every
start is a fork of that process; nothing of vLLM or of the device is imported before the fork.
Reads a JSON object per line (see ``nursery.Nursery.start``), answers with the process id.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HEAVY = (
    "torch._functorch.aot_autograd",
    "transformers.models.llama.modeling_llama",
    "xgrammar",
    "openai.types.chat",
    "fastapi",
    "compressed_tensors",
)
PROMPT = [30, 31, 32, 33, 34]


def main() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.environ.update(request["environment"])
            log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(log, stream)
            code = 1
            try:
                run(request["engine"], Path(request["out"]))
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


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
    main()

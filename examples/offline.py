"""Offline batched generation with vLLM on Gaudi: ``make demo``.

Nothing here is particular to Gaudi but the last line, which asks the platform where it ran.
"""

from __future__ import annotations

import argparse
import time

from vllm import LLM, SamplingParams
from vllm.platforms import current_platform

from vllm_hpu.graphs.mode import choose_mode

QUESTIONS = [
    "What is 17 + 25?",
    "What is 81 - 36?",
    "What is the capital of Japan?",
    "What is the opposite of hot?",
    "Count from 5 to 12.",
    "Which country has the capital Paris?",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--enforce-eager", action="store_true", help="run without compiled graphs")
    options = parser.parse_args()

    # Small limits: fewer shapes to warm up.
    llm = LLM(
        options.model,
        enforce_eager=options.enforce_eager,
        max_num_seqs=len(QUESTIONS),
        max_num_batched_tokens=512,
    )
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    sampling = SamplingParams(temperature=0.0, max_tokens=64)

    started = time.perf_counter()
    outputs = llm.chat(conversations, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started

    for question, output in zip(QUESTIONS, outputs, strict=True):
        print(f"{question:40} {output.outputs[0].text.strip()}")
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(
        f"\n{tokens} tokens in {seconds:.2f} s ({tokens / seconds:.1f} tokens/s) "
        f"on {current_platform.get_device_name()} ({current_platform.device_type}), "
        f"mode {choose_mode(options.enforce_eager).mode.value}"
    )


if __name__ == "__main__":
    main()

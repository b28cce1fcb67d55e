"""One contender in a process of its own: reads jobs as JSON lines, answers with JSON lines.

Started by ``compare.py`` by path, not as a module: the checkout must not be on the import path,
or its metadata would offer the plugin to environments that it is not installed in.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time

CONTENDERS = {
    "hugging-face": ("contenders.hugging_face", "HuggingFace"),
    "engine": ("contenders.engine", "Engine"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=CONTENDERS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context", type=int, required=True, help="prompt and output tokens")
    parser.add_argument("--batch", type=int, required=True, help="the largest batch")
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()

    # Libraries print to standard output; keep the real one for the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    module, name = CONTENDERS[options.library]
    contender = getattr(importlib.import_module(module), name)(
        options.model, options.context, options.batch, options.eager
    )
    print(json.dumps(contender.describe()), file=answers)
    for line in sys.stdin:
        job = json.loads(line)
        started = time.perf_counter()
        tokens = contender.generate(job["prompts"], job["new_tokens"])
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "tokens": tokens}), file=answers)


if __name__ == "__main__":
    main()

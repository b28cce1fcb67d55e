"""No request ends a server: generated requests get an answer, and good ones still a right one.

``make test-slow`` sends ten thousand; ``GENERATED_REQUESTS`` and ``GENERATED_SEED`` change how many
and which. ``make test`` sends a few to the servers of ``test_endpoints.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.serve.conftest import DEMO
from tests.serve.send_requests import COMPLETION, send_all
from tests.serve.server import serve

MANY = int(os.environ.get("GENERATED_REQUESTS", "10000"))
SEED = int(os.environ.get("GENERATED_SEED", "1"))
LIMITS = (
    "--max-model-len=256",
    "--max-num-seqs=16",
    "--max-num-batched-tokens=128",
    "--kv-cache-memory-bytes=67108864",
)


@pytest.mark.slow
@pytest.mark.timeout(MANY + 900)
@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_of_many(mode: str, tmp_path: Path) -> None:
    flags = ("--enable-auto-tool-choice", "--tool-call-parser=hermes", "--served-model-name=demo")
    flags += ("--enforce-eager",) if mode == "eager" else ()
    environment = {"PT_HPU_LAZY_MODE": "1" if mode == "graphs" else "0"}
    with serve(str(DEMO), *flags, *LIMITS, log=tmp_path / "log", **environment) as url:
        tally = send_all(url, "demo", MANY, SEED, COMPLETION)
    print(json.dumps(vars(tally), indent=1))
    assert not tally.wrong, "\n".join(tally.wrong)

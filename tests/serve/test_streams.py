"""Many streams at once: each ends with exactly one final message."""

from __future__ import annotations

import asyncio

import openai

STREAMS = 64


async def one_stream(client: openai.AsyncOpenAI, index: int) -> tuple[int, int]:
    """(chunks with text, chunks with a finish reason) of one chat."""
    stream = await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": f"What is {index} + {index % 7}?"}],
        temperature=0.8,
        seed=index,
        max_tokens=24,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    texts = finals = 0
    async for chunk in stream:
        for choice in chunk.choices:
            texts += bool(choice.delta.content)
            finals += choice.finish_reason is not None
    return texts, finals


def test_streams_end_once(async_client: openai.AsyncOpenAI) -> None:
    async def all_streams() -> list[tuple[int, int]]:
        return await asyncio.gather(*(one_stream(async_client, i) for i in range(STREAMS)))

    results = asyncio.run(all_streams())
    assert len(results) == STREAMS
    assert all(texts > 0 and finals == 1 for texts, finals in results)

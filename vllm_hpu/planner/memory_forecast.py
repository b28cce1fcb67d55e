"""How a card will be shared out, foretold before an engine is started."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_hpu.memory.plan import MemoryPlan, Room, planned_blocks, share_out
from vllm_hpu.memory.refusal import Prediction, refusal


@dataclass(frozen=True)
class MemoryForecast:
    """A prediction.

    plan     what each part gets; it may not fit
    blocks   KV blocks up to which steps are planned
    most     KV blocks up to which they would be with memory for all
    refused  the refusal an engine would end with; None if it fits
    """

    plan: MemoryPlan
    blocks: int
    most: int
    refused: str | None


def forecast(prediction: Prediction, most: int, room: Room, total: int) -> MemoryForecast | None:
    """Share out the card as the engine will, with predicted parts for measured ones.

    None for models whose sizes have other names.

    Args:
        most: KV blocks of the largest step that the limits allow.
        total: bytes of the card.
    """
    blocks = most
    while True:
        need = prediction.of(prediction.ask, blocks)
        if need is None:
            return None
        fewer = planned_blocks(blocks, need, room)
        if fewer >= blocks:
            break
        blocks = fewer
    plan = share_out(need, room)
    if plan.fits and room.kv_bytes is None:
        # As the engine does when the cache turns out smaller than the steps.
        blocks = min(blocks, max(need.kv_least, plan.kv_blocks))
    refused = None if plan.fits else str(refusal(prediction, room, total))
    return MemoryForecast(plan, blocks, most, refused)

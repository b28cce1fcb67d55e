"""Put embeddings of images in their place by row number instead of by a mask.

Replaces: ``vllm.model_executor.models.utils._merge_multimodal_embeddings``.
Reason: it indexes a device tensor with a mask that lies on the host. The device copies the mask and
then has a shape that depends on values: a synchronisation per step. The row numbers are known on
the host.
Unnecessary when: vLLM scatters by row numbers (``index_copy_``).
"""

import functools
from typing import Any

import torch


@functools.cache  # once per process
def install() -> None:
    """Replace the function; models import it later, when one is loaded."""
    from vllm.model_executor.models import utils

    upstream = utils._merge_multimodal_embeddings

    def merge(
        inputs_embeds: torch.Tensor, multimodal_embeddings: Any, is_multimodal: torch.Tensor
    ) -> torch.Tensor:
        """``inputs_embeds`` ``[tokens, hidden]`` in place; ``is_multimodal`` bool ``[tokens]``."""
        if len(multimodal_embeddings) == 0 or not is_multimodal.is_cpu:
            return upstream(inputs_embeds, multimodal_embeddings, is_multimodal)
        rows = is_multimodal.nonzero().flatten()
        values = utils._flatten_embeddings(multimodal_embeddings)
        if len(values) != len(rows):
            raise ValueError(
                f"{len(values)} embeddings of images or other media for {len(rows)} placeholder "
                f"tokens in the prompt. Give each its placeholders, and no more of them."
            )
        inputs_embeds.index_copy_(0, rows.to(inputs_embeds.device), values.to(inputs_embeds.dtype))
        return inputs_embeds

    utils._merge_multimodal_embeddings = merge

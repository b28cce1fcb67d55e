"""What a stream is, as a pair.

Names: python_packages/habana_frameworks/torch/hpu/streams.py of HabanaAI/gaudi-pytorch-bridge.
"""

import torch

__all__ = ["get_stream_info"]


def get_stream_info(stream: torch.Stream) -> tuple[torch.device, int]:
    """Device of a stream and its number there."""
    return stream.device, stream.stream_id

"""Fused kernels: attention, rotary embedding, softmax, CTC loss."""

from habana_frameworks.torch._missing import refuse

from .CTCLoss import CTCLoss
from .CustomSoftmax import CustomSoftmax
from .Fp8FusedSDPA import fp8_fused_sdpa
from .FusedSDPA import FusedSDPA, gqa_output_reshape
from .RotaryPosEmbeddingHelper import (
    RotaryPosEmbeddingHelperV1,
    RotaryPosEmbeddingHelperV2,
    RotaryPosEmbeddingHelperV3,
    RotaryPosEmbeddingMode,
    apply_rotary_pos_emb,
)

__all__ = [
    "CTCLoss",
    "CustomSoftmax",
    "FusedSDPA",
    "RotaryPosEmbeddingHelperV1",
    "RotaryPosEmbeddingHelperV2",
    "RotaryPosEmbeddingHelperV3",
    "RotaryPosEmbeddingMode",
    "apply_rotary_pos_emb",
    "fp8_fused_sdpa",
    "gqa_output_reshape",
]

__getattr__ = refuse(__name__)

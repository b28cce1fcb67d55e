"""Fused kernels: attention, rotary embedding, softmax."""

from habana_frameworks.torch._missing import refuse

from .CustomSoftmax import CustomSoftmax
from .FusedSDPA import FusedSDPA
from .RotaryPosEmbeddingHelper import RotaryPosEmbeddingMode, apply_rotary_pos_emb

__all__ = ["CustomSoftmax", "FusedSDPA", "RotaryPosEmbeddingMode", "apply_rotary_pos_emb"]

__getattr__ = refuse(__name__)

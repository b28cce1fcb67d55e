"""Names of Intel's bridge that the emulated one refuses, and why.

Patterns of names below ``habana_frameworks.torch``; operators stand below ``ops.hpu``.
"""

import fnmatch

__all__ = ["REASONS", "reason_for"]

_TRAINING = "training is not part of the emulated bridge"

REASONS: dict[str, str] = {
    "core.weight_sharing.enable_weight_sharing": (
        "a change to torch.nn.Module that is not needed: shared parameters stay shared when a "
        "module moves to the device"
    ),
    "hpex.optimizers.*": _TRAINING,
    "hpex.movingavrg.*": _TRAINING,
    "hpex.experimental.transformer_engine*": _TRAINING,
    "hpex.normalization.FusedClipNorm": _TRAINING,
    "hpex.kernels.PySDPA*": "examples of hints for the card's graph compiler; use FusedSDPA",
    "hpex.kernels.fbgemm.*": "kernels for recommender models",
    "utils.debug._*_jit_cache*": "the card's cache of compiled operators has no counterpart",
    "utils.debug._get_fallback_op_count": "no operator falls back to the host",
    "hpex.kernels.Fp8Ops.*": "not in the bridge any more; use torch.ops.hpu.cast_to_fp8_v2",
    "utils.experimental.detect_recompilation*": (
        "advises on recompilations of a training script; gaudi_emulator.recent_compilations() "
        "says what was compiled"
    ),
    "utils.profiler.*": "controls the card's profiler",
    "hpu.*_const_section_serialization": "writes constants of the card's recipes to disk",
    "hpu.*able_quantization": "switches a pass of the card's graph compiler",
    "hpu.*et_sync_debug_mode": "switches asynchronous streams of the card's runtime",
    "hpu.utilization": "asks the card's driver (pyhlml)",
    "ops.hpu.ragged_softmax": "the meaning of valid_count is not public; mask the scores instead",
    "ops.hpu.optimizer_*": _TRAINING,
    "ops.hpu.fp8_sdpa_bwd": _TRAINING,
}


def reason_for(name: str) -> str | None:
    """Why ``name`` is refused; None if it is not listed."""
    return next((why for key, why in REASONS.items() if fnmatch.fnmatchcase(name, key)), None)

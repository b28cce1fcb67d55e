"""Speculative decoding: which proposer runs, and how its forwards are launched.

vLLM's draft-model, EAGLE and MTP speculators load their models and sample; their forwards are one
launch per step (``drafter.py``). ngram has a speculator of our own, because vLLM's is two Triton
kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator
    from vllm.v1.worker.gpu.states import RequestState

__all__ = ["init_speculator", "use_plain_launches"]


def init_speculator(
    vllm_config: VllmConfig, device: torch.device, req_states: RequestState
) -> BaseSpeculator:
    """Build the proposer that ``--speculative-config`` asks for.

    Stands in for ``vllm.v1.worker.gpu.spec_decode.init_speculator``, same parameters.
    Methods that have not been brought to Gaudi are refused at start (rules/speculation.py).
    """
    from vllm.v1.worker.gpu.spec_decode import init_speculator as upstream

    speculative = vllm_config.speculative_config
    assert speculative is not None  # vLLM calls this only with a speculative config
    if speculative.use_ngram():
        from vllm_hpu.spec_decode.ngram import NgramSpeculator

        return NgramSpeculator(vllm_config, device, req_states)
    return _planned(upstream(vllm_config, device, req_states))


def _planned(speculator: BaseSpeculator) -> BaseSpeculator:
    """The speculator as one whose drafts are planned graphs, where its drafting is known."""
    from vllm.v1.worker.gpu.spec_decode.eagle.speculator import EagleSpeculator
    from vllm.v1.worker.gpu.spec_decode.mtp.speculator import MTPSpeculator
    from vllm.v1.worker.gpu.spec_decode.standalone_ar.speculator import StandaloneARSpeculator

    from vllm_hpu.spec_decode.drafter import PlannedDrafts

    kind = type(speculator)
    if kind in (EagleSpeculator, MTPSpeculator, StandaloneARSpeculator):
        speculator.__class__ = type(f"Planned{kind.__name__}", (PlannedDrafts, kind), {})
    return speculator


def use_plain_launches(speculator: BaseSpeculator) -> None:
    """Run a proposer's own forwards without graphs, whatever mode the target model runs in.

    vLLM's proposers keep graph managers of their own, made from CUDA graphs. In mode NONE these
    managers hand every batch through unpadded; there is nothing to capture then.
    """
    from vllm.config.compilation import CUDAGraphMode

    with_mode = speculator.init_cudagraph_manager

    def without_graphs(cudagraph_mode: CUDAGraphMode) -> None:
        with_mode(CUDAGraphMode.NONE)

    def nothing_to_capture() -> None:
        """No graph exists in mode NONE."""

    _override(speculator, "init_cudagraph_manager", without_graphs)
    _override(speculator, "capture", nothing_to_capture)


def _override(instance: Any, name: str, method: Any) -> None:
    setattr(instance, name, method)

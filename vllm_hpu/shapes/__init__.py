"""Shapes as data: what a step is padded to, and every graph that can come of it.

Pure Python: no torch, no vLLM. ``ShapePlan.dispatch`` is the only function from a step to a graph,
and ``ShapePlan.keys`` is its image over all steps the limits allow, so nothing is compiled under
load.
"""

from vllm_hpu.shapes.key import GraphKey
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.plan import ShapePlan, Strategy
from vllm_hpu.shapes.step import Step, step_of

__all__ = ["GraphKey", "Limits", "ShapePlan", "Step", "Strategy", "step_of"]

"""Runs every case with vLLM's Triton kernels under the interpreter: `reference.py OUT.safetensors`.

A process of its own: the interpreter is chosen by the environment before Triton is imported, and
an empty CUDA_VISIBLE_DEVICES makes vLLM keep Triton on a host without a GPU.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "VLLM_USE_V2_MODEL_RUNNER": "1"}
sys.path.insert(0, str(Path(__file__).parents[2]))

import vllm.platforms
from safetensors.torch import save_file
from vllm.platforms.cpu import CpuPlatform
from vllm.triton_utils import tl
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.metrics import logits
from vllm.v1.worker.gpu.spec_decode import rejection_sampler_utils

# The interpreter works on host memory: keep every platform plugin out of this process.
vllm.platforms._current_platform = CpuPlatform()
# vLLM's shared buffers are pinned memory, which a CPU build of torch cannot allocate.
buffer_utils.is_uva_available = lambda: False
# The interpreter has no CUDA device library, which two kernels call.
logits.libdevice = SimpleNamespace(isnan=lambda x: x != x)  # noqa: PLR0124
rejection_sampler_utils.tldevice = SimpleNamespace(log1p=lambda x: tl.log(1.0 + x))

from tests.oracle.case import Make  # noqa: E402
from tests.oracle.cases import CASES  # noqa: E402


def main(path: str) -> None:
    outputs = {}
    for name, case in CASES.items():
        for key, value in case.run(Make(name, "cpu")).items():
            outputs[f"{name}/{key}"] = value.contiguous()
    save_file(outputs, path)


if __name__ == "__main__":
    main(sys.argv[1])

"""What vLLM's stand-in for Triton lacks although vLLM's launchers call it.

Without Triton, `vllm.triton_utils.triton` is a placeholder with decorators and `cdiv`. Launchers
also round block sizes with `next_power_of_2` before they reach a replaced kernel.
"""

from vllm.triton_utils import triton


def next_power_of_2(n: int) -> int:
    """The smallest power of two >= n; 1 for n <= 1."""
    return 1 << max(0, n - 1).bit_length()


def complete_placeholder() -> None:
    """Add the missing functions; leaves a real Triton alone."""
    if not hasattr(triton, "next_power_of_2"):
        triton.next_power_of_2 = next_power_of_2

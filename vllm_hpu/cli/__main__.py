"""``python -m vllm_hpu.cli`` is ``vllm-hpu``."""

import sys

from vllm_hpu.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""vLLM's own Triton kernels, run on the CPU by Triton's interpreter, as reference for ours.

A case is a function that makes its inputs from a fixed seed, calls one of vLLM's launchers and
returns what the launcher wrote. It runs twice: in a process of its own with Triton's interpreter
(`reference.py`), and in the test with our replacements registered. Both must agree.
"""

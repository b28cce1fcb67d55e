"""Operators and names which the test suite of Intel's bridge asks for, against PyTorch."""

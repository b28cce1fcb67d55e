"""The public namespace of Intel's Gaudi software, as the emulated device provides it.

On a Gaudi host this package comes from Intel's ``habana-torch-plugin``. This one offers the same
public API on top of :mod:`gaudi_emulator`, so that a program cannot tell which of the two it runs
on. Facts about names, signatures and semantics come from the public repository
HabanaAI/gaudi-pytorch-bridge and from docs.habana.ai.
"""

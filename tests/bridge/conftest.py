"""Every test here runs with the bridge loaded, as in any program for Gaudi."""

import habana_frameworks.torch as bridge

__all__ = ["bridge"]

"""Compile without launching, where the bridge can.

Source: the flag ``PT_COMPILE_ONLY_MODE`` of the bridge's generated module
``habana_frameworks.torch.internal.bridge_config``, which may be set at run time. Its own context
manager ``env_setting`` leaves the flag set after an exception in some versions.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compile_only() -> Iterator[None]:
    """Within, graphs are compiled and not launched, so results are arbitrary.

    Nothing within may read a value from the device. A bridge without the mode launches as always.
    """
    try:
        from habana_frameworks.torch.internal import bridge_config

        before = bridge_config.get_pt_compile_only_mode()
        switch = bridge_config.set_pt_compile_only_mode
    except (ImportError, AttributeError):
        yield
        return
    switch(True)
    try:
        yield
    finally:
        switch(before)

"""HPU graphs: capture a function once, replay it without Python.

Source: the bridge's ``habana_frameworks.torch.hpu`` (``HPUGraph``, ``graph``); capture needs the
bridge's lazy mode.
"""

from collections.abc import Callable
from typing import Any


class CapturedGraph:
    """One captured call. The tensors it read and wrote at capture are those it uses on replay."""

    def __init__(self, function: Callable[[], Any]) -> None:
        """Capture ``function``; its work is done once, as it is recorded.

        The bridge runs what it records unless a capture is begun with ``dry_run`` (its test
        ``test_capture_replay_inplace`` counts on it), so a replay here would do work in place, such
        as counting a drawn token, twice.

        ``function`` must not read the host state it does not want frozen, nor read the device
        from the host. Its result is kept: replays land in the same tensors.
        """
        import habana_frameworks.torch as htorch

        self._graph = htorch.hpu.HPUGraph()
        with htorch.hpu.graph(self._graph):
            self.output = function()

    def replay(self) -> Any:
        """Run the captured work again and return the tensors of the capture."""
        self._graph.replay()
        return self.output

"""HPU graphs: capture a function once, replay it without Python.

Source: the bridge's ``habana_frameworks.torch.hpu`` (``HPUGraph``, ``graph``); capture needs the
bridge's lazy mode.
"""

from collections.abc import Callable
from typing import Any


class CapturedGraph:
    """One captured call. The tensors it read and wrote at capture are those it uses on replay."""

    def __init__(self, function: Callable[[], Any]) -> None:
        """Capture ``function`` and run it once.

        ``function`` must not read the host state it does not want frozen, nor read the device
        from the host. Its result is kept: replays land in the same tensors.
        """
        import habana_frameworks.torch as htorch

        self._graph = htorch.hpu.HPUGraph()
        with htorch.hpu.graph(self._graph):
            self.output = function()
        # Capture only records on the card, so the first result comes from a replay as well.
        self._graph.replay()

    def replay(self) -> Any:
        """Run the captured work again and return the tensors of the capture."""
        self._graph.replay()
        return self.output

"""From transfers under way to the handle of a collective, which fails when a rank has died."""

import ctypes

from habana_frameworks.torch._device import CollectiveWork, when_transfers_end

from .peers import Peers
from .transport import Pending

__all__ = ["start"]


class _Transfer:
    """Ends the handle when the last of the transfers ends, or when a rank dies before."""

    def __init__(self, pending: Pending, peers: Peers) -> None:
        self.handle = CollectiveWork()
        self._pending = pending
        self._peers = peers

    def begin(self) -> None:
        self._peers.call_on_death(self._died)
        when_transfers_end(self._pending.works, self._ended)

    def _ended(self, error: str) -> None:
        self._peers.forget_call(self._died)
        if self.handle.is_completed():
            return  # it has failed: nobody expects the result any more
        if not error and self._pending.finish is not None:
            try:
                self._pending.finish()
            except Exception as raised:  # whatever it is, whoever waits must hear of it
                error = f"{type(raised).__name__}: {raised}"
        if error:
            self._died(self._peers.explain(error))
        else:
            self.handle.complete(self._pending.source_rank())

    def _died(self, text: str) -> None:
        # The transport waits for the dead rank until its timeout, and its destructor would wait
        # with it: so it is never destroyed, and the process can end.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._peers.transport))
        self.handle.fail(text)


def start(pending: Pending, peers: Peers) -> CollectiveWork:
    """The handle of a collective whose transfers are under way."""
    transfer = _Transfer(pending, peers)
    transfer.begin()
    return transfer.handle

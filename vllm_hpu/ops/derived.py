"""What our layers derive from vLLM's, and when.

A model may change a layer after it has made it: Ernie 4.5 makes Llama's layers and then turns
their rotary embeddings to pairs of neighbours. What a constructor derives from the layer is wrong
then. So layers derive when the whole model is loaded (:func:`derive_all`), and one that is used
without that, or changed after it, at its next use.
"""

from typing import Any

from torch import nn

__all__ = ["Derives", "derive_all"]


class Derives:
    """A layer of ours with something derived from its attributes.

    Subclasses set ``DERIVED_FROM``, the attributes, and :meth:`derive`. Their forward calls
    :meth:`keep_derived` before it reads what was derived.
    """

    DERIVED_FROM: tuple[str, ...] = ()
    _derived_for: tuple[Any, ...] | None = None

    def derive(self) -> None:
        """Derive anew from the layer's attributes as they are now."""
        raise NotImplementedError

    def keep_derived(self) -> None:
        """Derive anew if an attribute is another object than when that was done last."""
        now = tuple(getattr(self, name) for name in self.DERIVED_FROM)
        before = self._derived_for
        if before is None or any(a is not b for a, b in zip(before, now, strict=True)):
            self.derive()
            self._derived_for = now


def derive_all(model: nn.Module) -> None:
    """Let every layer of a loaded model derive, so that no forward has to."""
    for layer in model.modules():
        if isinstance(layer, Derives):
            layer.keep_derived()

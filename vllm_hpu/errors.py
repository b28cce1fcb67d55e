"""Errors of the plugin: what went wrong, why, and what to do instead.

The types subclass the built-in ones vLLM already turns into an answer to the caller, so a bad
request or a bad option costs only itself.
"""


def explain(what: str, why: str = "", do: str = "") -> str:
    """Join the three parts of a message into one line; empty parts are left out.

    ``what`` happened, ``why`` it happened or why it is refused, ``do`` is what the user can change:
    it should name the flag or the variable.
    """
    return " ".join(_sentence(part) for part in (what, why, do) if part)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."


class ConfigurationError(ValueError):
    """An option, a variable, or a combination of them that cannot work."""

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(explain(what, why, do))


class DeviceError(RuntimeError):
    """The device or its software is missing, broken or refused an operation."""

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(explain(what, why, do))


class UnsupportedFeatureError(ValueError):
    """Something vLLM offers and this plugin does not."""

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(explain(what, why, do))

"""One flag of vLLM: its verdict, the reason, and where its value lies in vLLM's configuration."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any


class Verdict(Enum):
    """What becomes of a flag."""

    OBEYED = "obeyed"
    IN_PART = "obeyed in part"
    MEANINGLESS = "without effect"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag and its verdict.

    Attributes:
        name: field of ``AsyncEngineArgs``, or ``config.field`` of a flag that is an object.
        why: why it is not obeyed, or which values are refused.
        do: what to do instead.
        path: where ``VllmConfig`` has the value, attribute by attribute. Empty if the value is not
            looked at: vLLM derives it itself, or it only refines a flag that is refused.
        plain: values beside vLLM's default that ask for nothing.
    """

    name: str
    verdict: Verdict
    why: str = ""
    do: str = ""
    path: str = ""
    plain: tuple[Any, ...] = ()

    def chosen(self, config: Any) -> bool:
        """Whether ``config`` (a ``VllmConfig``) has another value than when nobody sets the flag.

        A part of the configuration that is absent has nothing chosen.
        """
        owner, _, field = self.path.rpartition(".")
        for part in owner.split(".") if owner else ():
            config = getattr(config, part)
            if config is None:
                return False
        value = getattr(config, field)
        return value != default_of(type(config), field) and value not in self.plain


def default_of(owner: type, field: str) -> Any:
    """The default of a configuration's field; None for one that must be given."""
    found = next(one for one in dataclasses.fields(owner) if one.name == field)
    if found.default_factory is not dataclasses.MISSING:
        return found.default_factory()
    default: Any = found.default
    # pydantic's description of a field stands in the place of its default.
    if hasattr(default, "get_default"):
        return default.get_default(call_default_factory=True)
    return None if default is dataclasses.MISSING else default


def flag_option(name: str) -> str:
    """The command line's form: ``--max-num-seqs``, ``--compilation-config.mode``."""
    first, *rest = name.split(".")
    return ".".join(["--" + first.replace("_", "-"), *rest])

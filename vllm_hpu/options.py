"""Choices of one engine: flags of ``vllm serve``, and entries of ``--additional-config``.

Each stands for a variable (``Variable.option``), which is the default where neither is given.
``additional_config={"hpu_warmup_seconds": 60}`` of an ``LLM`` is ``--hpu-warmup-seconds 60``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.settings import Settings, parse, settings
from vllm_hpu.shapes.budget import PlanBudget
from vllm_hpu.variables import VARIABLES, Variable

if TYPE_CHECKING:
    from vllm.config import VllmConfig

OPTIONS: dict[str, Variable] = {
    variable.option: variable for variable in VARIABLES.values() if variable.option
}
_PREFIX = "hpu_"
# The other ways to choose the sizes of graphs, which an option for it replaces.
_REPLACED = {
    "VLLM_BUCKETING_STRATEGY": ("VLLM_EXPONENTIAL_BUCKETING", "VLLM_BUCKETING_FROM_FILE"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag per option; one that is not given leaves no trace in the parsed arguments."""
    group = parser.add_argument_group("Gaudi", "Planned shapes and warm-up (vllm-hpu).")
    for name, variable in OPTIONS.items():
        group.add_argument(
            variable.flag,
            dest=name,
            type=partial(_argument, variable),
            default=argparse.SUPPRESS,
            metavar="|".join(variable.choices) or ("N" if variable.kind == "int" else "TEXT"),
            # argparse takes a percent sign for a place to fill in.
            help=f"{variable.help} Default: ${variable.name}, else {variable.default}.".replace(
                "%", "%%"
            ),
        )


def given(arguments: argparse.Namespace) -> dict[str, str]:
    """The options among parsed ``arguments``, as entries of ``additional_config``."""
    return {name: value for name, value in vars(arguments).items() if name in OPTIONS}


def settings_of(config: VllmConfig) -> Settings:
    """The settings of one engine: its own options, and the environment for the rest.

    Raises:
        ConfigurationError: an option that does not exist or has a value that makes no sense.
    """
    additional = config.additional_config
    own = additional if isinstance(additional, dict) else {}
    return settings(_overrides(own))


def _overrides(additional: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """Variables and their values in place of the environment's; None unsets one."""
    found: dict[str, str | None] = {}
    for name, value in additional.items():
        if not name.startswith(_PREFIX):
            continue
        if name not in OPTIONS:
            raise ConfigurationError(
                f"--additional-config has {name!r}, which does not exist",
                f"Options of vllm-hpu are {', '.join(OPTIONS)}",
                "Correct or remove it",
            )
        variable = OPTIONS[name]
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ConfigurationError(
                f"{variable.flag}={value!r} is neither a number nor a text",
                variable.help,
                f"Correct {variable.flag}, or {name!r} in --additional-config",
            )
        found |= dict.fromkeys(_REPLACED.get(variable.name, ()))
        found[variable.name] = _checked(variable, str(value))
    return tuple(sorted(found.items()))


def _checked(variable: Variable, text: str) -> str:
    """``text`` as the variable would have it. Raises ConfigurationError naming the flag."""
    if variable.unit == "bytes":
        text = _plain_number(text)
    parse(replace(variable, name=variable.flag), text)
    if variable.name == "VLLM_HPU_PLAN_BUDGET":
        PlanBudget.parse(text)
    return text


def _plain_number(text: str) -> str:
    """Sizes may be written as vLLM's own flags take them: 2G, 512M, 1.5g."""
    from vllm.utils.argparse_utils import human_readable_int

    try:
        return str(human_readable_int(text))
    except (ValueError, argparse.ArgumentTypeError):
        return text


def _argument(variable: Variable, text: str) -> str:
    try:
        return _checked(variable, text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

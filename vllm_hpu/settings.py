"""The user's environment, read once and typed. Nothing else in the plugin reads it.

The variables and their meaning are declared in ``vllm_hpu.variables``.
"""

import functools
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.variables import VARIABLES, Status, Variable

logger = logging.getLogger("vllm.plugins.vllm_hpu.settings")

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off", ""})
_FILE = "VLLM_BUCKETING_FROM_FILE"
_PROFILE = "VLLM_HPU_TRAFFIC_PROFILE"
_READ = (Status.ACTIVE, Status.DEPRECATED)
# Tells the processes of one server that their parent has already logged something.
_LOGGED = "_VLLM_HPU_{}_LOGGED"
# Tells them where to write what they count.
_METRICS_FOLDER = "_VLLM_HPU_METRICS"


@dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    force               "auto", "on" or "off": whether the plugin takes over (VLLM_HPU_FORCE)
    lazy_mode           HPU graphs instead of torch.compile (PT_HPU_LAZY_MODE)
    skip_warmup         compile when a request first needs it (VLLM_SKIP_WARMUP)
    full_warmup         compile everything before serving (VLLM_FULL_WARMUP)
    warmup_seconds      budget of warm-up, None without limit (VLLM_HPU_WARMUP_SECONDS)
    warmup_bytes        budget of warmed-up graphs, None for the default (VLLM_HPU_WARMUP_BYTES)
    warmup_load_seconds time between graphs compiled under load, 0 for none
                        (VLLM_HPU_WARMUP_LOAD_SECONDS)
    hang_seconds        how long a step may take before the engine is given up, 0 for ever
                        (VLLM_HPU_HANG_SECONDS)
    record_profile      file to record traffic to, "" for none (VLLM_HPU_RECORD_PROFILE)
    graph_reserved_share  of the memory that steps leave, what the KV cache leaves to graphs
                        (VLLM_GRAPH_RESERVED_MEM)
    recipe_cache        directory of the bridge's recipe cache, "" without one
                        (PT_HPU_RECIPE_CACHE_CONFIG)
    compile_fullgraph   torch.compile(fullgraph=...) (VLLM_T_COMPILE_FULLGRAPH)
    bucketing_strategy  "exp", "lin", "pad" or "opt" (VLLM_BUCKETING_STRATEGY,
                        VLLM_EXPONENTIAL_BUCKETING), "file" with a bucketing_file; where nothing
                        is chosen, "opt" with a traffic_profile and "exp" without
    bucket_variables    the VLLM_*_BUCKET_{MIN,STEP,MAX,PAD_MAX,PAD_PERCENT} variables that are set,
                        by current name
    bucketing_file      lists sizes of graphs, "" without one (VLLM_BUCKETING_FROM_FILE)
    traffic_profile     file of expected traffic, "" without one (VLLM_HPU_TRAFFIC_PROFILE)
    plan_budget         of strategy "opt", "" for the default one (VLLM_HPU_PLAN_BUDGET)
    plan_cost           "time" or "operations": what a launch costs (VLLM_HPU_PLAN_COST)
    messages            what to tell the user about variables that do not do what they may expect
    """

    force: str
    lazy_mode: bool
    skip_warmup: bool
    full_warmup: bool
    warmup_seconds: int | None
    warmup_bytes: int | None
    warmup_load_seconds: int
    hang_seconds: int
    graph_reserved_share: float
    record_profile: str
    recipe_cache: str
    compile_fullgraph: bool
    bucketing_strategy: str
    bucket_variables: Mapping[str, int]
    bucketing_file: str = ""
    traffic_profile: str = ""
    plan_budget: str = ""
    plan_cost: str = "time"
    messages: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read ``environ``.

        Raises ConfigurationError, naming the variable, for a value that cannot be parsed, is out of
        bounds, asks for what this version cannot do, or contradicts another variable.
        """
        known = [VARIABLES[name] for name in environ if name in VARIABLES]
        for variable in known:
            _refuse(variable, environ[variable.name])
        strategy = _strategy(environ)
        buckets = _buckets(environ)
        messages = [text for variable in known if (text := _message(variable, environ))]
        messages += _ignored(strategy, buckets, environ)
        return cls(
            force=_text("VLLM_HPU_FORCE", environ),
            lazy_mode=_text("PT_HPU_LAZY_MODE", environ) == "1",
            skip_warmup=_bool("VLLM_SKIP_WARMUP", environ),
            full_warmup=_bool("VLLM_FULL_WARMUP", environ),
            warmup_seconds=_limit("VLLM_HPU_WARMUP_SECONDS", environ),
            warmup_bytes=_limit("VLLM_HPU_WARMUP_BYTES", environ),
            warmup_load_seconds=_limit("VLLM_HPU_WARMUP_LOAD_SECONDS", environ) or 0,
            hang_seconds=int(_value("VLLM_HPU_HANG_SECONDS", environ)),
            graph_reserved_share=_share("VLLM_GRAPH_RESERVED_MEM", environ),
            record_profile=_text("VLLM_HPU_RECORD_PROFILE", environ),
            # path, delete at start, size in MB, on NFS
            recipe_cache=environ.get("PT_HPU_RECIPE_CACHE_CONFIG", "").partition(",")[0].strip(),
            compile_fullgraph=_bool("VLLM_T_COMPILE_FULLGRAPH", environ),
            bucketing_strategy=strategy,
            bucket_variables=MappingProxyType(buckets),
            bucketing_file=environ.get(_FILE, ""),
            traffic_profile=environ.get(_PROFILE, ""),
            plan_budget=environ.get("VLLM_HPU_PLAN_BUDGET", ""),
            plan_cost=_text("VLLM_HPU_PLAN_COST", environ),
            messages=tuple(messages),
        )

    def warnings(self) -> tuple[str, ...]:
        """Messages not given before in this server, for the caller to log.

        Processes started from here on give none: they inherit the environment this marks.
        """
        return self.messages if self.messages and first_in_server("SETTINGS") else ()


@functools.cache
def settings(overrides: tuple[tuple[str, str | None], ...] = ()) -> Settings:
    """The settings of this process, read at the first call.

    ``overrides`` are variables with values in place of the environment's, None for none: what an
    engine was told otherwise (``vllm_hpu.options``).
    Raises ConfigurationError as ``Settings.from_env`` does.
    """
    environ = {**os.environ, **dict(overrides)}
    return Settings.from_env({name: text for name, text in environ.items() if text is not None})


def force_choice() -> str:
    """``Settings.force`` alone, for detection; "auto" if the variable makes no sense.

    vLLM swallows errors of detection, so nothing is refused yet: ``settings`` does that at start.
    """
    try:
        return _text("VLLM_HPU_FORCE", os.environ)
    except ConfigurationError:
        return "auto"


def first_in_server(what: str) -> bool:
    """Whether this is the first process of a server, and the first time in it, to log ``what``.

    Processes started from here on are told by the environment they inherit.
    """
    mark = _LOGGED.format(what)
    if os.environ.get(mark):
        return False
    os.environ[mark] = "1"
    return True


def export(name: str, value: str) -> None:
    """Set a variable that vLLM or the bridge must see in this process and those it starts.

    Says so when the user asked for something else.
    """
    given = os.environ.get(name)
    if given is not None and given != value:
        logger.warning("%s=%s is changed to %s: nothing else works on Gaudi.", name, given, value)
    os.environ[name] = value


def metrics_folder() -> tuple[str, bool]:
    """Where the workers of this server write their metrics, "" for nowhere.

    The second value says whether it is prometheus_client's own folder for several processes
    (PROMETHEUS_MULTIPROC_DIR), which vLLM reads by itself.
    """
    prometheus = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    return prometheus or os.environ.get(_METRICS_FOLDER, ""), bool(prometheus)


def use_metrics_folder(folder: str) -> None:
    """Have processes started from here on write their metrics to ``folder``."""
    os.environ[_METRICS_FOLDER] = folder


def register_with_vllm() -> None:
    """Make the plugin's ``VLLM_*`` variables known to vLLM, which warns of names it does not know.

    Their value is read when asked for, like that of vLLM's own variables.
    """
    from vllm import envs

    for name in VARIABLES:
        if name.startswith("VLLM_"):
            envs.environment_variables.setdefault(name, functools.partial(os.environ.get, name))


def parse(variable: Variable, value: str) -> bool | int | str:
    """``value`` in the variable's type. Raises ConfigurationError naming the variable."""
    text = value.strip().lower()
    shown = f"{variable.name}={value!r}"
    remedy = f"Correct or unset {variable.name}"
    if variable.kind == "bool":
        if text not in _TRUE | _FALSE:
            raise ConfigurationError(f"{shown} is neither true nor false", do=remedy)
        return text in _TRUE
    if variable.kind == "int":
        return _number(variable, value)
    if variable.choices:
        if text not in variable.choices:
            raise ConfigurationError(
                f"{shown} is not one of {', '.join(variable.choices)}", variable.help, remedy
            )
        return text
    return value


def _number(variable: Variable, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        raise ConfigurationError(
            f"{variable.name}={value!r} is not a whole number",
            do=f"Correct or unset {variable.name}",
        ) from None
    low, high = variable.minimum, variable.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigurationError(
            f"{variable.name}={number} must be {bounds}",
            variable.help,
            f"Correct or unset {variable.name}",
        )
    return number


def _value(name: str, environ: Mapping[str, str]) -> bool | int | str:
    variable = VARIABLES[name]
    return parse(variable, environ.get(name, variable.default))


def _bool(name: str, environ: Mapping[str, str]) -> bool:
    return bool(_value(name, environ))


def _text(name: str, environ: Mapping[str, str]) -> str:
    return str(_value(name, environ))


def _limit(name: str, environ: Mapping[str, str]) -> int | None:
    """A number that limits nothing when it is not given."""
    return _number(VARIABLES[name], environ[name]) if name in environ else None


def _share(name: str, environ: Mapping[str, str]) -> float:
    text = _text(name, environ)
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigurationError(
            f"{name}={text}", "It is a share, from 0 to below 1", f"Set {name}=0.1, or unset it"
        )
    return share


def _strategy(environ: Mapping[str, str]) -> str:
    name, old = "VLLM_BUCKETING_STRATEGY", "VLLM_EXPONENTIAL_BUCKETING"
    strategy = _text(name, environ)
    if environ.get(_FILE):
        return "file"
    if old not in environ:
        return "opt" if name not in environ and environ.get(_PROFILE) else strategy
    older = "exp" if _bool(old, environ) else "lin"
    if name in environ and older != strategy:
        raise ConfigurationError(
            f"{old}={environ[old]} means {older}, but {name} is {strategy}",
            f"{old} is the older name of the same choice",
            f"Unset {old}",
        )
    return older


def _ignored(
    strategy: str, buckets: Mapping[str, int], environ: Mapping[str, str]
) -> Iterator[str]:
    """What to tell the user who set variables of another strategy."""
    chosen = "VLLM_BUCKETING_STRATEGY"
    if strategy == "file":
        names = [name for name in (chosen, "VLLM_EXPONENTIAL_BUCKETING") if environ.get(name)]
        if names:
            yield f"Ignored: {', '.join(names)}. {_FILE} lists the sizes."
    padding = sorted(name for name in buckets if "_PAD_" in name)
    if strategy not in ("lin", "pad") and buckets:
        yield (
            f"Ignored: {', '.join(sorted(buckets))}. The sizes of strategy {strategy} do not "
            f"follow from them. Set {chosen}=lin or =pad to use them."
        )
    elif strategy == "lin" and padding:
        yield f"Ignored: {', '.join(padding)}. Set {chosen}=pad to use them."
    own = (_PROFILE, "VLLM_HPU_PLAN_BUDGET")
    names = [name for name in own if environ.get(name)]
    if strategy != "opt" and names:
        yield f"Ignored: {', '.join(names)}. Set {chosen}=opt to use them."


def _buckets(environ: Mapping[str, str]) -> dict[str, int]:
    """The bucket variables that are set and honoured, old names replaced."""
    found: dict[str, int] = {}
    for name, variable in VARIABLES.items():
        if "_BUCKET_" not in name or variable.status not in _READ or name not in environ:
            continue
        number = _number(variable, environ[name])
        current = name.replace("_PROMPT_SEQ_", "_PROMPT_QUERY_")
        if found.setdefault(current, number) != number:
            raise ConfigurationError(
                f"{name}={number} contradicts {current}={found[current]}",
                f"{name} is the older name of {current}",
                f"Unset {name}",
            )
    for name, least in found.items():
        most = found.get(name.replace("_BUCKET_MIN", "_BUCKET_MAX"), least)
        if name.endswith("_BUCKET_MIN") and least > most:
            prefix = name.removesuffix("_MIN")
            raise ConfigurationError(
                f"{prefix}_MIN={least} is above {prefix}_MAX={most}",
                "No size lies between them",
                "Lower the first, raise the second, or unset both",
            )
    return found


def _acts_like(variable: Variable, value: str) -> bool:
    """Whether the plugin behaves as ``value`` asks although it does not read the variable."""
    if variable.acts_like is None:
        return False
    return parse(variable, value) == parse(variable, variable.acts_like)


def _refuse(variable: Variable, value: str) -> None:
    if variable.refused and value and not _acts_like(variable, value):
        raise ConfigurationError(
            f"{variable.name} is not supported by this version of vllm-hpu",
            variable.reason,
            f"Unset {variable.name}",
        )


def _message(variable: Variable, environ: Mapping[str, str]) -> str | None:
    """What to tell the user who set ``variable``, or None if it does what it says."""
    if variable.status in (Status.ACTIVE, Status.BRIDGE, Status.VLLM):
        return None
    if _acts_like(variable, environ[variable.name]):
        return None
    if variable.status is Status.DEPRECATED:
        return f"{variable.name} is deprecated. {variable.reason} instead."
    return f"{variable.name} has no effect. {variable.reason}."

"""Reading the environment: what is honoured, what is refused, and what the user is told."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_hpu.errors import ConfigurationError, DeviceError, UnsupportedFeatureError
from vllm_hpu.settings import Settings
from vllm_hpu.shapes import Limits, ShapePlan
from vllm_hpu.variables import GROUPS, VARIABLES, Status

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "vllm_hpu"


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings(
        force="auto",
        lazy_mode=False,
        skip_warmup=False,
        full_warmup=False,
        warmup_seconds=None,
        warmup_bytes=None,
        warmup_load_seconds=0,
        hang_seconds=30,
        graph_reserved_share=0.1,
        record_profile="",
        recipe_cache="",
        compile_fullgraph=False,
        bucketing_strategy="exp",
        bucket_variables={},
        messages=(),
    )


@pytest.mark.parametrize("value", ["1", "true", "T", "Yes", "y", "ON", " true "])
def test_true(value: str) -> None:
    assert Settings.from_env({"VLLM_SKIP_WARMUP": value}).skip_warmup is True


@pytest.mark.parametrize("value", ["0", "false", "F", "No", "n", "OFF", ""])
def test_false(value: str) -> None:
    """Also for the fullgraph switch: a value that reads "false" never switches anything on."""
    assert Settings.from_env({"VLLM_SKIP_WARMUP": value}).skip_warmup is False
    assert Settings.from_env({"VLLM_T_COMPILE_FULLGRAPH": value}).compile_fullgraph is False


def test_warm_up_budgets() -> None:
    settings = Settings.from_env(
        {
            "VLLM_HPU_WARMUP_SECONDS": "0",
            "VLLM_HPU_WARMUP_BYTES": "1000000",
            "VLLM_HPU_WARMUP_LOAD_SECONDS": "30",
        }
    )
    assert settings.warmup_seconds == 0
    assert settings.warmup_bytes == 1_000_000
    assert settings.warmup_load_seconds == 30


@pytest.mark.parametrize(
    ("value", "path"),
    [("/recipes,false,8192,false", "/recipes"), (" /recipes ", "/recipes"), (",false,1024", "")],
)
def test_the_recipe_cache_is_the_first_field(value: str, path: str) -> None:
    assert Settings.from_env({"PT_HPU_RECIPE_CACHE_CONFIG": value}).recipe_cache == path


@pytest.mark.parametrize(
    "environ",
    [
        {"VLLM_SKIP_WARMUP": "maybe"},
        {"VLLM_HPU_WARMUP_SECONDS": "-1"},
        {"VLLM_HPU_WARMUP_BYTES": "1GiB"},
        {"VLLM_T_COMPILE_FULLGRAPH": "2"},
        {"VLLM_HPU_FORCE": "yes"},
        {"PT_HPU_LAZY_MODE": "true"},
        {"PT_HPU_LAZY_MODE": ""},
        {"VLLM_BUCKETING_STRATEGY": "best"},
        {"VLLM_DECODE_BS_BUCKET_PAD_PERCENT": "51"},
        {"VLLM_DECODE_BS_BUCKET_PAD_MAX": "-1"},
        {"VLLM_EXPONENTIAL_BUCKETING": "exp"},
        {"VLLM_DECODE_BS_BUCKET_STEP": "0"},
        {"VLLM_DECODE_BS_BUCKET_MIN": "0"},
        {"VLLM_PROMPT_QUERY_BUCKET_MAX": "many"},
        {"VLLM_PROMPT_QUERY_BUCKET_MAX": "2.5"},
        {"VLLM_PROMPT_QUERY_BUCKET_MAX": ""},
        {"VLLM_PROMPT_SEQ_BUCKET_MIN": "-4"},
    ],
)
def test_bad_values_are_refused_by_name(environ: dict[str, str]) -> None:
    [(name, _)] = environ.items()
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_env(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"VLLM_EXPONENTIAL_BUCKETING": "true", "VLLM_BUCKETING_STRATEGY": "lin"},
        {"VLLM_DECODE_BS_BUCKET_MIN": "9", "VLLM_DECODE_BS_BUCKET_MAX": "8"},
        {"VLLM_PROMPT_CTX_BUCKET_MIN": "9", "VLLM_PROMPT_CTX_BUCKET_MAX": "8"},
        {"VLLM_PROMPT_SEQ_BUCKET_MIN": "16", "VLLM_PROMPT_QUERY_BUCKET_MIN": "32"},
    ],
)
def test_contradictions_are_refused_by_name(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    for name in environ:
        assert name in str(caught.value)


def test_modes_and_strategies() -> None:
    assert Settings.from_env({"PT_HPU_LAZY_MODE": "1"}).lazy_mode is True
    assert Settings.from_env({"VLLM_HPU_FORCE": "OFF"}).force == "off"
    assert Settings.from_env({"VLLM_BUCKETING_STRATEGY": "lin"}).bucketing_strategy == "lin"
    old = Settings.from_env({"VLLM_EXPONENTIAL_BUCKETING": "false"})
    assert old.bucketing_strategy == "lin"
    assert old.messages == (
        "VLLM_EXPONENTIAL_BUCKETING is deprecated. "
        "Set VLLM_BUCKETING_STRATEGY=exp or =lin instead.",
    )
    both = {"VLLM_EXPONENTIAL_BUCKETING": "1", "VLLM_BUCKETING_STRATEGY": "exp"}
    assert Settings.from_env(both).bucketing_strategy == "exp"


def test_bucket_variables_reach_the_plan() -> None:
    settings = Settings.from_env(
        {
            "VLLM_BUCKETING_STRATEGY": "lin",
            "VLLM_PROMPT_SEQ_BUCKET_STEP": "64",
            "VLLM_PROMPT_QUERY_BUCKET_MIN": "64",
            "VLLM_DECODE_BS_BUCKET_STEP": "2",
            "VLLM_PROMPT_CTX_BUCKET_MIN": "0",
        }
    )
    assert settings.bucket_variables == {
        "VLLM_PROMPT_QUERY_BUCKET_STEP": 64,
        "VLLM_PROMPT_QUERY_BUCKET_MIN": 64,
        "VLLM_DECODE_BS_BUCKET_STEP": 2,
        "VLLM_PROMPT_CTX_BUCKET_MIN": 0,
    }
    plan = ShapePlan.from_settings(Limits(6, 200, 256, 16), settings)
    assert plan.strategy.name == "linear"
    assert {key.tokens for key in plan.keys if key.kind == "prefill"} == {64, 128, 192, 200}
    assert {key.decode_rows for key in plan.keys if key.kind == "decode"} == {1, 2, 4, 6}
    assert len(settings.messages) == 1, settings.messages  # only that the SEQ name is old


@pytest.mark.parametrize(
    "name",
    [
        f"VLLM_{dimension}_BUCKET_{part}"
        for dimension in ("PROMPT_QUERY", "PROMPT_CTX", "DECODE_BS", "DECODE_BLOCK")
        for part in ("MIN", "STEP", "MAX")
    ],
)
def test_bucket_variables_ignored_by_exponential_plans_are_reported(name: str) -> None:
    [message] = Settings.from_env({name: "7"}).messages
    assert message.startswith(f"Ignored: {name}. ")
    assert "VLLM_BUCKETING_STRATEGY=lin" in message


def test_other_strategies_say_what_they_ignore() -> None:
    padding = {"VLLM_BUCKETING_STRATEGY": "lin", "VLLM_DECODE_BS_BUCKET_PAD_MAX": "3"}
    assert Settings.from_env(padding).messages == (
        "Ignored: VLLM_DECODE_BS_BUCKET_PAD_MAX. Set VLLM_BUCKETING_STRATEGY=pad to use them.",
    )
    assert not Settings.from_env(padding | {"VLLM_BUCKETING_STRATEGY": "pad"}).messages
    own = {"VLLM_HPU_TRAFFIC_PROFILE": "day.json", "VLLM_HPU_PLAN_BUDGET": "60 graphs"}
    for strategy in ("exp", "lin", "pad"):
        [message] = Settings.from_env(own | {"VLLM_BUCKETING_STRATEGY": strategy}).messages
        assert message.startswith("Ignored: VLLM_HPU_TRAFFIC_PROFILE, VLLM_HPU_PLAN_BUDGET. ")
    settings = Settings.from_env(own | {"VLLM_BUCKETING_STRATEGY": "opt"})
    assert not settings.messages
    assert (settings.traffic_profile, settings.plan_budget) == ("day.json", "60 graphs")


def test_a_traffic_profile_chooses_the_strategy_that_uses_it() -> None:
    profile = {"VLLM_HPU_TRAFFIC_PROFILE": "day.json"}
    settings = Settings.from_env(profile)
    assert (settings.bucketing_strategy, settings.messages) == ("opt", ())
    for chosen in ({"VLLM_BUCKETING_STRATEGY": "pad"}, {"VLLM_EXPONENTIAL_BUCKETING": "false"}):
        assert Settings.from_env(profile | chosen).bucketing_strategy in ("pad", "lin")
    file = {"VLLM_BUCKETING_FROM_FILE": "buckets.txt"}
    assert Settings.from_env(profile | file).bucketing_strategy == "file"
    assert Settings.from_env({"VLLM_HPU_TRAFFIC_PROFILE": ""}).bucketing_strategy == "exp"


def test_a_file_of_buckets_replaces_the_strategy() -> None:
    settings = Settings.from_env({"VLLM_BUCKETING_FROM_FILE": "buckets.txt"})
    assert (settings.bucketing_strategy, settings.bucketing_file) == ("file", "buckets.txt")
    assert not settings.messages
    [message] = Settings.from_env(
        {"VLLM_BUCKETING_FROM_FILE": "buckets.txt", "VLLM_BUCKETING_STRATEGY": "lin"}
    ).messages
    assert message.startswith("Ignored: VLLM_BUCKETING_STRATEGY. VLLM_BUCKETING_FROM_FILE")
    assert Settings.from_env({"VLLM_BUCKETING_FROM_FILE": ""}).bucketing_strategy != "file"


def test_variables_without_effect_are_reported() -> None:
    environ = {
        name: variable.acts_like and "77" if variable.kind == "int" else "true"
        for name, variable in VARIABLES.items()
        if variable.status in (Status.DEAD, Status.LATER, Status.NO_EFFECT)
        and not variable.refused
        and variable.acts_like != "true"
        and "_PAD_" not in name
    }
    messages = Settings.from_env({name: value or "7" for name, value in environ.items()}).messages
    assert len(environ) > 70
    assert [message.split()[0] for message in messages] == list(environ)


def test_values_the_plugin_acts_like_anyway_are_not_reported() -> None:
    environ = {
        name: variable.acts_like
        for name, variable in VARIABLES.items()
        if variable.acts_like is not None
    }
    assert "VLLM_ENABLE_BUCKETING" in environ
    assert Settings.from_env(environ).messages == ()


def test_variables_of_the_bridge_and_of_vllm_are_left_to_them() -> None:
    environ = {
        name: "anything"
        for name, variable in VARIABLES.items()
        if variable.status in (Status.BRIDGE, Status.VLLM)
    }
    # Where the recipes are is the one thing the plugin reads too.
    found = dataclasses.replace(Settings.from_env(environ), recipe_cache="")
    assert found == Settings.from_env({})


def _run(program: str, **environ: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **environ},
    )
    return done.stdout.splitlines()


def test_messages_are_given_once_in_a_server() -> None:
    program = (
        "import subprocess, sys\n"
        "from vllm_hpu.settings import settings\n"
        "print(len(settings().warnings()), len(settings().warnings()), flush=True)\n"
        "child = 'from vllm_hpu.settings import settings; print(len(settings().warnings()))'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    assert _run(program, VLLM_USE_V1="1", VLLM_DEBUG="fwd") == ["2 0", "0"]


def test_detection_survives_bad_values() -> None:
    """vLLM would swallow the error there; it has to come when the engine is configured."""
    program = (
        "from vllm_hpu.settings import force_choice, settings\n"
        "print(force_choice())\n"
        "try: settings()\n"
        "except ValueError as error: print(error)\n"
    )
    [force, error] = _run(program, VLLM_HPU_FORCE="perhaps")
    assert force == "auto"
    assert "VLLM_HPU_FORCE='perhaps' is not one of auto, on, off" in error
    [force, error] = _run(program, VLLM_HPU_FORCE="off", VLLM_SKIP_WARMUP="perhaps")
    assert force == "off"
    assert "VLLM_SKIP_WARMUP" in error


def test_export_is_seen_by_children_and_says_what_it_overrides() -> None:
    program = (
        "import logging, os, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "from vllm_hpu.settings import export\n"
        "export('A', '1'); export('B', '1'); export('C', '1')\n"
        "print(os.environ['A'], os.environ['B'], os.environ['C'])\n"
    )
    said, values = _run(program, B="2", C="1")
    assert said.startswith("B=2 is changed to 1")
    assert values == "1 1 1"


def test_vllm_knows_our_variables() -> None:
    """vLLM warns of (or refuses) every VLLM_* variable it does not know."""
    program = (
        "import os\n"
        "from vllm_hpu.settings import register_with_vllm\n"
        "from vllm_hpu.variables import VARIABLES\n"
        "from vllm import envs\n"
        "before = dict(envs.environment_variables)\n"
        "register_with_vllm(); register_with_vllm()\n"
        "ours = [name for name in VARIABLES if name.startswith('VLLM_')]\n"
        "print(all(name in envs.environment_variables for name in ours))\n"
        "print(all(envs.environment_variables[n] is f for n, f in before.items()))\n"
        "print(envs.VLLM_BUCKETING_STRATEGY, envs.VLLM_SKIP_WARMUP)\n"
        "os.environ['VLLM_MERGED_PREFILL'] = '1'\n"
        "from vllm.platforms.interface import Platform\n"
        "Platform.validate_environ(hard_fail=True)\n"
        "envs.compile_factors()\n"
    )
    lines = _run(program, VLLM_BUCKETING_STRATEGY="lin", VLLM_NO_USAGE_STATS="1")
    assert lines[-3:] == ["True", "True", "lin None"]


def _attributes(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_honoured_settings_are_used() -> None:
    """No field of Settings is read by nobody: a variable listed as honoured does something."""
    used: set[str] = set()
    for path in PLUGIN.rglob("*.py"):
        if path.name not in ("settings.py", "variables.py"):
            used |= _attributes(ast.parse(path.read_text(encoding="utf-8")))
    # ``force`` is read by detection through ``force_choice``, before errors can be reported.
    assert set(Settings.__dataclass_fields__) - {"messages", "force"} <= used
    assert "warnings" in used


def test_only_settings_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(PLUGIN))
        for path in PLUGIN.rglob("*.py")
        if _attributes(ast.parse(path.read_text(encoding="utf-8"))) & {"environ", "getenv"}
    }
    assert readers == {"settings.py"}


def test_every_variable_is_declared_once_and_explained() -> None:
    assert len(VARIABLES) == sum(len(group) for group in GROUPS.values())
    for variable in VARIABLES.values():
        assert variable.help.endswith("."), variable.name
        silent = variable.status in (Status.ACTIVE, Status.BRIDGE, Status.VLLM)
        assert bool(variable.reason) != silent, variable.name


@pytest.mark.parametrize("page", ["settings", "flags"])
def test_the_documentation_is_current(page: str) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/generate_{page}_doc.py", "--check"],
        cwd=ROOT,
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigurationError, ValueError),
        (UnsupportedFeatureError, ValueError),
        (DeviceError, RuntimeError),
    ],
)
def test_errors_say_what_why_and_what_to_do(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert str(error("It broke", "It is old.", "Buy another")) == (
        "It broke. It is old. Buy another."
    )
    assert str(error("It broke", do="Wait")) == "It broke. Wait."
    assert issubclass(error, builtin)


@pytest.mark.parametrize("text", ["1", "-0.1", "ten", "nan"])
def test_a_share_is_from_0_to_below_1(text: str) -> None:
    assert Settings.from_env({"VLLM_GRAPH_RESERVED_MEM": "0.25"}).graph_reserved_share == 0.25
    with pytest.raises(ConfigurationError, match=f"VLLM_GRAPH_RESERVED_MEM={text}"):
        Settings.from_env({"VLLM_GRAPH_RESERVED_MEM": text})

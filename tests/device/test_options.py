"""Flags of `vllm serve` and entries of additional_config: what they change, and what is refused."""

import pytest

from models.tiny import build
from vllm_hpu.engine_plan import plan_for
from vllm_hpu.errors import ConfigurationError
from vllm_hpu.options import OPTIONS, settings_of
from vllm_hpu.settings import settings


@pytest.fixture(autouse=True)
def no_remembered_settings():
    """Settings are read once per process; here the environment changes."""
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def parser():
    """The parser of `vllm serve`."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())


@pytest.fixture(scope="module")
def configured(model_directory):
    """The configuration of an engine with this additional_config."""
    from vllm.engine.arg_utils import EngineArgs

    model = str(build("llama", model_directory))

    def config(**additional):
        limits = {"max_model_len": 512, "max_num_seqs": 16, "max_num_batched_tokens": 256}
        arguments = EngineArgs(model=model, additional_config=additional, **limits)
        return arguments.create_engine_config()

    return config


@pytest.fixture(scope="module")
def parsed(parser, model_directory):
    """The additional_config that flags make."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    model = str(build("llama", model_directory))

    def config(*flags):
        arguments = parser.parse_args(["--model", model, *flags])
        return AsyncEngineArgs.from_cli_args(arguments).additional_config

    return config


def test_flags_become_entries(parsed):
    assert parsed() == {}
    flags = ("--hpu-warmup-seconds", "60", "--hpu-warmup-bytes=2G", "--hpu-plan-budget", "9 graphs")
    entries = {
        "hpu_warmup_seconds": "60",
        "hpu_warmup_bytes": str(2 << 30),
        "hpu_plan_budget": "9 graphs",
    }
    assert parsed(*flags) == entries
    other = ("--additional-config", '{"theirs": 1, "hpu_warmup_seconds": 5}')
    # Whichever comes first: nothing is lost, and a flag takes precedence.
    assert parsed(*flags, *other) == {"theirs": 1} | entries
    assert parsed(*other, *flags) == {"theirs": 1} | entries
    assert parsed("--additional-config.hpu_warmup_seconds", "7") == {"hpu_warmup_seconds": 7}


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--hpu-warmup-seconds", "soon", "is not a whole number"),
        ("--hpu-warmup-seconds", "-1", "must be at least 0"),
        ("--hpu-warmup-bytes", "2 GiB", "is not a whole number"),
        ("--hpu-warmup-load-seconds", "1.5", "is not a whole number"),
        ("--hpu-bucketing-strategy", "best", "is not one of exp, lin, pad, opt"),
        ("--hpu-plan-budget", "many", "is not understood"),
    ],
)
def test_bad_values_are_refused_with_the_flag(parser, capsys, configured, flag, value, says):
    with pytest.raises(SystemExit):
        parser.parse_args([f"{flag}={value}"])
    error = capsys.readouterr().err
    assert flag in error
    assert says in error
    with pytest.raises(ValueError, match=says):
        configured(**{flag[2:].replace("-", "_"): value})


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"hpu_warmup_second": 5}, "does not exist.*hpu_warmup_seconds"),
        ({"hpu_warmup_seconds": True}, "--hpu-warmup-seconds=True is neither"),
        ({"hpu_warmup_bytes": None}, "--hpu-warmup-bytes=None is neither"),
        ({"hpu_warmup_bytes": 1.5}, "--hpu-warmup-bytes=1.5 is neither"),
    ],
)
def test_entries_that_make_no_sense(configured, entry, says):
    with pytest.raises(ValueError, match=says):
        configured(**entry)


def test_entries_take_precedence_over_variables(configured, monkeypatch):
    monkeypatch.setenv("VLLM_HPU_WARMUP_SECONDS", "10")
    monkeypatch.setenv("VLLM_HPU_WARMUP_BYTES", "1000")
    monkeypatch.setenv("VLLM_EXPONENTIAL_BUCKETING", "true")
    found = settings_of(configured(hpu_warmup_seconds=20, theirs="anything"))
    assert (found.warmup_seconds, found.warmup_bytes) == (20, 1000)
    assert found.bucketing_strategy == "exp"
    # The older name of a choice neither contradicts an option nor decides.
    found = settings_of(configured(hpu_bucketing_strategy="lin", hpu_warmup_bytes="1M"))
    assert (found.warmup_seconds, found.warmup_bytes) == (10, 1 << 20)
    assert found.bucketing_strategy == "lin"
    assert settings().bucketing_strategy == "exp"


def test_a_budget_makes_a_smaller_plan(configured, monkeypatch):
    monkeypatch.setenv("VLLM_HPU_PLAN_COST", "operations")
    free = plan_for(configured(hpu_bucketing_strategy="opt"))
    small = plan_for(configured(hpu_bucketing_strategy="opt", hpu_plan_budget="14 graphs"))
    assert len(small.keys) <= 14 < len(free.keys)


def test_every_option_is_documented_with_its_flag():
    from tests.conftest import ROOT

    page = (ROOT / "docs" / "settings.md").read_text()
    assert OPTIONS
    for variable in OPTIONS.values():
        assert f"`{variable.name}` `{variable.flag}`" in page


def test_errors_are_the_plugins_own(configured):
    """vLLM wraps what a configuration raises; the text stays."""
    with pytest.raises((ConfigurationError, ValueError), match="Correct or unset --hpu-warmup-s"):
        configured(hpu_warmup_seconds=-1)

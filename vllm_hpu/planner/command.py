"""``vllm-hpu plan``: the graphs a server would compile, and what they would cost."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.planner import report as plan_report
from vllm_hpu.planner.comparison import Comparison, Question, compare
from vllm_hpu.planner.model_config import ModelFolder
from vllm_hpu.planner.plot import SUFFIXES
from vllm_hpu.planner.server_defaults import CARDS, MEMORY_UTILIZATION, ServerLimits
from vllm_hpu.settings import Settings, settings
from vllm_hpu.shapes.strategies import NAMES

DESCRIPTION = """\
Show the plan of shapes that a server would compile for MODEL: how many graphs of which kind, how
much of their work is padding under some traffic, how long warm-up takes, how much device memory the
graphs keep and what is left for the KV cache. Times and bytes are predictions unless an earlier
start has measured them; each names its source. Nothing is compiled, no card is needed, and only
MODEL/config.json is read.

Limits that are not given are those that `vllm serve` would take on the card. The variables that a
server reads apply: VLLM_BUCKETING_STRATEGY, VLLM_BUCKETING_FROM_FILE, VLLM_*_BUCKET_*,
VLLM_HPU_TRAFFIC_PROFILE, VLLM_HPU_PLAN_BUDGET, VLLM_HPU_PLAN_COST, PT_HPU_RECIPE_CACHE_CONFIG.
"""

EXAMPLES = """\
examples:
  vllm-hpu plan models/demo
  vllm-hpu plan /models/llama-8b --max-model-len 32768 --max-num-seqs 256 --plot plan.png
  vllm-hpu plan /models/llama-8b --profile traffic.json --cost operations
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of ``vllm-hpu``."""
    parser = commands.add_parser(
        "plan",
        help="show which graphs a server would compile, and what they would cost",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="MODEL", type=Path, help="folder with a config.json")
    limits = parser.add_argument_group("limits of the server, named as in vllm serve")
    for flag, meaning in (
        ("--max-num-seqs", "requests computed together"),
        ("--max-num-batched-tokens", "tokens of a step"),
        ("--max-model-len", "tokens of the longest request"),
        ("--block-size", "tokens of a KV block"),
        ("--tensor-parallel-size", "cards that share the model"),
        ("--num-speculative-tokens", "draft tokens of a decode row"),
    ):
        limits.add_argument(flag, metavar="N", type=_positive, help=meaning)
    limits.add_argument(
        "--num-blocks",
        metavar="N",
        type=_positive,
        help="end the plan at N KV blocks in decode rows and in prefill rows. Default: what the "
        "limits allow, or what the card's memory is predicted to have room for",
    )
    limits.add_argument(
        "--gpu-memory-utilization",
        metavar="SHARE",
        type=_share,
        default=MEMORY_UTILIZATION,
        help="share of the card's memory that the server may use. Default: %(default)s",
    )
    parser.add_argument("--card", choices=CARDS, default="gaudi3", help="default: %(default)s")
    parser.add_argument(
        "--strategy",
        choices=(*NAMES, "file"),
        help="how sizes are chosen: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in NAMES.items())
        + "; file: those of --bucket-file. Default: what VLLM_BUCKETING_STRATEGY says, else opt "
        "with a profile and exp without",
    )
    parser.add_argument(
        "--bucket-file", metavar="FILE", help="sizes of graphs (as VLLM_BUCKETING_FROM_FILE)"
    )
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="traffic to plan for and to count padding on, as a server started with "
        "--hpu-record-profile writes it",
    )
    parser.add_argument(
        "--cost",
        choices=("time", "operations"),
        help="what a launch costs, where plans choose between graphs: predicted time, or "
        "operations alone. Default: what VLLM_HPU_PLAN_COST says, else time",
    )
    parser.add_argument(
        "--budget-graphs",
        metavar="N",
        type=_positive,
        help="compile N graphs only: opt plans for so many, and warm-up of the others ends there, "
        "so that steps without a graph of their own run in larger ones",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="what an earlier start has measured of its graphs. Default: the one file beside the "
        "recipe cache (PT_HPU_RECIPE_CACHE_CONFIG) that fits the plan",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print JSON instead of tables")
    output.add_argument(
        "--plot",
        metavar="FILE",
        type=_plot_file,
        help=f"draw the strategies compared; {' or '.join(SUFFIXES)} by the file's suffix",
    )


def run(options: argparse.Namespace) -> None:
    """Print what ``options`` ask for. Raises ConfigurationError for what cannot be planned."""
    model = ModelFolder.read(options.model)
    server = ServerLimits.of(
        model.max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_model_len=options.max_model_len,
        block_size=options.block_size,
        speculative_tokens=options.num_speculative_tokens or 0,
        num_blocks=options.num_blocks,
    )
    question = Question(
        model=model,
        server=server,
        card=CARDS[options.card],
        ranks=options.tensor_parallel_size or 1,
        settings=_settings(options),
        budget_graphs=options.budget_graphs,
        manifest=options.manifest,
        memory_utilization=options.gpu_memory_utilization,
    )
    comparison = compare(question)
    if options.json:
        print(json.dumps(plan_report.as_json(comparison), indent=1))
    else:
        print(plan_report.as_text(comparison))
    if options.plot:
        _draw(comparison, options.plot, say=not options.json)


def _settings(options: argparse.Namespace) -> Settings:
    """The environment's settings, changed by what the command line says."""
    profile = ("VLLM_HPU_TRAFFIC_PROFILE", options.profile)
    found = settings((profile,)) if options.profile else settings()
    if options.bucket_file:
        found = replace(found, bucketing_file=options.bucket_file, bucketing_strategy="file")
    if options.strategy:
        found = replace(found, bucketing_strategy=options.strategy)
    if found.bucketing_strategy == "file" and not found.bucketing_file:
        raise ConfigurationError(
            "--strategy file needs a file of sizes", do="Add --bucket-file FILE"
        )
    if options.cost:
        found = replace(found, plan_cost=options.cost)
    if options.budget_graphs:
        found = replace(found, plan_budget=f"{options.budget_graphs} graphs")
    return found


def _draw(comparison: Comparison, file: Path, say: bool) -> None:
    from vllm_hpu.planner.plot import draw

    try:
        draw(comparison, file)
    except OSError as error:
        raise ConfigurationError(f"The plot {file} cannot be written", str(error)) from None
    if say:
        print(f"\nPlot: {file}")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1")
    return share


def _plot_file(text: str) -> Path:
    file = Path(text)
    if file.suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in {' nor in '.join(SUFFIXES)}")
    return file

"""A comparison of plans as text for people and as JSON for programs."""

from dataclasses import asdict
from typing import Any

from vllm_hpu.planner.comparison import Comparison, Question
from vllm_hpu.planner.forecast import Forecast, WarmUpForecast
from vllm_hpu.planner.serve_command import serve_command
from vllm_hpu.text import duration, percent, size, table

_FLAGS = {
    "max-num-seqs": "max_num_seqs",
    "max-num-batched-tokens": "max_num_batched_tokens",
    "max-model-len": "max_model_len",
    "block-size": "block_size",
}


def as_text(comparison: Comparison) -> str:
    """The tables of ``vllm-hpu plan``, without a final newline."""
    question, chosen = comparison.question, comparison.chosen
    model, shape = question.model, question.model.shape
    cards = f"{question.ranks} x " if question.ranks > 1 else ""
    parts = [
        f"{model.path}: {model.architecture}, {shape.layers} layers of {shape.hidden}, "
        f"planned for {cards}{question.card.name}",
        _limits(comparison),
        f"Traffic: {comparison.traffic}.",
        f"Strategy {question.strategy}\n" + _kinds(chosen),
        _warm_up(comparison),
        _memory(comparison),
        "All strategies on this traffic\n" + _strategies(comparison),
        _serve(comparison.question),
        f"Sources\n"
        f"  padded FLOPs: the operations of this model's forward, counted by formula\n"
        f"  padded time: prediction, a roofline of the card ({question.card.source})\n"
        f"  warm-up and memory of graphs: {comparison.prices.source}\n"
        f"  memory: prediction from the sizes in config.json; a server measures it instead",
    ]
    return "\n\n".join(parts)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The same figures. Shares are from 0 to 1, times in seconds, memory in bytes."""
    question = comparison.question
    chosen = comparison.chosen
    return {
        "model": {
            "path": str(question.model.path),
            "architecture": question.model.architecture,
            "sizes": asdict(question.model.shape),
        },
        "card": {"name": question.card.name, "source": question.card.source},
        "tensor_parallel_size": question.ranks,
        "limits": asdict(question.server.limits),
        "limits_from": question.server.origins,
        "traffic": comparison.traffic,
        "strategy": question.strategy,
        "cost": question.settings.plan_cost,
        "serve": serve_command(question),
        "graphs": [
            {"kind": key.kind, "covering": key in set(chosen.plan.covering), **asdict(key)}
            for key in chosen.plan.keys
        ],
        "kinds": [
            asdict(kind) | {"padding": kind.padding, "time_padding": kind.time_padding}
            for kind in chosen.kinds
        ],
        "budget": comparison.budgeted
        and dict(zip(("graphs", "padding"), comparison.budgeted, strict=True)),
        "strategies": {
            name: {
                "padding": forecast.padding,
                "time_padding": forecast.time_padding,
                "warm_up": asdict(forecast.warm_up),
                "before_serving": asdict(forecast.first),
                "padding_by_graphs": comparison.paths.get(name),
            }
            for name, forecast in comparison.forecasts.items()
        },
        "strategies_refused": dict(comparison.refused),
        "warm_up_source": comparison.prices.source,
        "memory": comparison.memory and asdict(comparison.memory),
    }


def _limits(comparison: Comparison) -> str:
    server = comparison.question.server
    rows = [
        (f"--{flag}", f"{getattr(server.limits, name)}", server.origins[flag])
        for flag, name in _FLAGS.items()
    ]
    if server.limits.query_len > 1:
        rows.append(("--num-speculative-tokens", f"{server.limits.query_len - 1}", "given"))
    if server.limits.max_decode_blocks:
        rows.append(
            ("--num-blocks", f"{server.limits.max_decode_blocks}", server.origins["num-blocks"])
        )
    return "Limits\n" + table(rows, "lrl")


def _kinds(forecast: Forecast) -> str:
    rows: list[tuple[str, ...]] = [
        ("graphs of", "number", "share of steps", "padded FLOPs", "padded time")
    ]
    for kind in forecast.kinds:
        padding = (kind.padding, kind.time_padding) if kind.steps else ()
        shown = [percent(share) for share in padding] or ["-", "-"]
        rows.append((kind.kind, f"{kind.graphs:,}", percent(kind.steps), *shown))
    padding = forecast.padding, forecast.time_padding
    rows.append(("all", f"{forecast.warm_up.graphs:,}", *map(percent, (1.0, *padding))))
    return table(rows, "lrrrr")


def _warm_up(comparison: Comparison) -> str:
    chosen = comparison.chosen
    lines = [
        "Warm-up",
        f"  before the server answers: {_warm_up_words(chosen.first)}",
        f"  with the rest, in idle gaps: {_warm_up_words(chosen.warm_up)}",
    ]
    if comparison.budgeted is not None:
        graphs, padding = comparison.budgeted
        lines.append(f"  if it ends after {graphs:,} graphs: {percent(padding)} padded FLOPs")
    return "\n".join(lines)


def _memory(comparison: Comparison) -> str:
    """How the card is shared out, in graphs mode."""
    question, found = comparison.question, comparison.memory
    if found is None:
        return "Memory per card: no prediction for this kind of model"
    need, total = found.plan.need, question.card.memory_bytes
    share = f"{question.memory_utilization:g} of {size(total)}"
    tokens = found.plan.kv_blocks * question.server.limits.block_size
    parts = [
        ("weights", need.weights, ""),
        ("buffers", need.buffers, "token ids, block tables, penalties"),
        ("largest step or sampling", need.transient, f"up to {found.blocks:,} KV blocks"),
        ("first graphs", need.graphs, "a step of each kind, and sampling"),
        ("KV cache", found.plan.kv, f"{found.plan.kv_blocks:,} blocks, {tokens:,} tokens"),
        ("for later graphs", found.plan.reserve, "VLLM_GRAPH_RESERVED_MEM"),
        ("missing", found.plan.missing, ""),
    ]
    shown = [(name, size(number), words) for name, number, words in parts if number]
    lines = [f"Memory per card, usable {share}", table(shown, "lrl")]
    if found.refused:
        lines.append(f"  {found.refused}")
    return "\n".join(lines)


def _warm_up_words(warm_up: WarmUpForecast) -> str:
    graphs = "1 graph" if warm_up.graphs == 1 else f"{warm_up.graphs:,} graphs"
    return f"{graphs}, {duration(warm_up.seconds)}, {size(warm_up.bytes)}"


def _serve(question: Question) -> str:
    lines = ["Serve with this plan", f"  {serve_command(question)}"]
    if not question.settings.traffic_profile:
        lines += [
            "A plan for your own traffic pads less: serve a day with --hpu-record-profile FILE,",
            "  then give --profile FILE here.",
        ]
    return "\n".join(lines)


def _strategies(comparison: Comparison) -> str:
    rows = [("strategy", "graphs", "padded FLOPs", "padded time", "warm-up", "memory of graphs")]
    for name, forecast in comparison.forecasts.items():
        rows.append(
            (
                name,
                f"{forecast.warm_up.graphs:,}",
                percent(forecast.padding),
                percent(forecast.time_padding),
                duration(forecast.warm_up.seconds),
                size(forecast.warm_up.bytes),
            )
        )
    lines = [table(rows, "lrrrrr")]
    lines += [f"  {name}: not planned. {why}" for name, why in comparison.refused.items()]
    return "\n".join(lines)

"""One model, one server, one traffic: the plans of all strategies side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.memory.checkpoint import checkpoint_bytes
from vllm_hpu.memory.plan import Ask, Room
from vllm_hpu.memory.refusal import Prediction
from vllm_hpu.planner.forecast import Demand, Forecast, GraphPrices, forecast, padding_by_graphs
from vllm_hpu.planner.measured import find_records
from vllm_hpu.planner.memory_forecast import MemoryForecast
from vllm_hpu.planner.memory_forecast import forecast as foretell_memory
from vllm_hpu.planner.model_config import ModelFolder
from vllm_hpu.planner.server_defaults import MEMORY_UTILIZATION, ServerLimits
from vllm_hpu.settings import Settings
from vllm_hpu.shapes.cost import Card, CostModel
from vllm_hpu.shapes.limits import Limits
from vllm_hpu.shapes.mix import default_traffic
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.simulate import DEFAULT_STEPS, steps_of
from vllm_hpu.shapes.step import Step
from vllm_hpu.shapes.strategies import NAMES
from vllm_hpu.shapes.traffic import Traffic

_ASSUMED = (
    "an assumption: chats, chats with a cached history and a few documents, with any number of "
    "requests in flight"
)
# Padding is counted on other requests than those that strategy opt drew from the same traffic.
_SEED = 1
# Plans up to this size are followed graph by graph; warm-up's order is quadratic in their number.
_FOLLOWED_GRAPHS = 1000
_STOPS = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)


@dataclass(frozen=True)
class Question:
    """What was asked.

    ranks          tensor-parallel ranks; each computes its share of the model
    settings       the environment's settings with what the command line changes: the strategy to
                   show in full, the traffic to plan for and to measure on, the budget of "opt"
    budget_graphs  graphs after which warm-up ends, None for all
    manifest       what an earlier start has measured, None to look beside the recipe cache
    memory_utilization  share of the card's memory that the server may use
    """

    model: ModelFolder
    server: ServerLimits
    card: Card
    ranks: int
    settings: Settings
    budget_graphs: int | None = None
    manifest: Path | None = None
    memory_utilization: float = MEMORY_UTILIZATION

    @property
    def strategy(self) -> str:
        return self.settings.bucketing_strategy

    @property
    def shape(self) -> ModelShape:
        """What one rank computes."""
        return self.model.shape.shard(self.ranks)


@dataclass(frozen=True)
class Comparison:
    """The answer.

    traffic    in words
    chosen     the forecast of the strategy asked for
    forecasts  of every strategy that can be planned, by name
    refused    why the others cannot, by name
    paths      (graphs, share of padding) while warm-up goes on, by name
    budgeted   the last point of the chosen path within the budget; None without a budget
    prices     what a graph takes
    memory     how the card is shared out; None if that cannot be foretold
    """

    question: Question
    traffic: str
    chosen: Forecast
    forecasts: Mapping[str, Forecast]
    refused: Mapping[str, str]
    paths: Mapping[str, list[tuple[int, float]]]
    budgeted: tuple[int, float] | None
    prices: GraphPrices
    memory: MemoryForecast | None


def compare(question: Question) -> Comparison:
    """Plan for ``question`` with its strategy and, for comparison, with all others.

    Raises:
        ConfigurationError: the profile or the manifest cannot be read, or the strategy asked for
            cannot plan for these limits.
    """
    memory = _memory(question)
    question = _within(memory, question)
    limits = question.server.limits
    cost = CostModel(question.shape, limits.block_size, limits.query_len, question.card)
    profile = question.settings.traffic_profile
    if profile:
        servers, words = [Traffic.read(Path(profile))], f"the profile {profile}"
    else:
        servers, words = default_traffic(limits), _ASSUMED
    demand = Demand(_steps(servers, limits), cost)
    plans, refused = _plans(question)
    chosen = plans[question.strategy]
    prices = _prices(question, chosen)
    forecasts = {name: forecast(plan, demand, prices) for name, plan in plans.items()}
    stops = (*_STOPS, question.budget_graphs or 0)
    paths = {
        name: padding_by_graphs(plan, demand, stops)
        for name, plan in plans.items()
        if len(plan.keys) <= _FOLLOWED_GRAPHS
    }
    return Comparison(
        question,
        words,
        forecasts[question.strategy],
        forecasts,
        refused,
        paths,
        _budgeted(question.budget_graphs, chosen, paths.get(question.strategy, [])),
        prices,
        memory,
    )


def _memory(question: Question) -> MemoryForecast | None:
    limits, total = question.server.limits, question.card.memory_bytes
    prediction = Prediction(
        Ask(limits.max_model_len, limits.max_num_seqs, limits.max_num_batched_tokens),
        limits.block_size,
        limits.query_len,
        question.shape,
        graphs=True,
        weights=checkpoint_bytes(
            question.model.path, question.shape.activation_bytes, question.ranks
        ),
    )
    room = Room(int(question.memory_utilization * total), question.settings.graph_reserved_share)
    return foretell_memory(
        prediction, max(limits.decode_blocks, limits.prefill_blocks), room, total
    )


def _within(memory: MemoryForecast | None, question: Question) -> Question:
    """The question with steps of no more KV blocks than the cache is predicted to hold."""
    if memory is None or memory.blocks >= memory.most:
        return question
    server = question.server.up_to(memory.blocks, "what the card's memory has room for, predicted")
    return replace(question, server=server)


def _steps(servers: Sequence[Traffic], limits: Limits) -> Mapping[Step, float]:
    """The steps of all ``servers``, each as important as the others."""
    steps: dict[Step, float] = {}
    number = DEFAULT_STEPS // len(servers)
    for server in servers:
        for step, share in steps_of(server, limits, number, _SEED).items():
            steps[step] = steps.get(step, 0.0) + share / len(servers)
    return steps


def _plans(question: Question) -> tuple[dict[str, ShapePlan], dict[str, str]]:
    plans, refused = {}, {}
    for name in (*NAMES, *(["file"] if question.settings.bucketing_file else [])):
        chosen = replace(question.settings, bucketing_strategy=name)
        try:
            plans[name] = ShapePlan.from_settings(question.server.limits, chosen, question.shape)
        except ConfigurationError as error:
            if name == question.strategy:
                raise
            refused[name] = str(error)
    return plans, refused


def _prices(question: Question, plan: ShapePlan) -> GraphPrices:
    records, file = find_records(question.manifest, question.settings.recipe_cache, plan)
    if not records:
        return GraphPrices({})
    known = sum(str(key) in records for key in plan.keys)
    return GraphPrices(
        records,
        f"{known} of the {len(plan.keys)} graphs of strategy {question.strategy} were measured at "
        f"an earlier start ({file}); the others are predicted to take their mean",
    )


def _budgeted(
    budget: int | None, plan: ShapePlan, path: list[tuple[int, float]]
) -> tuple[int, float] | None:
    if budget is None or budget >= len(plan.keys):
        return None
    if budget < len(plan.covering):
        raise ConfigurationError(
            f"--budget-graphs {budget} is below {len(plan.covering)}",
            "So many graphs are needed for every step to have one",
            f"Use --budget-graphs {len(plan.covering)} or more",
        )
    reached = [point for point in path if point[0] <= budget]
    if not reached:
        raise ConfigurationError(
            f"--budget-graphs cannot be shown for a plan of {len(plan.keys)} graphs",
            f"Warm-up is only followed for plans of up to {_FOLLOWED_GRAPHS}",
            "Choose a strategy with fewer graphs, for example --strategy exp",
        )
    return reached[-1]

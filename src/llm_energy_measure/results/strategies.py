"""Strategies: rules that compute the totals of an experiment from its processes, chosen by name.

The built-in strategies are `sum_energy_avg_throughput` (the default), `attributed_energy`, `model_parallel` and
`wall_clock_throughput`. `docs/reference/strategies.md` explains when to use each. Another package can add a
strategy with an entry point in the group `llm_energy_measure.strategies` that refers to a `Strategy` object:

    [project.entry-points."llm_energy_measure.strategies"]
    my_rule = "my_package:MY_RULE"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct, structs

from llm_energy_measure.constants import DEFAULT_STRATEGY
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.statistics import mean
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "llm_energy_measure.strategies"


class Totals(Struct, frozen=True, kw_only=True):
    """The totals of an experiment. None is unknown.

    Attributes:
        total_tokens: Number of tokens.
        total_energy_j: Energy, in joules.
        total_inference_time_sec: Inference time, in seconds.
        avg_tokens_per_second: Throughput, in tokens per second.
        total_flops: Number of floating-point operations.
    """

    total_tokens: int | None
    total_energy_j: float | None
    total_inference_time_sec: float | None
    avg_tokens_per_second: float | None
    total_flops: float | None


@runtime_checkable
class Strategy(Protocol):
    """A rule that computes the totals of an experiment.

    Attributes:
        name: Name of the strategy. An aggregate has this name in `aggregation.method`.
    """

    name: str

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """Return the totals of the experiment.

        Args:
            results: At least one result, sorted by process index, each index once. Any metric may be unknown.
        """


class SumEnergyAvgThroughput:
    """Sums of energy, tokens, inference time and FLOPs; the mean throughput of the processes that report it."""

    name = DEFAULT_STRATEGY

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """Return the totals of the experiment. Each total is over the processes that report the value."""
        inference = [result.inference_metrics for result in results if result.inference_metrics is not None]
        computed = [result.compute_metrics for result in results if result.compute_metrics is not None]
        return Totals(
            total_tokens=sum([metrics.total_tokens for metrics in inference]) if inference else None,
            total_energy_j=_sum([result.energy_metrics.total_energy_j for result in results]),
            total_inference_time_sec=_sum([metrics.inference_time_sec for metrics in inference]),
            avg_tokens_per_second=mean([m.tokens_per_second for m in inference if m.tokens_per_second is not None]),
            total_flops=_sum([metrics.flops_total for metrics in computed]),
        )


class AttributedEnergy(SumEnergyAvgThroughput):
    """Like the default strategy, but the energy is the attributed energy: each joule is counted once."""

    name = "attributed_energy"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """Return the totals of the experiment. All ratios of the aggregate use the attributed energy."""
        # Imported late: `results list` needs only the names of the strategies.
        from llm_energy_measure.verification.attribution import attribute

        return structs.replace(super().combine(results), total_energy_j=attribute(results).energy_j)


class ModelParallel(SumEnergyAvgThroughput):
    """The totals of ranks that each compute a part of one model (tensor or pipeline parallelism).

    The ranks process the same tokens, so the tokens are counted once. Energy, inference time and counted FLOPs are
    summed. FLOPs that are estimated from the model's parameters are those of the whole model, and are counted once.
    """

    name = "model_parallel"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """Return the totals of the experiment. Tokens and throughput are the greatest values of a rank."""
        inference = [result.inference_metrics for result in results if result.inference_metrics is not None]
        rates = [metrics.tokens_per_second for metrics in inference if metrics.tokens_per_second is not None]
        computed = [result.compute_metrics for result in results if result.compute_metrics is not None]
        estimates = [metrics.flops_total for metrics in computed if "estimate" in (metrics.flops_method or "")]
        counted = [metrics.flops_total for metrics in computed if "estimate" not in (metrics.flops_method or "")]
        whole = max((flops for flops in estimates if flops is not None), default=None)
        return structs.replace(
            super().combine(results),
            total_tokens=max((metrics.total_tokens for metrics in inference), default=None),
            avg_tokens_per_second=max(rates, default=None),
            total_flops=_sum([whole, *counted]),
        )


class WallClockThroughput(SumEnergyAvgThroughput):
    """Like the default strategy, but the throughput is the tokens of all processes divided by their common time span.

    The span is from the earliest start to the latest end, and includes loading and waiting. The throughput is unknown
    if a start or an end is unknown, or if only some of these times have a UTC offset.
    """

    name = "wall_clock_throughput"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """Return the totals of the experiment. The throughput is in tokens per second of wall-clock time."""
        totals = super().combine(results)
        starts = [result.timestamps.start for result in results if result.timestamps.start is not None]
        ends = [result.timestamps.end for result in results if result.timestamps.end is not None]
        span_sec = None
        if len(starts) == len(ends) == len(results) and len({time.tzinfo is None for time in starts + ends}) == 1:
            span_sec = (max(ends) - min(starts)).total_seconds()
        is_known = span_sec is not None and span_sec > 0
        return structs.replace(totals, avg_tokens_per_second=ratio(totals.total_tokens, span_sec) if is_known else None)


_BUILT_IN: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (SumEnergyAvgThroughput(), AttributedEnergy(), ModelParallel(), WallClockThroughput())
}

WHOLE_THROUGHPUT = frozenset({ModelParallel.name, WallClockThroughput.name})
"""Strategies that compute the throughput of the whole experiment, and not a mean over processes."""


MEAN_THROUGHPUT = frozenset({SumEnergyAvgThroughput.name, AttributedEnergy.name})
"""Strategies that compute the mean throughput of the processes that report a throughput."""


def get_strategy(name: str) -> Strategy:
    """Return the strategy with this name.

    Raises:
        ConfigurationError: The name is unknown, or the entry point with this name does not refer to a strategy.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    added = _entry_points()
    advice = "correct the package that provides the strategy"
    doing = f"cannot aggregate by the strategy {name!r}"
    if name not in added:
        raise ConfigurationError(doing, "the strategy is unknown", f"choose one of {', '.join(strategy_names())}")
    try:
        strategy = added[name].load()
    except Exception as error:
        found = f"{added[name].value} can't be imported ({type(error).__name__}: {error})"
        raise ConfigurationError(doing, found, advice) from error
    if not isinstance(strategy, Strategy):
        found = f"{added[name].value} has no attribute 'name' or no method 'combine'"
        raise ConfigurationError(doing, found, advice)
    if strategy.name != name:
        # An aggregate records the name of its strategy. `get_strategy` must return the same strategy for this name.
        found = f"the name of {added[name].value} is {strategy.name!r}"
        raise ConfigurationError(doing, found, advice)
    return strategy


def strategy_names() -> list[str]:
    """Return the names of all strategies; the default is the first."""
    return [*_BUILT_IN, *sorted(_entry_points())]


def _entry_points() -> dict[str, EntryPoint]:
    # The entry points are read on demand, not at import: reading the metadata of all installed packages takes longer
    # than most commands.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None

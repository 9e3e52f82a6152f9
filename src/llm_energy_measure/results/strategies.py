"""How the figures of several processes become one: strategies, chosen by name.

Built in are `sum_energy_avg_throughput` (the default), `attributed_energy`, `model_parallel` and
`wall_clock_throughput`; `docs/reference/strategies.md` says when to choose which. A package can add one
by an entry point in the group `llm_energy_measure.strategies` that names a `Strategy` object:

    [project.entry-points."llm_energy_measure.strategies"]
    my_rule = "my_package:MY_RULE"
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct, structs

from llm_energy_measure.domain.statistics import mean
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.verification.attribution import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.metadata import EntryPoint

    from llm_energy_measure.domain.experiment import RawProcessResult

DEFAULT_STRATEGY = "sum_energy_avg_throughput"
ENTRY_POINT_GROUP = "llm_energy_measure.strategies"


class Totals(Struct, frozen=True, kw_only=True):
    """The figures of an experiment. None is unknown.

    Attributes:
        total_tokens: Tokens.
        total_energy_j: Energy, in joules.
        total_inference_time_sec: Inference time, in seconds.
        avg_tokens_per_second: Throughput, in tokens per second.
        total_flops: Floating-point operations.
    """

    total_tokens: int | None
    total_energy_j: float | None
    total_inference_time_sec: float | None
    avg_tokens_per_second: float | None
    total_flops: float | None


@runtime_checkable
class Strategy(Protocol):
    """A rule that makes one result of several.

    Attributes:
        name: What it is chosen by, and what an aggregate says it was made with.
    """

    name: str

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """The figures of the experiment.

        Args:
            results: At least one result, by ascending process index, each index once. Any metric may be unknown.
        """


class SumEnergyAvgThroughput:
    """Sums of energy, tokens, inference time and FLOPs; the mean throughput of the processes that report one."""

    name = DEFAULT_STRATEGY

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """The figures of the experiment; each leaves out the processes that don't know it."""
        work = [result.inference_metrics for result in results if result.inference_metrics is not None]
        computed = [result.compute_metrics for result in results if result.compute_metrics is not None]
        return Totals(
            total_tokens=sum([metrics.total_tokens for metrics in work]) if work else None,
            total_energy_j=_sum([result.energy_metrics.total_energy_j for result in results]),
            total_inference_time_sec=_sum([metrics.inference_time_sec for metrics in work]),
            avg_tokens_per_second=mean([m.tokens_per_second for m in work if m.tokens_per_second is not None]),
            total_flops=_sum([metrics.flops_total for metrics in computed]),
        )


class AttributedEnergy(SumEnergyAvgThroughput):
    """As the default, but for the energy: every joule once, as attribution finds it."""

    name = "attributed_energy"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """The figures of the experiment; the energy per token and all ratios follow the attributed energy."""
        return structs.replace(super().combine(results), total_energy_j=attribute(results).energy_j)


class ModelParallel(SumEnergyAvgThroughput):
    """Ranks that hold parts of one model (tensor or pipeline parallel) work on the same tokens: those count once.

    Energy and inference time are sums. So are FLOPs that a rank counted; an estimate from the parameters is that of the
    whole model, and counts once.
    """

    name = "model_parallel"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """The figures of the experiment; tokens and throughput are those of the rank that reports the most."""
        work = [result.inference_metrics for result in results if result.inference_metrics is not None]
        rates = [metrics.tokens_per_second for metrics in work if metrics.tokens_per_second is not None]
        computed = [result.compute_metrics for result in results if result.compute_metrics is not None]
        estimates = [metrics.flops_total for metrics in computed if "estimate" in (metrics.flops_method or "")]
        counted = [metrics.flops_total for metrics in computed if "estimate" not in (metrics.flops_method or "")]
        whole = max((flops for flops in estimates if flops is not None), default=None)
        return structs.replace(
            super().combine(results),
            total_tokens=max((metrics.total_tokens for metrics in work), default=None),
            avg_tokens_per_second=max(rates, default=None),
            total_flops=_sum([whole, *counted]),
        )


class WallClockThroughput(SumEnergyAvgThroughput):
    """As the default, but for the throughput: the tokens of all processes over the span of all of them.

    The span is from the earliest start to the latest end, loading and waiting included; the throughput is unknown where
    an end is.
    """

    name = "wall_clock_throughput"

    def combine(self, results: Sequence[RawProcessResult]) -> Totals:
        """The figures of the experiment, its throughput in tokens per second of wall time."""
        totals = super().combine(results)
        starts = [result.timestamps.start for result in results if result.timestamps.start is not None]
        ends = [result.timestamps.end for result in results if result.timestamps.end is not None]
        span_sec = None
        if len(starts) == len(ends) == len(results) and len({stamp.tzinfo is None for stamp in starts + ends}) == 1:
            span_sec = (max(ends) - min(starts)).total_seconds()
        known = span_sec is not None and span_sec > 0
        rate = ratio(totals.total_tokens, span_sec) if known else None
        return structs.replace(totals, avg_tokens_per_second=rate)


_BUILT_IN: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (SumEnergyAvgThroughput(), AttributedEnergy(), ModelParallel(), WallClockThroughput())
}

WHOLE_THROUGHPUT = frozenset({ModelParallel.name, WallClockThroughput.name})
"""Strategies whose throughput is the experiment's already, and is not multiplied by its processes."""


def get_strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ConfigurationError: There is none, or the one that an entry point names is no strategy.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    added = _entry_points()
    doing = f"cannot aggregate by the strategy {name!r}"
    if name not in added:
        raise ConfigurationError(doing, "there is no such strategy", f"choose one of {', '.join(strategy_names())}")
    try:
        strategy = added[name].load()
    except Exception as error:
        found = f"{added[name].value} can't be imported ({type(error).__name__}: {error})"
        raise ConfigurationError(doing, found, "correct the package that provides it") from error
    if not isinstance(strategy, Strategy):
        found = f"{added[name].value} has no name and combine(results)"
        raise ConfigurationError(doing, found, "correct the package that provides it")
    if strategy.name != name:
        # An aggregate records the strategy's name, and has to be made again by it.
        found = f"{added[name].value} calls itself {strategy.name!r}"
        raise ConfigurationError(doing, found, "correct the package that provides it")
    return strategy


def strategy_names() -> list[str]:
    """Names of all strategies, the default first."""
    return [*_BUILT_IN, *sorted(_entry_points())]


def _entry_points() -> dict[str, EntryPoint]:
    # Imported late: reading the metadata of every installed package costs more than most commands.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None

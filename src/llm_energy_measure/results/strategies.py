"""How the figures of several processes become one: strategies, chosen by name.

A package can add one by an entry point in the group `llm_energy_measure.strategies` that names a `Strategy` object:

    [project.entry-points."llm_energy_measure.strategies"]
    my_rule = "my_package:MY_RULE"
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from llm_energy_measure.domain.statistics import mean
from llm_energy_measure.exceptions import ConfigurationError

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
            total_tokens=sum(metrics.total_tokens for metrics in work) if work else None,
            total_energy_j=_sum(result.energy_metrics.total_energy_j for result in results),
            total_inference_time_sec=_sum(metrics.inference_time_sec for metrics in work),
            avg_tokens_per_second=mean([m.tokens_per_second for m in work if m.tokens_per_second is not None]),
            total_flops=_sum(metrics.flops_total for metrics in computed),
        )


_BUILT_IN: dict[str, Strategy] = {strategy.name: strategy for strategy in (SumEnergyAvgThroughput(),)}


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
    from importlib.metadata import entry_points  # noqa: PLC0415 - as said above

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None

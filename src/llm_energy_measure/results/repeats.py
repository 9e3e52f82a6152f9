"""Cycles: repetitions of one configuration, and the spread of what they measured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from llm_energy_measure.domain.statistics import SampleStatistics, mean, sample_statistics
from llm_energy_measure.results.columns import model_name_of_processes
from llm_energy_measure.results.store.codec import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult

_CYCLE_ID = re.compile(r"(.+)_c[0-9]+")


class CycleStatistics(Struct, frozen=True, kw_only=True):
    """Mean and spread over the cycles of one configuration.

    Attributes:
        name: What the ids share before `_c<n>`, else the first id.
        model_name: The model.
        backend: The inference library.
        experiment_ids: The cycles that the statistics are over, sorted.
        energy_j: Total energy, in joules.
        tokens_per_second: Mean throughput of a process, in tokens per second.
        tokens_per_joule: Efficiency, in tokens per joule.
        latency_per_token_ms: Mean latency per token of the processes, in milliseconds.
        warnings: What a reader has to know, a sentence each.
    """

    name: str
    model_name: str | None
    backend: str | None
    experiment_ids: list[str]
    energy_j: SampleStatistics
    tokens_per_second: SampleStatistics
    tokens_per_joule: SampleStatistics
    latency_per_token_ms: SampleStatistics
    warnings: list[str] = field(default_factory=list)


def configuration_digest(effective_config: dict[str, Any]) -> str | None:
    """SHA-256 of a configuration but for its `cycle_id`, whatever the order of its keys; None if it is empty."""
    rest = {key: value for key, value in effective_config.items() if key != "cycle_id"}
    return digest(msgspec.json.encode(rest, order="sorted")) if rest else None


def group_cycles(results: Iterable[AggregatedResult]) -> list[list[AggregatedResult]]:
    """The experiments that are cycles of one another, at least two in a group, sorted by id.

    Ids that are alike but for a final `_c<n>` belong together; others do if their configurations are alike but for
    `cycle_id`. Different models or backends never do.
    """
    groups: dict[tuple[str | None, ...], list[AggregatedResult]] = {}
    for result in sorted(results, key=lambda result: _natural(result.experiment_id)):
        match = _CYCLE_ID.fullmatch(result.experiment_id)
        shared = configuration_digest(result.effective_config) if match is None else match[1]
        if shared is not None:
            kind = "configuration" if match is None else "id"
            groups.setdefault((kind, shared, model_name_of_processes(result), result.backend), []).append(result)
    return [group for group in groups.values() if len(group) > 1]


def cycle_statistics(group: Sequence[AggregatedResult]) -> CycleStatistics:
    """Mean, standard deviation, t-based 95 % interval and coefficient of variation over the cycles of a group.

    Args:
        group: At least one experiment. Lower bounds are left out; so is, of one figure's sample, an experiment that
            doesn't know that figure.
    """
    first = group[0]
    whole = [result for result in group if not result.is_lower_bound]
    match = _CYCLE_ID.fullmatch(first.experiment_id)
    warnings = [f"{result.experiment_id} is a lower bound, and left out" for result in group if result.is_lower_bound]
    if len({configuration_digest(result.effective_config) for result in group}) > 1:
        warnings.append("the configurations of these cycles differ")
    return CycleStatistics(
        name=match[1] if match else first.experiment_id,
        model_name=model_name_of_processes(first),
        backend=first.backend,
        experiment_ids=[result.experiment_id for result in whole],
        energy_j=_over(result.total_energy_j for result in whole),
        tokens_per_second=_over(result.avg_tokens_per_second for result in whole),
        tokens_per_joule=_over(result.tokens_per_joule for result in whole),
        latency_per_token_ms=_over(_latency_per_token_ms(result) for result in whole),
        warnings=warnings,
    )


def _latency_per_token_ms(result: AggregatedResult) -> float | None:
    work = [process.inference_metrics for process in result.process_results if process.inference_metrics is not None]
    return mean([metrics.latency_per_token_ms for metrics in work if metrics.latency_per_token_ms is not None])


def _over(values: Iterable[float | None]) -> SampleStatistics:
    return sample_statistics([value for value in values if value is not None])


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts `_c2` before `_c10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]

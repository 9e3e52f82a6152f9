"""Repeats: repetitions of one configuration, and statistics over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from llm_energy_measure.domain import configuration
from llm_energy_measure.domain.experiment import AggregatedResult
from llm_energy_measure.domain.statistics import SampleStatistics, mean, sample_statistics
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.results.columns import model_name_of_processes
from llm_energy_measure.results.store.codec import digest
from llm_energy_measure.verification.codes import joules

_REPEAT_ID = re.compile(r"(.+)_c[0-9]+")


class RepeatStatistics(Struct, frozen=True, kw_only=True):
    """Statistics over the repeats of one configuration.

    Attributes:
        name: The part of the ids before `_c<n>`, or the first id if the ids do not end with `_c<n>`.
        model_name: The model.
        backend: The inference library.
        experiment_ids: Ids of the repeats in the statistics, sorted.
        energy_j: Energy, in joules: the attributed energy, or the total of the strategy (see `repeat_statistics`).
        tokens_per_second: Mean throughput of a process, in tokens per second.
        tokens_per_joule: Tokens divided by `energy_j`, in tokens per joule.
        latency_per_token_ms: Mean latency per token of the processes, in milliseconds.
        corrected: Ids of the repeats whose plain sum counts energy more than once, and whose attributed energy is used.
        warnings: Reasons for caution, one sentence each.
    """

    name: str
    model_name: str | None
    backend: str | None
    experiment_ids: list[str]
    energy_j: SampleStatistics
    tokens_per_second: SampleStatistics
    tokens_per_joule: SampleStatistics
    latency_per_token_ms: SampleStatistics
    corrected: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def configuration_digest(effective_config: dict[str, Any]) -> str | None:
    """Return the SHA-256 of a configuration without its `cycle_id`; None if the configuration has no other key.

    The order of the keys has no effect.
    """
    rest = {key: value for key, value in effective_config.items() if key != "cycle_id"}
    return digest(msgspec.json.encode(rest, order="sorted")) if rest else None


def _settings_digest(effective_config: dict[str, Any]) -> str:
    """Return the digest of a configuration without ids, seeds, paths and counters of repeats."""
    flat = configuration.flatten(effective_config)
    return configuration.digest({key: value for key, value in flat.items() if not configuration.is_ignored(key)})


def group_repeats(results: Iterable[AggregatedResult]) -> list[list[AggregatedResult]]:
    """Return the groups of repeats: at least two experiments each, sorted by id.

    Two experiments are repeats if their ids differ only in a final `_c<n>`, and their configurations differ only in
    keys that `configuration.is_ignored` accepts. Experiments whose ids do not end with `_c<n>` are repeats if their
    configurations differ only in `cycle_id`. Repeats have the same model and backend. The command `results repeats`
    compares more facts; see `analysis.observations`.
    """
    groups: dict[tuple[str | None, ...], list[AggregatedResult]] = {}
    for result in sorted(results, key=lambda result: _sort_key(result.experiment_id)):
        match = _REPEAT_ID.fullmatch(result.experiment_id)
        shared = configuration_digest(result.effective_config) if match is None else match[1]
        if shared is not None:
            kind = "configuration" if match is None else _settings_digest(result.effective_config)
            groups.setdefault((kind, shared, model_name_of_processes(result), result.backend), []).append(result)
    return [group for group in groups.values() if len(group) > 1]


def repeat_statistics(
    group: Sequence[AggregatedResult], energy: Literal["attributed", "plain"] = "attributed"
) -> RepeatStatistics:
    """Return mean, standard deviation, t-based 95 % interval and coefficient of variation over a group of repeats.

    Args:
        group: At least one experiment. Lower bounds are left out. An experiment with an unknown figure is left out of
            the statistics of this figure.
        energy: `attributed` uses the attributed energy; for an aggregate without attribution, the total of its
            strategy. An undetermined energy is left out, and a warning names its experiment. `plain` uses the total of
            the strategy, by default the plain sum.
    """
    first = group[0]
    complete = [result for result in group if not result.is_lower_bound]
    match = _REPEAT_ID.fullmatch(first.experiment_id)
    warnings = [f"{result.experiment_id} is a lower bound and is left out" for result in group if result.is_lower_bound]
    is_attributed = energy == "attributed"
    undetermined = [result for result in complete if is_attributed and _is_undetermined(result)]
    if undetermined:
        named = ", ".join(f"{result.experiment_id} ({_range(result.attributed_bounds_j)})" for result in undetermined)
        command = f"llm-energy-measure results show {undetermined[0].experiment_id}"
        warnings.append(
            f"the energy of {named} is undetermined and left out; run '{command}' for the reasons, or use plain sums "
            "(--energy plain)"
        )
    energies_j = {
        result.experiment_id: result.attributed_energy_j
        if is_attributed and result.attributed_bounds_j is not None
        else result.total_energy_j
        for result in complete
    }
    if len({configuration_digest(result.effective_config) for result in group}) > 1:
        warnings.append("the configurations of these repeats differ")
    return RepeatStatistics(
        name=match[1] if match else first.experiment_id,
        model_name=model_name_of_processes(first),
        backend=first.backend,
        experiment_ids=[result.experiment_id for result in complete],
        energy_j=_statistics(energies_j.values()),
        tokens_per_second=_statistics(result.avg_tokens_per_second for result in complete),
        tokens_per_joule=_statistics(
            ratio(result.total_tokens, energies_j[result.experiment_id]) for result in complete
        ),
        latency_per_token_ms=_statistics(_latency_per_token_ms(result) for result in complete),
        corrected=[
            result.experiment_id for result in complete if is_attributed and (result.attribution_factor or 1.0) > 1
        ],
        warnings=warnings,
    )


def _range(bounds_j: tuple[float, float] | None) -> str:
    return "unknown" if bounds_j is None else f"{joules(bounds_j[0])} to {joules(bounds_j[1])}"


def _is_undetermined(result: AggregatedResult) -> bool:
    return result.attributed_energy_j is None and result.attributed_bounds_j is not None


def _latency_per_token_ms(result: AggregatedResult) -> float | None:
    metrics = [process.inference_metrics for process in result.process_results]
    latencies_ms = [one.latency_per_token_ms for one in metrics if one is not None]
    return mean([latency_ms for latency_ms in latencies_ms if latency_ms is not None])


def _statistics(values: Iterable[float | None]) -> SampleStatistics:
    return sample_statistics([value for value in values if value is not None])


def _sort_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `_c2` before `_c10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]

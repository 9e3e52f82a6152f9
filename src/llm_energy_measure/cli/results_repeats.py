"""`llm-energy-measure results repeats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from llm_energy_measure.cli import energies, formatting, options, terminal
from llm_energy_measure.domain.experiment import AggregatedResult
from llm_energy_measure.domain.statistics import SampleStatistics
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.repeats import RepeatStatistics, group_repeats, repeat_statistics
from llm_energy_measure.results.strategies import WHOLE_THROUGHPUT

if TYPE_CHECKING:
    from llm_energy_measure.results.repository import FileSystemRepository

# The trailing space distinguishes the second interval from the first. It is removed before printing.
_HEADERS = (
    ("repeats of", "left"),
    ("model", "left"),
    ("n", "right"),
    ("energy", "right"),
    ("± 95 %", "right"),
    ("CV", "right"),
    ("tokens/s/process", "right"),
    ("± 95 % ", "right"),
    ("tokens/J", "right"),
    ("ms/token", "right"),
)


@click.command(epilog=options.examples("results repeats", "results repeats --json"))
@energies.energy_option
@options.json_option
@options.shared_options
def repeats(*, kind: energies.EnergyKind, as_json: bool) -> None:
    """Show mean and spread over repeats: repeated runs of one configuration.

    Two experiments are repeats if their ids differ only in a final _c<n>, or if their configurations differ only in
    cycle_id. "± 95 %" is half the width of the t-based 95 % interval of the mean. CV is the standard deviation divided
    by the mean. An experiment with undetermined energy is left out of the energy,
    and a warning names it. The exit status is 1 if an aggregate can't be read.
    """
    repository = options.repository()
    aggregated, unreadable = _aggregated(repository)
    repeated = group_repeats(aggregated)
    groups = [repeat_statistics(group, kind) for group in repeated]
    strategies = [{result.aggregation.method for result in group} for group in repeated]
    for group in groups:
        for warning in group.warnings:
            terminal.warn(f"{group.name}: {warning}")
    if as_json:
        terminal.print_json(msgspec.to_builtins(groups))
    elif groups:
        rows = [_cells(group, methods) for group, methods in zip(groups, strategies, strict=True)]
        terminal.print_table(_HEADERS, rows, optional=("ms/token", "model", "± 95 % "))
        energies.print_footnote(map(_energy, groups))
    else:
        terminal.info("no repeated runs among the aggregated experiments")
    if unreadable:
        raise SystemExit(1)


def _aggregated(repository: FileSystemRepository) -> tuple[list[AggregatedResult], int]:
    """Return the readable aggregates and the number of unreadable ones, which are named on stderr."""
    results: list[AggregatedResult] = []
    unreadable = 0
    for name in repository.list_aggregated():
        try:
            result = repository.load_aggregated(name)
        except LLMEnergyMeasureError as error:
            terminal.warn(error)
            unreadable += 1
        else:
            results += [result] if result is not None else []
    return results, unreadable


def _cells(group: RepeatStatistics, strategies: set[str]) -> tuple[str, ...]:
    energy, throughput = group.energy_j, group.tokens_per_second
    return (
        group.name,
        group.model_name or formatting.UNKNOWN,
        str(len(group.experiment_ids)),
        _energy(group).cell(),
        formatting.quantity(_half_width(energy), "J"),
        formatting.UNKNOWN if energy.cv is None else f"{energy.cv:.2%}",
        formatting.quantity(throughput.mean) + (" (total)" if strategies <= WHOLE_THROUGHPUT else ""),
        formatting.quantity(_half_width(throughput)),
        _energy(group).efficiency_cell(group.tokens_per_joule.mean),
        formatting.quantity(group.latency_per_token_ms.mean),
    )


def _energy(group: RepeatStatistics) -> energies.Energy:
    mean_j = group.energy_j.mean
    return energies.Energy(low_j=mean_j, high_j=mean_j, is_corrected=bool(group.corrected))


def _half_width(statistics: SampleStatistics) -> float | None:
    if statistics.ci_95_upper is None or statistics.mean is None:
        return None
    return statistics.ci_95_upper - statistics.mean

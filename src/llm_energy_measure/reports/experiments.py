"""The parts of a report that read aggregates: components of the energy, findings, processes and power over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec import UNSET, structs

from llm_energy_measure.analysis.energies import energy_of
from llm_energy_measure.analysis.repeats import Repeats
from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.reports import power, tables
from llm_energy_measure.reports.document import Details, Field, Section
from llm_energy_measure.reports.figures import row_name, verdicts_of
from llm_energy_measure.reports.plots import MOST_CATEGORIES, Axis, Mark, Panel, Plot, Series
from llm_energy_measure.reports.reading import Results
from llm_energy_measure.reports.sections import shown_experiments
from llm_energy_measure.reports.style import PARTS
from llm_energy_measure.reports.tables import Cell, Header, Row, Table, limited

MOST_DETAILS = 300
_MOST_PROCESSES = 32
_MOST_FINDINGS = 30
_MOST_SOURCES = 8
_MOST_TRACES = 4
_ADVICE = "To see one experiment with all its processes, run 'llm-energy-measure results show ID'."


class Components(NamedTuple):
    """The attributed energy of the components of an experiment, in joules. None means unknown."""

    gpu: float | None
    cpu: float | None
    ram: float | None
    other: float | None

    @classmethod
    def of(cls, result: AggregatedResult) -> Components | None:
        """Return the components of an experiment; None if its energy is unknown or only a range."""
        total = result.attributed_energy_j
        known = (
            result.attributed_gpu_energy_j,
            result.attributed_cpu_energy_j,
            result.attributed_ram_energy_j,
        )
        if total is None:
            return None
        other = total - math.fsum(value for value in known if value is not None)
        # The sum of the components can differ from the total by rounding.
        return cls(*known, other if other > 1e-9 * total else 0.0)


class Aggregates(NamedTuple):
    """The parts of a report that need whole aggregates, for a limited number of experiments.

    Attributes:
        details: One part for each experiment.
        components: The components of each experiment with a known energy, by id.
        power: Figures of power over time.
        left_out: Number of experiments without details.
    """

    details: list[Details]
    components: dict[str, Components]
    power: list[Plot]
    left_out: int


def read_aggregates(
    results: Results, *, on_step: Callable[[Sequence[str]], Iterator[str]] = iter, most: int = MOST_DETAILS
) -> Aggregates:
    """Return the parts of a report that need whole aggregates.

    The function reads one aggregate at a time, because an aggregate can have hundreds of megabytes.

    Args:
        results: All experiments.
        on_step: Function that gets the ids of the aggregates to read, returns an iterator over these ids, and may show
            progress.
        most: Greatest number of experiments with details.
    """
    names = shown_experiments(results, most)
    details: list[Details] = []
    components: dict[str, Components] = {}
    traces: list[Plot] = []
    for name in on_step(names):
        found, problem = None, None
        try:
            found = results.repository.load_aggregated(name)
        except LLMEnergyMeasureError as error:
            problem = str(error)
        details.append(_details(results, name, found, problem))
        if found is None:
            continue
        if (parts := Components.of(found)) is not None:
            components[name] = parts
        if len(traces) < _MOST_TRACES:
            plot = power.figure_of_samples(results.repository, found, name=f"power-{len(traces)}")
            traces += [] if plot is None else [plot]
    return Aggregates(details, components, traces, len(results.experiments) - len(names))


def breakdown(results: Results, repeats: Repeats, aggregates: Aggregates) -> Section | None:
    """Return the section with the mean attributed energy of each component; None if no such energy is known."""
    components = aggregates.components
    hidden = 0
    categories: list[str] = []
    parts: dict[str, list[Mark]] = {name: [] for name in PARTS}
    for group in repeats.groups:
        known = [components[name] for name in group.experiment_ids if name in components]
        if not known or len(categories) == MOST_CATEGORIES:
            hidden += bool(known)
            continue
        begin = 0.0
        verdict = verdicts_of(results, group.experiment_ids)
        for number, name in enumerate(PARTS):
            values = [one[number] for one in known]
            energy_j = None if None in values else math.fsum(value or 0.0 for value in values) / len(values)
            parts[name].append(
                Mark(
                    x=float(len(categories)),
                    y=energy_j,
                    y_low=begin,
                    name=group.name,
                    verdict=verdict,
                    target=results.anchor(group.experiment_ids[0]),
                )
            )
            begin += energy_j or 0.0
        categories.append(row_name(group.name, verdict, len(known)))
    series = [Series(name=name, marks=marks) for name, marks in parts.items() if any(mark.y for mark in marks)]
    if not series:
        return None
    notes = ["'not attributed' is the total minus the known components. A component that is not shown is unknown or 0."]
    if hidden:
        shown = len(categories)
        notes.append(f"The figure shows the first {shown} of {shown + hidden} configurations.")
    if aggregates.left_out:
        notes.append(f"The means are over the {len(aggregates.details):,} experiments of the section Findings.")
    plot = Plot(
        name="components",
        title="Attributed energy by component",
        description="Mean over the repeats of each configuration, divided into components.",
        kind="stacked",
        x=Axis(label="configuration", categories=categories),
        y=Axis(label="attributed energy", unit="J"),
        panels=[Panel(series=series)],
        by="component",
        notes=notes,
    )
    return Section(name="breakdown", title="Breakdown by component", plots=[plot])


def power_section(plots: list[Plot]) -> Section | None:
    """Return the section with the figures of power and energy over time. None without samples."""
    if not plots:
        return None
    words = "Power samples are stored next to the results. No total is computed from them."
    return Section(name="power", title="Power and energy over time", paragraphs=[words], plots=plots)


def details_section(aggregates: Aggregates) -> Section:
    """Return the section with the findings, the processes and the raw files of each experiment."""
    paragraphs = []
    if aggregates.left_out:
        number = len(aggregates.details)
        paragraphs.append(f"{number:,} of {number + aggregates.left_out:,} experiments are shown. {_ADVICE}")
    return Section(name="details", title="Findings", paragraphs=paragraphs, details=aggregates.details)


def _details(results: Results, name: str, found: AggregatedResult | None, problem: str | None) -> Details:
    row = results.by_id[name].summary
    sentences = [f"unreadable: {text}" for text in row.problems]
    if problem is not None and not row.problems:
        sentences.append(problem)
    sentences += [f"warning: {text}" for text in row.warnings]
    fields, found_tables = [Field(f"tag {key}", value) for key, value in sorted(row.tags.items())], []
    fields += [Field("note", row.note)] if row.note is not None else []
    if found is not None:
        fields = [*_fields(found), *fields]
        sentences += _findings(found)
        if found.process_results:
            found_tables.append(_processes(results.anchor(name), name, found.process_results))
    return Details(
        anchor=f"d{results.anchor(name)}",
        title=name,
        verdict=formatting.verdict(row.verdict, row.attribution_basis),
        fields=fields,
        tables=found_tables,
        sentences=sentences,
    )


def _fields(found: AggregatedResult) -> Iterator[Field]:
    energy = energy_of(found, "attributed")
    yield Field("attributed energy", tables.energy(energy).text)
    yield Field("plain sum", formatting.quantity(found.plain_energy_j, "J"))
    if found.attribution_status is not None:
        basis = f" ({', '.join(found.attribution_basis)})" if found.attribution_basis else ""
        yield Field("attribution", found.attribution_status + basis)
    parts = Components.of(found)
    if parts is not None:
        known = [f"{name} {formatting.quantity(value, 'J')}" for name, value in zip(PARTS, parts, strict=True) if value]
        yield Field("components", ", ".join(known) or formatting.UNKNOWN)
    if found.assumptions is not UNSET:
        stated = {name: value for name, value in structs.asdict(found.assumptions).items() if value is not None}
        words = (f"{name.replace('_', '-')}={value}" for name, value in stated.items())
        yield Field("assumed by the user", ", ".join(words))
    yield Field("strategy", found.aggregation.method)
    yield Field("start", formatting.date_time(found.start_time))
    yield Field("end", formatting.date_time(found.end_time))
    sources = found.sources or []
    if sources:
        shown = [f"{source.name} {source.sha256[:16]}" for source in sources[:_MOST_SOURCES]]
        more = f" and {len(sources) - len(shown)} more" if len(sources) > len(shown) else ""
        yield Field("raw files, SHA-256", ", ".join(shown) + more)


def _findings(found: AggregatedResult) -> list[str]:
    """Return a sentence for each reported finding, the most severe first."""
    order = {"error": 0, "warning": 1, "info": 2}
    reported = sorted(
        (one for one in found.findings or () if one.is_reported), key=lambda one: order[one.severity or "error"]
    )
    lines = [
        f"{one.severity or 'error'} {one.code}: {'; '.join(filter(None, (one.reason, one.message)))}"
        for one in reported[:_MOST_FINDINGS]
    ]
    if len(reported) > _MOST_FINDINGS:
        further = len(reported) - _MOST_FINDINGS
        lines.append(f"further findings: {further}; 'llm-energy-measure results verify ID -v' prints all")
    return lines


def _processes(anchor: str, name: str, processes: Sequence[RawProcessResult]) -> Table:
    headers = [
        Header("process", "right"),
        Header("host"),
        Header("GPU"),
        Header("energy", "right"),
        Header("GPU energy", "right"),
        Header("CPU energy", "right"),
        Header("tokens", "right"),
        Header("token/s", "right"),
        Header("time", "right"),
    ]
    shown, notes = limited([*map(_process, processes)], _MOST_PROCESSES, "processes", _ADVICE)
    return Table(name=f"p{anchor}", caption=f"Processes of {name}", headers=headers, rows=shown, notes=notes)


def _process(result: RawProcessResult) -> Row:
    energy, inference = result.energy_metrics, result.inference_metrics
    gpu = result.gpu_name or formatting.UNKNOWN
    return Row(
        [
            Cell(str(result.process_index), result.process_index),
            Cell(result.host or formatting.UNKNOWN),
            Cell(gpu if result.gpu_id is None else f"{result.gpu_id}: {gpu}"),
            tables.number(energy.total_energy_j, "J"),
            tables.number(energy.gpu_energy_j, "J"),
            tables.number(energy.cpu_energy_j, "J"),
            tables.count(inference.total_tokens if inference else None),
            tables.number(inference.tokens_per_second if inference else None),
            tables.number(inference.inference_time_sec if inference else None, "s"),
        ]
    )

"""The sections of a report. Every number comes from the functions that the commands use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

from llm_energy_measure.analysis.comparison import Comparison
from llm_energy_measure.analysis.comparison import Row as ComparedRow
from llm_energy_measure.analysis.energies import CORRECTED_NOTE, energy_of, energy_of_group
from llm_energy_measure.analysis.observations import METRICS, EnergyKind
from llm_energy_measure.analysis.repeats import RepeatGroup, Repeats
from llm_energy_measure.domain import formatting
from llm_energy_measure.reports import comparison_text, tables
from llm_energy_measure.reports.document import Field, Section
from llm_energy_measure.reports.figures import Choice, figure_of, range_mark, rows_figure, verdicts_of
from llm_energy_measure.reports.labels import readable
from llm_energy_measure.reports.plots import MOST_CATEGORIES
from llm_energy_measure.reports.reading import Results
from llm_energy_measure.reports.tables import Cell, Header, Row, Table, limited
from llm_energy_measure.verification.verdicts import VERDICTS, Verdict

REPEATS_METRICS = ("j_per_output_token", "j_per_token", "energy", "tokens_per_s", "ttft_p50", "itl_p50")

MOST_ROWS = 1_000
_MOST_GROUPS = 500
_MOST_NAME = 120
_MOST_EXCLUDED = 300


def summary(results: Results) -> Section:
    """Return the section with the number of experiments, their verdicts and their energy."""
    verdicts = Counter([one.summary.verdict for one in results.experiments] + [one.verdict for one in results.pending])
    rows = [
        Row([Cell(word), tables.count(number), Cell(VERDICTS[word])])
        for word, number in sorted(verdicts.items(), key=lambda item: (-item[1], item[0]))
    ]
    table = Table(
        name="verdicts",
        caption="Verdicts",
        headers=[Header("verdict"), Header("experiments", "right"), Header("meaning")],
        rows=rows,
    )
    return Section(name="summary", title="Summary", fields=list(_summary_fields(results, verdicts)), tables=[table])


def _summary_fields(results: Results, verdicts: Counter[Verdict]) -> Iterator[Field]:
    total = results.total
    yield Field("experiments", formatting.count(len(results.experiments) + len(results.pending)))
    if results.where is not None:
        yield Field("selected by", results.where)
    yield Field("verdicts", ", ".join(f"{number} {word}" for word, number in verdicts.most_common()))
    if total is None:
        return
    energy = energy_of_group(total, results.kind)
    counted = f"{formatting.plural(total.experiments, 'experiment')} with an aggregate"
    without = f", {total.unknown_energy} of them without energy" if total.unknown_energy else ""
    name = "energy" if results.kind == "attributed" else "energy (plain sum)"
    yield Field(name, f"{tables.energy(energy).text} ({counted}{without})")
    if results.kind == "attributed" and total.total_energy_j not in (None, energy.low_j):
        yield Field("plain sum", formatting.quantity(total.total_energy_j, "J"))
    yield Field("tokens", formatting.count(total.total_tokens))
    rows = [one.summary for one in results.experiments]
    models = sorted({row.model_name for row in rows if row.model_name is not None})
    yield Field("models", _some(models))
    starts = sorted(date for row in rows if (date := formatting.date_time(row.start_time)) != formatting.UNKNOWN)
    if starts:
        yield Field("recorded", " to ".join(dict.fromkeys((starts[0], starts[-1]))))


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(readable(name, _MOST_NAME) for name in names[:most]) or formatting.UNKNOWN) + more


def energy_per_output_token(results: Results, repeats: Repeats) -> Section:
    """Return the section with the energy per output token of each configuration.

    If no experiment counts output tokens, the section has the energy per token. Without tokens, it has the energy.
    """
    for metric in ("j_per_output_token", "j_per_token", "energy"):
        name = "energy" if metric == "energy" else metric.removeprefix("j_").replace("_", "-")
        figure = rows_figure(results, repeats, metric, name=name, most=MOST_CATEGORIES)
        title = f"{METRICS[metric].label.capitalize()} by configuration"
        if figure is not None:
            return Section(name="configurations", title=title, plots=[figure])
    return Section(name="configurations", title=title, paragraphs=["No experiment has a known energy."])


def trade_off(results: Results, repeats: Repeats) -> Section | None:
    """Return the section with the energy per output token over latency, or over throughput if no latency is known.

    None if no configuration has both an energy per token and a latency or a throughput.
    """
    pairs = product(("j_per_output_token", "j_per_token"), ("itl_p50", "ttft_p50", "tokens_per_s"))
    found = next((pair for pair in pairs if _has(repeats, *pair)), None)
    if found is None:
        return None
    figure = figure_of(results, Choice(y=found[0], x=found[1], is_front_drawn=True), name="trade-off")
    return Section(name="trade-off-section", title="Energy against speed", plots=[figure])


def _has(repeats: Repeats, *metrics: str) -> bool:
    """Return True if one configuration has values of all these metrics."""
    return any(all(group.statistics[name].mean is not None for name in metrics) for group in repeats.groups)


def repeats_section(results: Results, repeats: Repeats) -> Section:
    """Return the section with mean, interval and spread over the repeats of each configuration."""
    metrics = [name for name in REPEATS_METRICS if _has(repeats, name)]
    if not repeats.groups:
        words = "No experiment is in the statistics; the section Excluded has the reasons."
        return Section(name="repeats", title="Repeats", paragraphs=[words])
    headers = [Header("configuration"), Header("n", "right")]
    for metric in metrics:
        headers += [Header(METRICS[metric].label, "right"), Header("95 % interval", "right"), Header("CV", "right")]
    rows = [
        Row(
            [
                Cell(group.name, target=results.anchor(group.experiment_ids[0])),
                tables.count(len(group.experiment_ids)),
                *(cell for metric in metrics for cell in _statistics(group, metric)),
                Cell(verdicts_of(results, group.experiment_ids)),
            ]
        )
        for group in repeats.groups
    ]
    headers.append(Header("verdict"))
    advice = "'llm-energy-measure results repeats --json' prints all configurations."
    shown, notes = limited(rows, _MOST_GROUPS, "configurations", advice)
    notes.append("n: number of repeats. CV: standard deviation divided by mean. The interval is t-based.")
    if results.kind == "attributed" and any(group.corrected for group in repeats.groups):
        notes.append(f"{CORRECTED_NOTE}; the mean uses the attributed energy.")
    if repeats.ignored:
        notes.append(f"Keys that vary and do not separate repeats: {_some(repeats.ignored, 12)}.")
    common = ", ".join(f"{name} = {readable(value, _MOST_NAME)}" for name, value in repeats.common.items())
    return Section(
        name="repeats",
        title="Repeats",
        paragraphs=[f"All runs: {common}."] if common else [],
        tables=[Table(name="repeats-table", caption="Repeats", headers=headers, rows=shown, notes=notes)],
    )


def _statistics(group: RepeatGroup, metric: str) -> list[Cell]:
    """Return the cells of mean, interval and coefficient of variation."""
    found, unit = group.statistics[metric], METRICS[metric].unit
    half = found.half_width
    mark = "* " if group.corrected and METRICS[metric].uses_energy and found.mean is not None else ""
    return [
        Cell(mark + tables.with_unit(found.mean, unit), found.mean),
        Cell(formatting.UNKNOWN if half is None else f"± {tables.with_unit(half, unit)}", half),
        Cell(formatting.UNKNOWN if found.cv is None else f"{found.cv:.2%}", found.cv),
    ]


def provenance(results: Results) -> Section:
    """Return the section with provenance, scope and attribution of the energies."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in results.experiments:
        facts = {} if one.facts is None else one.facts.comparability
        basis = ", ".join(one.summary.attribution_basis)
        status = one.summary.attribution_status or formatting.UNKNOWN
        key = (
            facts.get("provenance") or formatting.UNKNOWN,
            facts.get("energy_scope") or formatting.UNKNOWN,
            f"{status} ({basis})" if basis else status,
        )
        groups.setdefault(key, []).append(one.summary.experiment_id)
    rows = [
        Row([*map(Cell, key), tables.count(len(names)), Cell(verdicts_of(results, names))])
        for key, names in sorted(groups.items())
    ]
    shown, notes = limited(rows, _MOST_GROUPS, "rows")
    table = Table(
        name="provenance-table",
        caption="Provenance and scope",
        headers=[
            Header("provenance"),
            Header("scope"),
            Header("attribution"),
            Header("experiments", "right"),
            Header("verdicts"),
        ],
        rows=shown,
        notes=[
            *notes,
            "Provenance: measured by a counter, integrated from power samples, or modelled (a constant or a model).",
            "Scope: what the sensor covers. Attribution: how far the energy is known if each joule is counted once.",
        ],
    )
    return Section(name="provenance", title="Provenance and scope", tables=[table])


def experiments_table(results: Results) -> Section:
    """Return the section with one row for each experiment; see `shown_experiments`."""
    chosen = shown_experiments(results)
    rows = [_row(results, name) for name in chosen]
    notes = [
        "≥: lower bound, because data are missing. A range: only the least and the greatest energy are known.",
        "*: the plain sum counts some energy more than once; the energy in the table counts each joule once.",
    ]
    total = len(results.experiments)
    if len(chosen) < total:
        first = "Experiments that are not complete are chosen first."
        advice = "'llm-energy-measure results list --json' prints all experiments."
        notes.insert(0, f"The table shows {len(chosen):,} of {total:,} experiments. {first} {advice}")
    headers = [
        Header("experiment"),
        Header("verdict"),
        Header("model"),
        Header("processes", "right"),
        Header("energy", "right"),
        Header("plain sum", "right"),
        Header("tokens", "right"),
        Header("J/token", "right"),
        Header("J/output token", "right"),
        Header("token/s per process", "right"),
        Header("TTFT median", "right"),
        Header("ITL median", "right"),
        Header("warnings", "right"),
        Header("start"),
    ]
    table = Table(name="experiments-table", caption="Experiments", headers=headers, rows=rows, notes=notes)
    return Section(name="experiments", title="Experiments", tables=[table])


def shown_experiments(results: Results, most: int = MOST_ROWS) -> list[str]:
    """Return the ids of at most `most` experiments, sorted by id. Incomplete experiments are chosen first."""
    rows = [one.summary for one in results.experiments]
    first = sorted(rows, key=lambda row: (row.verdict == "complete", row.experiment_id))[:most]
    return sorted(row.experiment_id for row in first)


def _row(results: Results, name: str) -> Row:
    one = results.by_id[name]
    row, facts = one.summary, one.facts
    energy = energy_of(row, results.kind)
    processes = "/".join(formatting.cell(number) for number in (row.found_processes, row.expected_processes))
    output_tokens = None if facts is None else facts.output_tokens
    start = formatting.date_time(row.start_time)
    cells = [
        Cell(name, target=f"d{results.anchor(name)}"),
        Cell(formatting.verdict(row.verdict, row.attribution_basis)),
        Cell(row.model_name or formatting.UNKNOWN),
        Cell(processes, row.found_processes),
        tables.energy(energy),
        tables.number(row.total_energy_j, "J"),
        tables.count(row.total_tokens),
        tables.per(energy, row.total_tokens, "J/token"),
        tables.per(energy, output_tokens, "J/token"),
        tables.number(row.avg_tokens_per_second, "token/s"),
        tables.number(None if facts is None else facts.ttft_p50_ms, "ms"),
        tables.number(None if facts is None else facts.itl_p50_ms, "ms"),
        tables.count(len(row.warning_codes)),
        Cell(start),
    ]
    return Row(cells, anchor=results.anchor(name))


def excluded(results: Results, repeats: Repeats) -> Section:
    """Return the section with the experiments that take part in no statistics, with the reasons."""
    rows = [
        Row(
            [
                Cell(name, target=results.anchor(name)),
                Cell(results.by_id[name].summary.verdict),
                Cell(reason),
                Cell("yes" if _is_drawn(results, name) else "no"),
            ]
        )
        for name, reason in sorted(repeats.left_out.items())
    ]
    rows += [
        Row([Cell(row.experiment_id), Cell(row.verdict), Cell(_pending_reason(row.experiment_id)), Cell("no")])
        for row in results.pending
    ]
    shown, notes = limited(rows, _MOST_EXCLUDED, "experiments")
    table = Table(
        name="excluded-table",
        caption="Experiments outside the statistics",
        headers=[Header("experiment"), Header("verdict"), Header("reason"), Header("drawn as range or bound")],
        rows=shown,
        notes=notes,
    )
    if not rows:
        words = ["All experiments are in the statistics."]
        return Section(name="excluded", title="Excluded", paragraphs=words)
    return Section(name="excluded", title="Excluded", tables=[table])


def _is_drawn(results: Results, name: str) -> bool:
    one = results.observation_of[name]
    return range_mark(results, one, "j_per_output_token", 0.0) is not None


def _pending_reason(name: str) -> str:
    return f"no aggregate; run 'llm-energy-measure aggregate {name}'"


def environment(results: Results) -> Section:
    """Return the section with hardware and software, and the number of experiments with each value."""
    names = ("model", "precision", "gpus", "hosts", "processes", "backend", "backend_version", "libraries", "method")
    counts: Counter[tuple[str, str]] = Counter()
    for one in results.experiments:
        for name in names:
            value = None if one.facts is None else one.facts.identity.get(name)
            counts[name, formatting.UNKNOWN if value is None else value] += 1
        counts["host names", ", ".join(one.summary.hosts) or formatting.UNKNOWN] += 1
    order = (*names, "host names")
    found = sorted(counts.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1]))
    rows = [Row([Cell(name), Cell(value), tables.count(number)]) for (name, value), number in found]
    shown, notes = limited(rows, _MOST_GROUPS, "rows")
    headers = [Header("fact"), Header("value"), Header("experiments", "right")]
    table = Table(name="environment-table", caption="Environment", headers=headers, rows=shown, notes=notes)
    return Section(name="environment", title="Environment", tables=[table])


def comparison(found: Comparison, kind: EnergyKind) -> Section:
    """Return the section with the tables of `results compare`."""
    found_tables = []
    for number, table in enumerate(found.tables):
        title, *lines = comparison_text.headings(found, table, kind)
        names = comparison_text.headers(table)
        rows = [
            Row([Cell(text, value) for text, value in zip(texts, _compared(row), strict=True)])
            for texts, row in zip(comparison_text.cells(table, found.margin), table.rows, strict=True)
        ]
        advice = "'llm-energy-measure results compare --json' prints all rows."
        shown, notes = limited(rows, _MOST_GROUPS, "rows", advice)
        found_tables.append(
            Table(
                name=f"comparison-{number}",
                caption=title,
                headers=[Header(name, "right" if 0 < at < len(names) - 1 else "left") for at, name in enumerate(names)],
                rows=shown,
                notes=[*lines, *comparison_text.conclusions(table), *notes],
            )
        )
    return Section(
        name="comparison",
        title="Comparison",
        paragraphs=list(comparison_text.footnotes(found)),
        tables=found_tables,
    )


def _compared(row: ComparedRow) -> list[float | None]:
    """Return the number behind each cell of a row of a comparison."""
    low = None if row.interval is None else row.interval[0]
    return [None, row.base.mean, row.new.mean, row.ratio, low, row.p, None]

"""Write statistics over repeats as a table for terminals, CSV, JSON, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.analysis.repeats import RepeatGroup, Repeats
from llm_energy_measure.cli import energies, formatting, terminal
from llm_energy_measure.results import exporters, markup

_MAX_LEFT_OUT = 10

# The JSON has these facts too.
_LONG_FACTS = frozenset({"libraries", "method"})
_CI = "±: half of the t-based 95 % interval of the mean; CV: standard deviation divided by mean"


def print_table(repeats: Repeats, kind: energies.EnergyKind) -> None:
    """Print the table, the facts that all runs share, the ignored keys and the runs left out."""
    scales = _scales(repeats)
    headers = [("configuration", "left"), ("n", "right")]
    optional = []
    for metric in repeats.units:
        headers += [(f"{metric} [{scales[metric][1]}]", "right"), ("CV", "right")]
        optional.append(len(headers) - 1)
    rows = [[group.name, str(len(group.experiment_ids)), *_figures(group, scales)] for group in repeats.groups]
    if rows:
        terminal.print_table(headers, rows, optional=optional, fits_pipe=True)
    for line in _notes(repeats, kind):
        terminal.print_text(line)


def encoded(repeats: Repeats, form: str, kind: energies.EnergyKind) -> bytes:
    """Return the statistics in a format: `csv`, `json`, `markdown` or `latex`."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(repeats), indent=2) + b"\n"
    if form == "csv":
        return _csv(repeats)
    headers, rows = _paper_table(repeats)
    lines = (markup.markdown_table if form == "markdown" else markup.latex_table)(headers, rows, _notes(repeats, kind))
    return ("\n".join(lines) + "\n").encode()


def left_out(repeats: Repeats) -> Iterator[str]:
    """Yield a line for each run left out, with its reason."""
    for name, reason in repeats.left_out.items():
        yield f"left out: {name}: {reason}"


def _scales(repeats: Repeats) -> dict[str, tuple[float, str]]:
    """Return divisor and unit of each metric, so that a column has one unit."""
    return {
        metric: formatting.scale(
            [mean for group in repeats.groups if (mean := group.statistics[metric].mean) is not None], unit
        )
        for metric, unit in repeats.units.items()
    }


def _figures(group: RepeatGroup, scales: dict[str, tuple[float, str]]) -> Iterator[str]:
    """Yield the mean with its interval, and the coefficient of variation, of each metric."""
    for metric, found in group.statistics.items():
        text = formatting.mean_with_interval(found.mean, found.half_width, scales[metric][0])
        is_corrected = bool(group.corrected) and METRICS[metric].uses_energy and found.mean is not None
        count = f" (n={found.n})" if 0 < found.n < len(group.experiment_ids) else ""
        yield f"{energies.CORRECTED} {text}{count}" if is_corrected else text + count
        yield formatting.UNKNOWN if found.cv is None else f"{found.cv:.2%}"


def _notes(repeats: Repeats, kind: energies.EnergyKind) -> Iterator[str]:
    if repeats.groups:
        yield _CI
    if kind == "plain":
        yield "energies are plain sums over processes"
    elif any(group.corrected for group in repeats.groups):
        yield f"{energies.CORRECTED_NOTE}; --energy plain shows the plain sums"
    if repeats.common and repeats.groups:
        shown = (f"{name}={value}" for name, value in repeats.common.items() if name not in _LONG_FACTS)
        yield f"all runs: {', '.join(shown)}"
    if repeats.ignored:
        yield f"ignored keys that vary: {', '.join(repeats.ignored)}; --split-by KEY separates the runs by one"
    lines = list(left_out(repeats))
    yield from lines[:_MAX_LEFT_OUT]
    if len(lines) > _MAX_LEFT_OUT:
        yield f"left out: {len(lines) - _MAX_LEFT_OUT} more; --format json lists all"


def _csv(repeats: Repeats) -> bytes:
    """Return one row for each group, in base units. The column of the mean has the unit."""
    keys = list(repeats.groups[0].differs) if repeats.groups else []
    names = [*keys, "n"]
    for metric, unit in repeats.units.items():
        names += [
            f"{metric} [{unit}]",
            *(f"{metric}_{part}" for part in ("n", "ci_95_lower", "ci_95_upper", "std", "cv")),
        ]
    rows = []
    for group in repeats.groups:
        row: list[object] = [*group.differs.values(), len(group.experiment_ids)]
        for found in group.statistics.values():
            row += [found.mean, found.n, found.ci_95_lower, found.ci_95_upper, found.std, found.cv]
        rows.append(row)
    return exporters.to_csv(exporters.Table(names=names, rows=rows))


def _paper_table(repeats: Repeats) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Return the headers and the cells of a table for a document: one column for each key that separates the groups."""
    scales = _scales(repeats)
    keys = repeats.separating
    figures = [f"{METRICS[metric].label} [{scales[metric][1]}]" for metric in repeats.units]
    headers = [*((key, "left") for key in keys.values()), *((title, "right") for title in ("n", *figures))]
    rows = []
    for group in repeats.groups:
        values = list(_figures(group, scales))[::2]
        rows.append(
            [*(formatting.config_value(group.differs[key]) for key in keys), str(len(group.experiment_ids)), *values]
        )
    return headers, rows

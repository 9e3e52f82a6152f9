"""Write statistics over repeats as a table for terminals, CSV, JSON, Markdown or LaTeX."""

from __future__ import annotations

import msgspec

from llm_energy_measure.analysis import repeats_text
from llm_energy_measure.analysis.repeats import Repeats
from llm_energy_measure.cli import energies, formatting, terminal
from llm_energy_measure.results import exporters


def print_table(repeats: Repeats, kind: energies.EnergyKind, unit: str | None) -> None:
    """Print the table, the facts that all runs have in common, the ignored keys, and the runs that are left out."""
    scales = repeats_text.scales(repeats, unit)
    headers = [("configuration", "left"), ("n", "right")]
    optional = []
    for metric in repeats.units:
        headers += [(f"{metric} [{scales[metric][1]}]", "right"), ("CV", "right")]
        optional.append(len(headers) - 1)
    rows = []
    for group in repeats.groups:
        means = repeats_text.means(group, scales)
        variations = [formatting.UNKNOWN if one.cv is None else f"{one.cv:.2%}" for one in group.statistics.values()]
        cells = [cell for pair in zip(means, variations, strict=True) for cell in pair]
        rows.append([group.name, str(len(group.experiment_ids)), *cells])
    if rows:
        terminal.print_table(headers, rows, optional=optional, fits_pipe=True)
    for line in repeats_text.notes(repeats, kind, with_cv=True):
        terminal.print_text(line, fits_pipe=True)


def encoded(repeats: Repeats, form: str, kind: energies.EnergyKind, unit: str | None) -> bytes:
    """Return the statistics in the format `form`: `csv`, `json`, `markdown` or `latex`."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(repeats), indent=2) + b"\n"
    if form == "csv":
        return _csv(repeats)
    return repeats_text.document(repeats, kind, unit).encoded("latex" if form == "latex" else "markdown")


def _csv(repeats: Repeats) -> bytes:
    """Return CSV with one row per configuration, in base units. The title of each column of means has the unit."""
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

"""The text of a comparison: titles, cells, conclusions and footnotes, for terminals, documents and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from llm_energy_measure.analysis import markup
from llm_energy_measure.analysis.energies import CORRECTED, CORRECTED_NOTE, EnergyKind
from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.analysis.pairing import text
from llm_energy_measure.analysis.verdicts import MOST_REPEATS
from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.configuration import Value

if TYPE_CHECKING:
    from llm_energy_measure.analysis.comparison import CandidateTable, Comparison, Row, SideFigures

P_TITLE = "p (Holm)"
ALIGNMENTS = ("left", "right", "right", "right", "right", "right", "left")
"""Alignment of the columns."""
_MOST_NAMES = 8
_MOST_LEFT_OUT = 10


def headings(comparison: Comparison, table: CandidateTable, kind: EnergyKind) -> Iterator[str]:
    """Yield the title of a table, then its sides and what differs between them."""
    metric = METRICS[table.metric]
    plain = " from plain sums" if kind == "plain" and metric.uses_energy else ""
    yield f"{metric.label}{plain} ({table.metric}, {table.better} is better)"
    yield f"base: {comparison.base}"
    yield f"new:  {table.candidate}"
    for name, (old, new) in table.differs.items():
        yield f"differs: {name} {_listed(old)} in base, {_listed(new)} in new"


def _listed(values: Sequence[Value | None]) -> str:
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return ", ".join(text(value) for value in values[:3]) + more


def headers(table: CandidateTable) -> list[str]:
    """Return the titles of the columns, with the numbers of runs if they agree in all rows."""
    counts = _common_counts(table)
    base, new = (f"base (n={counts[0]})", f"new (n={counts[1]})") if counts else ("base", "new")
    return ["configuration", base, new, "change", "95 % CI", P_TITLE, "verdict"]


def _common_counts(table: CandidateTable) -> tuple[int, int] | None:
    """Return the numbers of runs of both sides if they are the same in each row."""
    counts = {(row.base.n, row.new.n) for row in table.rows}
    return counts.pop() if len(counts) == 1 else None


def cells(table: CandidateTable, margin: float, energy_unit: str | None = None) -> list[tuple[str, ...]]:
    """Return the cells of each row. `energy_unit` is the unit of energies; None chooses a prefix."""
    factor, unit = _scale(table, energy_unit)
    is_counted = _common_counts(table) is None
    return [
        (
            row.configuration,
            _side(row.base, factor, unit, is_counted=is_counted),
            _side(row.new, factor, unit, is_counted=is_counted),
            percent(row.ratio) + " %",
            formatting.UNKNOWN if row.interval is None else " … ".join(map(percent, row.interval)) + " %",
            _p(row.p),
            verdict(row, margin),
        )
        for row in table.rows
    ]


def _scale(table: CandidateTable, energy_unit: str | None) -> tuple[float, str]:
    """Return the divisor and the unit of all means of a table, so that a column has one unit.

    The unit of a ratio, such as J/token, is shortened, because the heading names the ratio.
    """
    unit = table.unit.partition("/")[0] if table.unit.startswith("J/") else table.unit
    return formatting.scale([side.mean for row in table.rows for side in (row.base, row.new)], unit, energy_unit)


def _side(side: SideFigures, factor: float, unit: str, *, is_counted: bool) -> str:
    """Return the mean and half of its interval, for example `62.6 ± 2.7 mJ`."""
    count = f" (n={side.n})" if is_counted else ""
    mark = f"{CORRECTED} " if side.corrected else ""
    return f"{mark}{formatting.mean_with_interval(side.mean, side.half_width, factor)} {unit}{count}"


def percent(ratio: float) -> str:
    """Return the change in percent, without the sign `%`."""
    return f"{(ratio - 1) * 100:+.1f}"


def _p(p_value: float | None) -> str:
    if p_value is None:
        return formatting.UNKNOWN
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def verdict(row: Row, margin: float) -> str:
    """Return the verdict with its explanation and the mark `confounded`."""
    words: str = row.verdict or "no verdict (n=1)"
    if row.verdict == "equivalent":
        words += f" (margin {margin * 100:.3g} %)"
    elif row.verdict == "undecided" and row.p is not None:
        words += f" ({_further(row)})"
    return words + (", confounded" if row.confounded else "")


def _further(row: Row) -> str:
    noun = "repeat" if row.blocks is None else "block"
    if row.further_repeats is None:
        return f"over {MOST_REPEATS:,} more {noun}s"
    return f"{row.further_repeats} more {noun}{'' if row.further_repeats == 1 else 's'}"


def conclusions(table: CandidateTable) -> Iterator[str]:
    """Yield the geometric mean, the configurations of one side only, the warnings and the runs left out."""
    if len(table.rows) > 1 or table.only_base or table.only_new:
        common = formatting.plural(len(table.rows), "common configuration")
        yield f"geometric mean of {common}: {percent(table.geometric_mean_ratio)} %"
    for side, names in (("base", table.only_base), ("new", table.only_new)):
        if names:
            yield f"only in {side}: {_some(names, _MOST_NAMES)}"
    by_warning: dict[str, list[str]] = {}
    for row in table.rows:
        for warning in row.warnings:
            by_warning.setdefault(warning, []).append(row.configuration)
    for warning, names in by_warning.items():
        where = f" ({_some(names, _MOST_NAMES)})" if len(names) < len(table.rows) else ""
        yield f"warning: {warning}{where}"
    for one in table.left_out[:_MOST_LEFT_OUT]:
        yield f"left out of {one.side}: {one.experiment_id}: {one.reason}"
    if len(table.left_out) > _MOST_LEFT_OUT:
        further = len(table.left_out) - _MOST_LEFT_OUT
        yield f"left out: {further} more; 'llm-energy-measure results compare --json' lists all"


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def footnotes(comparison: Comparison) -> Iterator[str]:
    """Yield the candidates without a table, and the sentences that explain the signs in all tables."""
    for one in comparison.not_compared:
        yield f"not compared: {one.candidate} ({one.metric}): {one.reason}"
    rows = comparison.rows()
    if any(row.base.half_width is not None for row in rows):
        yield "±: half of the 95 % interval of the mean; change: ratio of geometric means minus 1"
    if any(row.base.corrected or row.new.corrected for row in rows):
        yield f"{CORRECTED_NOTE}; --energy plain compares the plain sums"
    if comparison.tests:
        adjusted = f"adjusted for {formatting.plural(comparison.tests, 'row')} (Holm)"
        yield f"p is {adjusted}; the interval is not adjusted"
    if any(row.method == "paired" for row in rows):
        blocks = sorted({row.blocks for row in rows if row.blocks is not None})
        yield f"paired over {' to '.join(map(str, dict.fromkeys((blocks[0], blocks[-1]))))} blocks"
    marks = {mark for row in rows for mark in row.confounded}
    if marks:
        reasons = {
            "order": "all runs of one side started before all runs of the other",
            "host": "the sides ran on different hosts",
        }
        because = "; ".join(reason for mark, reason in reasons.items() if mark in marks)
        yield f"confounded: {because}; 'llm-energy-measure results order A B' prints an interleaved order"


def markdown(comparison: Comparison, kind: EnergyKind, unit: str | None = None) -> str:
    """Return the comparison in Markdown: a heading and a table for each candidate and metric."""

    def lines() -> Iterator[str]:
        for table in comparison.tables:
            heading, *sides = headings(comparison, table, kind)
            yield from (f"### {markup.markdown(heading)}", "", *_items(sides), "")
            yield from _table(markup.markdown_table, comparison, table, unit)
            yield from (*_items(conclusions(table)), "")
        yield from _items(footnotes(comparison))

    return "".join(f"{line}\n" for line in lines())


def _items(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {markup.markdown(line)}" for line in lines)


def latex(comparison: Comparison, kind: EnergyKind, unit: str | None = None) -> str:
    """Return the comparison as LaTeX tables for the package booktabs. Headings and notes become comments."""

    def lines() -> Iterator[str]:
        for table in comparison.tables:
            yield from _comments(headings(comparison, table, kind))
            yield from _table(markup.latex_table, comparison, table, unit)
            yield from (*_comments(conclusions(table)), "")
        yield from _comments(footnotes(comparison))

    return "".join(f"{line}\n" for line in lines())


def _comments(lines: Iterable[str]) -> Iterator[str]:
    return (f"% {markup.printable(line)}" for line in lines)


def _table(
    write: Callable[[Sequence[tuple[str, str]], Iterable[Sequence[str]]], Iterator[str]],
    comparison: Comparison,
    table: CandidateTable,
    unit: str | None,
) -> Iterator[str]:
    titles = list(zip(headers(table), ALIGNMENTS, strict=True))
    return write(titles, cells(table, comparison.margin, unit))

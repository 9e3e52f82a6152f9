"""Write a comparison as a table for terminals, Markdown, JSON or JUnit XML."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llm_energy_measure.cli import energies, formatting, terminal
from llm_energy_measure.reports import comparison_text

if TYPE_CHECKING:
    from llm_energy_measure.analysis.comparison import Comparison, Row


def print_tables(comparison: Comparison, kind: energies.EnergyKind, unit: str | None = None) -> None:
    """Print each table with its headings and footnotes."""
    for table in comparison.tables:
        for line in comparison_text.headings(comparison, table, kind):
            terminal.print_text(line)
        headers = comparison_text.headers(table)
        rows = comparison_text.cells(table, comparison.margin, unit)
        titles = list(zip(headers, comparison_text.ALIGNMENTS, strict=True))
        terminal.print_table(titles, rows, optional=(headers.index(comparison_text.P_TITLE),))
        for line in comparison_text.conclusions(table):
            terminal.print_text(line)
        terminal.print_line("")
    for line in comparison_text.footnotes(comparison):
        terminal.print_text(line)


def encoded(
    comparison: Comparison, form: str, fail_on: Sequence[str], kind: energies.EnergyKind, unit: str | None = None
) -> bytes:
    """Return the comparison in the format `form`: `table`, `markdown`, `latex`, `json` or `junit`."""
    if form == "json":
        return terminal.encode_json(comparison) + b"\n"
    if form == "table":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            print_tables(comparison, kind, unit)
        return printed.getvalue().encode()
    if form == "junit":
        return "".join(f"{line}\n" for line in _junit(comparison, fail_on, unit)).encode()
    return (comparison_text.latex if form == "latex" else comparison_text.markdown)(comparison, kind, unit).encode()


def summary(comparison: Comparison) -> str:
    """Return the number of rows by verdict as one line.

    Example: `3 rows (1 worse, 2 equivalent)`
    """
    verdicts = Counter(row.verdict or "without a verdict" for row in comparison.rows())
    listed = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    without = f"; {len(comparison.not_compared)} not compared" if comparison.not_compared else ""
    return f"{formatting.plural(len(comparison.rows()), 'row')} ({listed}){without}"


def _junit(comparison: Comparison, fail_on: Sequence[str], unit: str | None) -> Iterator[str]:
    """Yield JUnit XML: one suite per table, one test case per row. A row that meets a condition of --fail-on fails."""
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield "<testsuites>"
    for table in comparison.tables:
        failed = {id(row) for row in table.rows if _met(row, fail_on)}
        skipped = {id(row) for row in table.rows if row.verdict is None} - failed
        name = f"{table.metric}: {table.candidate} against {comparison.base}"
        counts = f'tests="{len(table.rows)}" failures="{len(failed)}" skipped="{len(skipped)}"'
        yield f'  <testsuite name="{_xml(name)}" {counts}>'
        for row, cells in zip(table.rows, comparison_text.cells(table, comparison.margin, unit), strict=True):
            line = "  ".join(cells[1:])
            yield f'    <testcase classname="{_xml(table.metric)}" name="{_xml(row.configuration)}">'
            if id(row) in failed:
                message = f"{comparison_text.verdict(row, comparison.margin)}: {comparison_text.percent(row.ratio)} %"
                yield f'      <failure message="{_xml(message)}">{_xml(line)}</failure>'
            elif id(row) in skipped:
                yield f'      <skipped message="{_xml("; ".join(row.warnings))}"/>'
            yield f"      <system-out>{_xml(line)}</system-out>"
            yield "    </testcase>"
        notes = [*comparison_text.conclusions(table), *comparison_text.footnotes(comparison)]
        yield f"    <system-out>{_xml(chr(10).join(notes))}</system-out>"
        yield "  </testsuite>"
    for one in comparison.not_compared:
        name = f"{one.metric}: {one.candidate} against {comparison.base}"
        yield f'  <testsuite name="{_xml(name)}" tests="1" errors="1">'
        yield f'    <testcase classname="{_xml(one.metric)}" name="{_xml(one.candidate)}">'
        yield f'      <error message="{_xml(one.reason)}"/>'
        yield "    </testcase>"
        yield "  </testsuite>"
    yield "</testsuites>"


def _met(row: Row, fail_on: Sequence[str]) -> list[str]:
    """Return the conditions that a row meets. A row without a verdict meets `undecided`."""
    return [
        word for word in fail_on if word == (row.verdict or "undecided") or (word == "confounded" and row.confounded)
    ]


def _xml(content: str) -> str:
    """Return the text with the special characters of XML as entities, and forbidden characters as escapes."""
    lines = (terminal.escape(line) for line in content.split("\n"))
    escaped = "\n".join(lines)
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        escaped = escaped.replace(sign, name)
    return escaped

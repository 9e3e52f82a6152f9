"""Parts of the pages that are generated from the code.

A page holds the line `<!-- generated: NAME -->`. Sphinx replaces it with the Markdown text of `PARTS[NAME]()`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llm_energy_measure import importers
from llm_energy_measure.bundle.outcomes import CODES as BUNDLE_CODES
from llm_energy_measure.catalogue.query import ALIASES
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.importers.mapping import FIELDS
from llm_energy_measure.importers.registry import FORMATS
from llm_energy_measure.results.batch.checking import CODES as FILE_CODES
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS
from llm_energy_measure.verification.registry import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llm_energy_measure.results.columns import Column

PLACEHOLDER = re.compile(r"<!-- generated: ([a-z-]+) -->")
NOTE = "*In the repository, this page lacks its generated tables. `make docs` builds the whole page in `build/docs`.*\n"
"""Line for a reader of the source of a page with generated parts. The built page does not have it."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def checks() -> str:
    """Return a section for each check, under a heading for each family."""
    lines: list[str] = []
    family = ""
    for code, check in CHECKS.items():
        if family != code.partition(".")[0]:
            family = code.partition(".")[0]
            lines += [f"## {family}", ""]
        lines += [f"### `{code}`", "", check.meaning, "", f"- Severity: {check.severity}"]
        lines += [f"- Rule: {check.rule}", f"- Advice: {check.advice}"]
        lines += [f"- Source: {check.source}"] if check.source else []
        lines += [f"- Example: {check.example}"] if check.example else []
        lines += [""]
    return "\n".join(lines)


def file_findings() -> str:
    """Return the table of the codes of `results check`."""
    return _table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in FILE_CODES.items()))


def reason_codes() -> str:
    """Return the table of the reason codes of an import."""
    return _table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in importers.CODES.items()))


def bundle_codes() -> str:
    """Return the table of the reason codes of `bundle verify`."""
    rows = ((f"`{code}`", outcome, meaning) for code, (outcome, meaning) in BUNDLE_CODES.items())
    return _table(("code", "outcome", "meaning"), rows)


def import_formats() -> str:
    """Return the table of the formats that `import` reads, in the order in which they are tried."""
    rows = ((f"`{form.name}`", form.looks_for, form.covers, form.unknown) for form in FORMATS)
    return _table(("format", "recognised by", "scope", "unknown in this format (null)"), rows)


def table_fields() -> str:
    """Return the fields that `--map` can fill."""
    return ", ".join(f"`{name}`" for name in FIELDS)


def _columns(columns: Iterable[Column[Any]]) -> str:
    rows = ((f"`{column.name}`", column.type, column.unit) for column in columns)
    return _table(("column", "type", "unit"), rows)


def experiment_columns() -> str:
    """Return the table of the exported columns of an experiment."""
    return _columns(AGGREGATED_COLUMNS)


def process_columns() -> str:
    """Return the table of the exported columns of a process."""
    return _columns(RAW_COLUMNS)


def query_columns() -> str:
    """Return the table of the columns that only conditions have."""
    exported = {column.name for column in AGGREGATED_COLUMNS}
    rows = ((f"`{name}`", kind) for name, kind in COLUMNS.items() if name not in exported)
    return _table(("column", "type"), rows)


def aliases() -> str:
    """Return the table of the short names of columns."""
    return _table(("short name", "column"), ((f"`{short}`", f"`{name}`") for short, name in ALIASES.items()))


PARTS: dict[str, Callable[[], str]] = {
    "aliases": aliases,
    "bundle-codes": bundle_codes,
    "checks": checks,
    "file-findings": file_findings,
    "experiment-columns": experiment_columns,
    "process-columns": process_columns,
    "import-formats": import_formats,
    "query-columns": query_columns,
    "reason-codes": reason_codes,
    "table-fields": table_fields,
}
"""Function that returns the text of each generated part."""


def fill(text: str) -> str:
    """Return a page with each placeholder replaced, and without `NOTE`."""
    return PLACEHOLDER.sub(lambda match: PARTS[match[1]](), text.replace(NOTE, ""))


def setup(app: Any) -> dict[str, bool]:
    """Register the replacement with Sphinx."""

    def replace(_app: object, _page: str, source: list[str]) -> None:
        source[0] = fill(source[0])

    app.connect("source-read", replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Small tables in HTML for notebooks. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from llm_energy_measure.analysis.markup import html

MAX_ROWS = 20
"""Maximum number of rows of a table in a notebook."""


def table_html(
    title: str, headers: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], *, notes: Sequence[str] = ()
) -> str:
    """Return an HTML table with the first `MAX_ROWS` rows, and a note with the number of the other rows.

    Args:
        title: Sentence above the table, as plain text.
        headers: Title and alignment (`left` or `right`) of each column.
        rows: Cells of each row.
        notes: Sentences below the table.
    """
    shown = rows[:MAX_ROWS]
    if len(rows) > len(shown):
        notes = [f"{len(rows) - len(shown):,} more rows", *notes]
    titles = "".join(_cell("th", text, alignment) for text, alignment in headers)
    lines = [
        f"<tr>{''.join(_cell('td', text, alignment) for text, (_, alignment) in zip(row, headers, strict=True))}</tr>"
        for row in shown
    ]
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>" if rows else ""
    return f"<div><p>{html(title)}</p>{table}{''.join(f'<p>{html(note)}</p>' for note in notes)}</div>"


def _cell(tag: str, text: str, alignment: str) -> str:
    return f'<{tag} style="text-align: {alignment}">{html(text)}</{tag}>'

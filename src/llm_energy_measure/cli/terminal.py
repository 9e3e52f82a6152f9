"""Output of the commands: data to stdout, messages to stderr, and control characters escaped in both."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from llm_energy_measure.cli import encoding
from llm_energy_measure.security import UNPRINTABLE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

VERBOSITY_KEY = "llm_energy_measure.verbosity"
"""Key of the verbosity in the metadata of the root click context: 1 (-v), 0 or -1 (-q)."""

_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
# Tabs and line ends may occur between the tokens of JSON. Inside its strings they are always escaped.
_UNPRINTABLE_IN_JSON = re.compile(rf"(?![\t\n\r])[{UNPRINTABLE}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

_COLUMN_GAP = 2
# Text may wrap at this width. Numbers never wrap, because a part of a number reads as another number.
_MIN_TEXT_WIDTH = 10
# A table in a pipe has no width limit, so that no row is wrapped.
_PIPE_WIDTH = 10_000


def escape(text: object) -> str:
    r"""Return the text with unprintable characters escaped (for example as `\x1b`), safe for a terminal."""
    escaped = _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))
    return encoding.encodable(escaped)


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if a standard stream is open and is connected to a terminal."""
    return stream is not None and stream.isatty()


def info(message: str) -> None:
    """Print a message on stderr, unless -q is given."""
    if _verbosity() >= 0:
        click.echo(escape(message), err=True)


def debug(message: str) -> None:
    """Print a message on stderr, if -v is given."""
    if _verbosity() > 0:
        click.echo(escape(message), err=True)


def warn(message: object) -> None:
    """Print a warning on stderr."""
    click.echo(f"warning: {escape(message)}", err=True)


def warn_renamed(old: str, new: str) -> None:
    """Warn on stderr that an option or command has a new name and that the old name works for one release."""
    warn(f"{old} has a new name: use {new}; the old name works in this release only")


def error(message: object) -> None:
    """Print an error on stderr."""
    click.echo(f"error: {escape(message)}", err=True)


def print_line(text: str) -> None:
    """Print one line on stdout."""
    click.echo(escape(text))


def print_json(value: Any) -> None:
    """Print a value on stdout as indented JSON."""
    print_json_text(encode_json(value))


def encode_json(value: Any) -> bytes:
    """Return a value as indented JSON."""
    # Commands that print no JSON start faster without this import.
    import msgspec

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        encoded = msgspec.json.encode(_escape_surrogates(msgspec.to_builtins(value)))
    return msgspec.json.format(encoded, indent=2)


def _escape_surrogates(value: Any) -> Any:
    r"""Return the JSON value with the bytes of file names that are not UTF-8 written as `\xff`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    return [_escape_surrogates(item) for item in value] if isinstance(value, list) else value


def print_json_list(values: Iterable[Any]) -> None:
    """Print values on stdout as an indented JSON list; each item is printed as soon as it is available."""
    import msgspec

    opening = "["
    for value in values:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).replace(b"\n", b"\n  ")
        click.echo(f"{opening}\n  ", nl=False)
        print_json_text(text, end="")
        opening = ","
    click.echo("[]" if opening == "[" else "\n]")


def print_json_text(data: bytes, *, end: str = "\n") -> None:
    r"""Print encoded JSON on stdout; unprintable characters in its strings are escaped as `\uXXXX`."""
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r", "\n").rstrip("\n")
    text = _UNPRINTABLE_IN_JSON.sub(_json_escape, text)
    click.echo((text if encoding.is_unicode() else _NOT_ASCII.sub(_json_escape, text)) + end, nl=False)


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def print_bytes(data: bytes) -> None:
    """Print data on stdout: unchanged in a pipe, escaped on a terminal."""
    if is_terminal(sys.stdout):
        for line in data.decode("utf-8", errors="replace").removeprefix("\ufeff").splitlines():
            print_line(line)
    else:
        click.echo(data, nl=False)


def write_or_print(data: bytes, target: str, *, content: str) -> None:
    """Write data to a file and report its content, for example `3 rows`; for the target `-`, print it on stdout."""
    from llm_energy_measure.results.exporters import write_export

    if target == "-":
        print_bytes(data)
    else:
        info(f"{content} written to {write_export(target, data)}")


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values on stdout, one pair per line."""
    pairs = list(fields)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print_line(f"{name:<{width}}  {value}")


def print_table(
    headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], *, optional: Sequence[str] = ()
) -> None:
    """Print a table on stdout that fits the terminal. If even its numbers do not fit, print each row as fields.

    Args:
        headers: Title and alignment (`left` or `right`) of each column. Columns aligned left are text.
        rows: Formatted cells. Cells and titles are escaped here.
        optional: Titles of the columns that are left out, one by one in this order, until the table fits. A message
            names them and refers to `--json`, so the command must have that option.
    """
    # Only commands that print a table or a progress display import rich.
    from rich.cells import cell_len

    console = _console()
    headers = [(escape(title), alignment) for title, alignment in headers]
    cells = [[escape(cell) for cell in row] for row in rows]
    columns = list(zip(*([title for title, _ in headers], *cells), strict=True))
    widths = {column[0]: max(map(cell_len, column)) + _COLUMN_GAP for column in columns}
    left_out = []
    for title in map(escape, optional):
        if sum(widths.values()) - _COLUMN_GAP > console.width:
            del widths[title]
            left_out.append(title.strip())
    texts = {title for title, alignment in headers if alignment == "left"}
    smallest = {
        title: min(width, _MIN_TEXT_WIDTH + _COLUMN_GAP) if title in texts else width for title, width in widths.items()
    }
    if sum(smallest.values()) - _COLUMN_GAP > console.width:
        for row in cells:
            print_fields((title.strip(), cell) for (title, _), cell in zip(headers, row, strict=True))
            print_line("")
        return
    if sum(widths.values()) - _COLUMN_GAP <= console.width:
        # No cell wraps. rich needs 11 s of CPU time for the 20,000 rows of `results list`; plain lines need 1.2 s.
        click.echo("\n".join(_table_lines(headers, cells, widths, bold=console.color_system is not None)))
    else:
        console.print(_table(headers, cells, list(widths)))
    if left_out:
        info(f"columns left out because the terminal is too narrow: {', '.join(left_out)}; --json prints all columns")


def _table_lines(
    headers: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]], widths: Mapping[str, int], *, bold: bool = False
) -> Iterator[str]:
    """Yield the lines of a table in which no cell wraps, without blanks at their ends.

    Args:
        headers: Title and alignment of each column.
        cells: Rows of escaped cells.
        widths: Width of each column by title, with `_COLUMN_GAP`. Other columns are left out.
        bold: Whether the titles are bold.
    """
    from rich.cells import cell_len

    kept = [(index, title, alignment) for index, (title, alignment) in enumerate(headers) if title in widths]

    def line(row: Sequence[str]) -> str:
        parts = []
        for index, title, alignment in kept:
            blanks = " " * (widths[title] - _COLUMN_GAP - cell_len(row[index]))
            parts.append(blanks + row[index] if alignment == "right" else row[index] + blanks)
        return (" " * _COLUMN_GAP).join(parts).rstrip()

    # Blanks at the end of a title only distinguish columns that have the same title.
    titles = line([title.strip() for title, _ in headers])
    yield click.style(titles, bold=True) if bold else titles
    yield ("─" if encoding.is_unicode() else "-") * (sum(widths.values()) - _COLUMN_GAP)
    yield from map(line, cells)


def _console() -> Console:
    from rich.console import Console

    on_terminal = is_terminal(sys.stdout)
    return Console(
        file=sys.stdout,
        width=None if on_terminal else _PIPE_WIDTH,
        color_system="auto" if on_terminal and not os.environ.get("NO_COLOR") else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _table(headers: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]], titles: Sequence[str]) -> Table:
    """Return the table of the columns that have one of the titles."""
    from rich.box import SIMPLE_HEAD, Box
    from rich.table import Table

    box = SIMPLE_HEAD if encoding.is_unicode() else Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, _COLUMN_GAP - 1, 0, 0), header_style="bold")
    kept = [index for index, (title, _) in enumerate(headers) if title in titles]
    for title, alignment in (headers[index] for index in kept):
        is_number = alignment == "right"
        table.add_column(title, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in cells:
        table.add_row(*(row[index] for index in kept))
    return table


def _verbosity() -> int:
    context = click.get_current_context(silent=True)
    return context.find_root().meta.get(VERBOSITY_KEY, 0) if context else 0

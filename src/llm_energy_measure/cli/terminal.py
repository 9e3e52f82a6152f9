"""What reaches a terminal: data to stdout, everything else to stderr, and nothing from a file as an escape sequence."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from rich.console import Console

UNKNOWN = "-"

VERBOSITY = "llm_energy_measure.verbosity"
"""Where a click context keeps how much to say: 1 more, 0, or -1 less."""

# Control characters, and the marks that reorder or hide text around them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
# Tabs and line ends can stand between the tokens of JSON, and never inside its strings.
_UNPRINTABLE_IN_JSON = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b\x0c\x0e-\x1f"))

# Between two columns of a table.
_GAP = 2

# A column of text may be folded to this, a column of numbers never: what is left of a number is another number.
_LEAST_TEXT = 10

# Wide enough for any row: what is piped is not cut to a width that nobody sees.
_PIPED_WIDTH = 10_000


def plain(text: object) -> str:
    r"""The text with everything unprintable written out, such as `\x1b`; safe for a terminal."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def is_terminal(stream: TextIO | None) -> bool:
    """True if a standard stream is open, and a person sees or types what goes through it."""
    return stream is not None and stream.isatty()


def note(message: str) -> None:
    """Tell a person on stderr, unless -q."""
    if _verbosity() >= 0:
        click.echo(plain(message), err=True)


def detail(message: str) -> None:
    """Tell a person on stderr, if -v."""
    if _verbosity() > 0:
        click.echo(plain(message), err=True)


def warn(message: object) -> None:
    """Tell a person on stderr that something is amiss."""
    click.echo(f"warning: {plain(message)}", err=True)


def warn_renamed(old: str, new: str) -> None:
    """Print on stderr that an option or command has a new name, and that the old name works for one release."""
    warn(f"{old} has a new name: use {new}; the old name works in this release only")


def error(message: object) -> None:
    """Tell a person on stderr that something was not done."""
    click.echo(f"error: {plain(message)}", err=True)


def out(text: str) -> None:
    """Data, a line, to stdout."""
    click.echo(plain(text))


def out_json(value: Any) -> None:
    """Data, as indented JSON, to stdout."""
    import msgspec

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        encoded = msgspec.json.encode(_printable(msgspec.to_builtins(value)))
    out_json_text(msgspec.json.format(encoded, indent=2))


def _printable(value: Any) -> Any:
    r"""Data with bytes of names that are no UTF-8 written as `\xff`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def out_json_items(values: Iterable[Any]) -> None:
    """Data, as an indented JSON list, to stdout: item by item, however many there are."""
    import msgspec

    opening = "["
    for value in values:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).replace(b"\n", b"\n  ")
        click.echo(f"{opening}\n  ", nl=False)
        out_json_text(text, end="")
        opening = ","
    click.echo("[]" if opening == "[" else "\n]")


def out_json_text(data: bytes, *, end: str = "\n") -> None:
    """JSON text to stdout; what is unprintable, and can only stand inside strings, is escaped as JSON escapes it."""
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r", "\n").rstrip("\n")
    click.echo(_UNPRINTABLE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + end, nl=False)


def out_bytes(data: bytes) -> None:
    """Data as it is to stdout when piped, and made printable on a terminal."""
    if is_terminal(sys.stdout):
        for line in data.decode("utf-8", errors="replace").removeprefix("\ufeff").splitlines():
            out(line)
    else:
        click.echo(data, nl=False)


def out_table(
    headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], *, optional: Sequence[str] = ()
) -> None:
    """A table to stdout that fits the terminal; on one too narrow for its numbers, each row as lines of its own.

    Args:
        headers: Title and justification (`left` or `right`) of each column.
        rows: Cells, already for a person; they may hold anything.
        optional: Titles of columns to leave out, one by one and in this order, until the table fits; the command has to
            have `--json`, which people are told of.
    """
    from rich.cells import cell_len

    console = _console()
    cells = [[plain(cell) for cell in row] for row in rows]
    columns = list(zip(*([title for title, _ in headers], *cells), strict=True))
    widths = {column[0]: max(map(cell_len, column)) + _GAP for column in columns}
    left_out = []
    for title in optional:
        if sum(widths.values()) - _GAP > console.width:
            del widths[title]
            left_out.append(title.strip())
    texts = {title for title, side in headers if side == "left"}
    least = sum(min(width, _LEAST_TEXT + _GAP) if title in texts else width for title, width in widths.items())
    if least - _GAP > console.width:
        for row in cells:
            out_fields((title.strip(), cell) for (title, _), cell in zip(headers, row, strict=True))
            out("")
        return
    if sum(widths.values()) - _GAP <= console.width:
        # No cell is wrapped then, and a column can be one cell of many lines: rich draws that five times faster.
        cells = [["\n".join(column[1:]) for column in columns]]
    console.print(_table(headers, cells, list(widths)))
    if left_out:
        note(f"not shown, the terminal is too narrow: {', '.join(left_out)}; --json has them")


def out_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, a line each, to stdout."""
    pairs = [(name, value) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        out(f"{name:<{width}}  {value}")


def quantity(value: float | None, unit: str = "") -> str:
    """A number for a person: four digits and a prefix.

    Example:
        >>> quantity(1971.7, "J"), quantity(0.24, "J/token"), quantity(None, "J")
        ('1.972 kJ', '240 mJ/token', '-')
    """
    if value is None:
        return UNKNOWN
    prefix = ""
    if unit and value:
        for factor, name in (
            (1e18, "E"),
            (1e15, "P"),
            (1e12, "T"),
            (1e9, "G"),
            (1e6, "M"),
            (1e3, "k"),
            (1, ""),
            (1e-3, "m"),
        ):
            if abs(value) >= factor:
                value, prefix = value / factor, name
                break
    text = f"{value:.4g}" if abs(value) < 1e4 or unit else f"{value:,.0f}"
    return f"{text} {prefix}{unit}".rstrip()


def energy(energy_j: float | None, *, at_least: str) -> str:
    """Energy for a person, behind the words for a lower bound where it is one; what is unknown is none.

    Example:
        >>> energy(1971.7, at_least="≥ "), energy(None, at_least="≥ ")
        ('≥ 1.972 kJ', '-')
    """
    return UNKNOWN if energy_j is None else at_least + quantity(energy_j, "J")


def count(value: int | None) -> str:
    """A whole number with thousands set apart."""
    return UNKNOWN if value is None else f"{value:,}"


def moment(stamp: datetime | None) -> str:
    """Date and minute, in the zone it was written in."""
    return UNKNOWN if stamp is None else stamp.strftime("%Y-%m-%d %H:%M")


def plural(number: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> plural(1, "experiment"), plural(3, "process")
        ('1 experiment', '3 processes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def _console() -> Console:
    from rich.console import Console

    on_terminal = is_terminal(sys.stdout)
    return Console(
        file=sys.stdout,
        width=None if on_terminal else _PIPED_WIDTH,
        color_system="auto" if on_terminal and not os.environ.get("NO_COLOR") else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _table(headers: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]], titles: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
    kept = [index for index, (title, _) in enumerate(headers) if title in titles]
    for index in kept:
        title, side = headers[index]
        table.add_column(
            title, justify="right" if side == "right" else "left", overflow="fold", no_wrap=side == "right"
        )
    for row in cells:
        table.add_row(*(row[index] for index in kept))
    return table


def _verbosity() -> int:
    context = click.get_current_context(silent=True)
    return context.find_root().meta.get(VERBOSITY, 0) if context else 0

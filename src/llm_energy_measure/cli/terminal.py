"""Print data on stdout and messages on stderr. Control characters are escaped in both."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import click

from llm_energy_measure.cli import encoding, tables
from llm_energy_measure.security import UNPRINTABLE

VERBOSITY_KEY = "llm_energy_measure.verbosity"
"""Key of the verbosity in the metadata of the root click context: 1 (-v), 0 or -1 (-q)."""

_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
# JSON may have tabs and line ends between its tokens. In strings of JSON, these characters are always escaped.
_UNPRINTABLE_IN_JSON = re.compile(rf"(?![\t\n\r])[{UNPRINTABLE}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def escape(text: object) -> str:
    r"""Return the text with unprintable characters escaped (for example as `\x1b`), safe for a terminal."""
    escaped = _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))
    return encoding.encodable(escaped)


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if a standard stream is open and is connected to a terminal."""
    return stream is not None and stream.isatty()


def shows_progress() -> bool:
    """Return True if stderr is a terminal and -q is not given."""
    return is_terminal(sys.stderr) and not is_quiet()


def info(message: str) -> None:
    """Print a message on stderr, unless -q is given."""
    if _verbosity() >= 0:
        print_message(message)


def debug(message: str) -> None:
    """Print a message on stderr, if -v is given."""
    if _verbosity() > 0:
        print_message(message)


def warn(message: object, *, fails: bool = False) -> None:
    """Print a warning on stderr, unless -q is given.

    Args:
        message: The warning.
        fails: True if the exit status is not 0 because of this warning. Then -q does not hide the warning.
    """
    if fails or _verbosity() >= 0:
        print_message(f"warning: {message}")


def warn_renamed(old: str, new: str) -> None:
    """Warn on stderr that an option or command has a new name and that the old name works for one release."""
    warn(f"{old} has a new name: use {new}; the old name works in this release only")


def error(message: object) -> None:
    """Print an error on stderr."""
    print_message(f"error: {message}")


def print_message(message: str) -> None:
    """Print a message on stderr. On a terminal, the text wraps between words, and further lines are indented."""
    text = escape(message)
    if is_terminal(sys.stderr):
        text = "\n".join(tables.wrap_indented(text, _columns_of(sys.stderr)))
    click.echo(text, err=True)


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
    except UnicodeEncodeError:  # the value contains a file name that is not UTF-8
        encoded = msgspec.json.encode(_escape_surrogates(msgspec.to_builtins(value)))
    return msgspec.json.format(encoded, indent=2)


def _escape_surrogates(value: Any) -> Any:
    r"""Return the JSON value. Bytes of file names that are not UTF-8 become escapes such as `\xff`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    return [_escape_surrogates(item) for item in value] if isinstance(value, list) else value


def print_json_list(values: Iterable[Any]) -> None:
    """Print values on stdout as an indented JSON list. Each value is printed as soon as it is available."""
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
    """Print data on stdout: escaped on a terminal, otherwise unchanged."""
    if is_terminal(sys.stdout):
        for line in data.decode("utf-8", errors="replace").removeprefix("\ufeff").splitlines():
            print_line(line)
    else:
        click.echo(data, nl=False)


def write_or_print(data: bytes, target: str, *, content: str) -> None:
    """Write data to the file `target`; for `-`, print the data on stdout.

    Args:
        data: The data.
        target: Path of the file, or `-`.
        content: What the data contain, for the message about the file, such as `3 rows`.
    """
    from llm_energy_measure.results.exporters import write_export

    if target == "-":
        print_bytes(data)
    else:
        info(f"{content} written to {write_export(target, data)}")


def width(*, of_pipe: bool = False) -> int | None:
    """Return the width of the terminal of stdout in columns; None if stdout is no terminal.

    Args:
        of_pipe: If stdout is a pipe, as in `results repeats | tail`, return the width of the terminal of stderr.
    """
    if is_terminal(sys.stdout):
        return _columns_of(sys.stdout)
    return _columns_of(sys.stderr) if of_pipe and is_terminal(sys.stderr) else None


def _columns_of(stream: TextIO) -> int:
    """Return the width of a terminal in columns: the environment variable COLUMNS, the real width, or 80."""
    # shutil.get_terminal_size does the same for stdout alone, and its import costs 3 ms.
    with contextlib.suppress(ValueError):
        if (columns := int(os.environ.get("COLUMNS", "0"))) > 0:
            return columns
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def print_text(text: str, *, fits_pipe: bool = False) -> None:
    """Print a sentence on stdout. On a terminal, the text wraps between words, and further lines are indented.

    Args:
        text: The sentence.
        fits_pipe: See `print_table`.
    """
    columns = width(of_pipe=fits_pipe)
    text = escape(text)
    click.echo(text if columns is None else "\n".join(tables.wrap_indented(text, columns)))


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values on stdout, one pair per line. On a terminal, long values wrap with the same indent."""
    escaped = [(escape(name), escape(value)) for name, value in fields]
    click.echo("\n".join(tables.field_lines(escaped, width())))


def print_table(
    headers: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    *,
    optional: Sequence[int] = (),
    short: Mapping[int, Sequence[str]] | None = None,
    fits_pipe: bool = False,
) -> None:
    """Print a table on stdout that fits the terminal. If this is not possible, print each row as fields.

    Args:
        headers: Title and alignment (`left` or `right`) of each column. Columns aligned left are text.
        rows: Formatted cells. Cells and titles are escaped here.
        optional: Indices of the columns that are left out, one by one in this order, until the table fits. A message
            names the omitted columns and refers to `--json`, so the command must have the option `--json`.
        short: Shorter cells by index of their column, for a terminal that is too narrow.
        fits_pipe: Use the width of stderr if stdout is a pipe and stderr is a terminal.
    """
    layout = tables.Layout(
        [(escape(title), alignment) for title, alignment in headers],
        [[escape(cell) for cell in row] for row in rows],
        width(of_pipe=fits_pipe),
        optional=optional,
        short=None if short is None else {index: [escape(cell) for cell in cells] for index, cells in short.items()},
    )
    if not layout.fits:
        for record in layout.records():
            print_fields(record)
            print_line("")
        return
    titles, *lines = _parts(layout)
    click.echo("\n".join([titles, *lines]))
    if layout.left_out:
        left_out = ", ".join(dict.fromkeys(layout.left_out))
        info(f"columns left out because the terminal is too narrow: {left_out}; --json prints all columns")


def _parts(layout: tables.Layout) -> list[str]:
    """Return the titles, a rule and the rows of a table."""
    lines = list(layout.lines())
    number = layout.title_lines
    titles = "\n".join(lines[:number])
    rule = ("─" if encoding.is_unicode() else "-") * layout.line_width
    return [click.style(titles, bold=True) if _has_colours() else titles, rule, *lines[number:]]


def _has_colours() -> bool:
    """Return True if stdout is a terminal with colours and the user has not set NO_COLOR."""
    return (
        is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")
    )


def is_quiet() -> bool:
    """Return True if -q is given."""
    return _verbosity() < 0


def is_verbose() -> bool:
    """Return True if -v is given."""
    return _verbosity() > 0


def _verbosity() -> int:
    context = click.get_current_context(silent=True)
    return context.find_root().meta.get(VERBOSITY_KEY, 0) if context else 0

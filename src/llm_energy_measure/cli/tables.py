"""Tables and fields that fit the width of a terminal.

A table that is too wide first uses shorter cells, then leaves out its least important columns one by one. Text wraps
between words. Numbers and ids never wrap, because a part of a number would look like another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

GAP = 2
"""Number of spaces between two columns."""

# A wrapped column has at least this width, unless its text is shorter.
_COMFORT = 20

# A command or a name in quotes stays on one line, so that it can be copied.
_WORD = re.compile(r"'[^']*'\S*|\S+")

Row = Sequence[str]


def wrap(text: str, width: int) -> list[str]:
    """Return the text as lines of at most `width` columns. Only a word that is longer than a line exceeds `width`.

    Example:
        >>> wrap("run 'aggregate --all' to update them", 20)
        ['run', "'aggregate --all' to", 'update them']
    """
    lines: list[str] = []
    size = 0
    for word in _WORD.findall(text):
        length = _width(word)
        if length > width and " " in word:
            for part in word.split():
                size = _add(lines, part, _width(part), size, width)
        else:
            size = _add(lines, word, length, size, width)
    return lines or [""]


def wrap_indented(text: str, width: int) -> list[str]:
    """Return the text as lines. Lines after the first line have the indent of the text and two more spaces."""
    if _width(text) <= width:
        return [text]
    indent = " " * (len(text) - len(text.lstrip(" ")))
    first, *more = wrap(text, max(width - len(indent) - 2, 1))
    return [indent + first, *(f"{indent}  {line}" for line in more)]


def _add(lines: list[str], word: str, length: int, size: int, width: int) -> int:
    """Add a word to the last line, or to a new line if it does not fit. Return the width of the last line."""
    if lines and size + 1 + length <= width:
        lines[-1] += f" {word}"
        return size + 1 + length
    lines.append(word)
    return length


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    # Only text outside ASCII needs this import.
    from rich.cells import cell_len

    return cell_len(text)


def field_lines(fields: Iterable[tuple[str, str]], width: int | None) -> Iterator[str]:
    """Yield lines with names and values. All lines of a value have the same indent.

    Args:
        fields: Names and values.
        width: Width of the terminal. None does not wrap.
    """
    pairs = list(fields)
    indent = max(_width(name) for name, _ in pairs) + GAP
    for name, value in pairs:
        start = name + " " * (indent - _width(name))
        if width is None or indent + _width(value) <= width or "\n" in value:
            yield (start + value).rstrip()
            continue
        for number, line in enumerate(wrap(value, max(width - indent, 1))):
            yield (start if number == 0 else " " * indent) + line


class Layout:
    """A table in the width of a terminal.

    Args:
        headers: Title and alignment (`left` or `right`) of each column. Columns aligned left are text, which may wrap.
        rows: Formatted and escaped cells.
        width: Width of the terminal. None has no limit.
        optional: Indices of the columns that are left out, in this order, until the table fits.
        short: Shorter cells by index of their column. The shorter cells are used if the table does not fit.

    Attributes:
        left_out: Titles of the columns that are left out.
        fits: False if the remaining columns are still too wide.
    """

    def __init__(
        self,
        headers: Sequence[tuple[str, str]],
        rows: Sequence[Row],
        width: int | None,
        *,
        optional: Sequence[int] = (),
        short: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Choose the columns and their widths."""
        self._titles = [title for title, _ in headers]
        self._is_number = [alignment == "right" for _, alignment in headers]
        self._rows = rows
        self._columns = [[row[index] for row in rows] for index in range(len(headers))]
        natural = self._natural()
        if width is not None and _total(natural) > width and short:
            for index, cells in short.items():
                self._columns[index] = list(cells)
            natural = self._natural()
        self._kept = list(range(len(headers)))
        self._widths = natural
        self.fits = True
        if width is not None and _total(natural) > width:
            self._fit(natural, width, list(optional))
        self.left_out = [self._titles[index] for index in optional if index not in self._kept]

    def _natural(self) -> list[int]:
        titles = map(_width, self._titles)
        return [max([title, *map(_width, cells)]) for title, cells in zip(titles, self._columns, strict=True)]

    def _fit(self, natural: list[int], width: int, optional: list[int]) -> None:
        least = [
            most if is_number else max(min(most, _COMFORT), *(_longest_word(cell) for cell in [title, *cells]))
            for most, is_number, title, cells in zip(natural, self._is_number, self._titles, self._columns, strict=True)
        ]

        def needed(columns: Iterable[int]) -> int:
            return _total([least[index] for index in columns])

        dropped: list[int] = []
        while optional and needed(self._kept) > width:
            dropped.append(optional.pop(0))
            self._kept.remove(dropped[-1])
        for index in reversed(dropped):  # after a wide column is dropped, a narrow column may fit again
            if needed([*self._kept, index]) <= width:
                self._kept = sorted([*self._kept, index])
        free = width - needed(self._kept)
        self.fits = free >= 0
        self._widths = list(least)
        for index in self._kept:
            more = max(0, min(free, natural[index] - least[index]))
            self._widths[index] += more
            free -= more

    def lines(self) -> Iterator[str]:
        """Yield the lines of the titles (`title_lines` lines) and of the rows, without spaces at the ends of lines."""
        yield from self._wrapped(self._titles)
        if all(max(map(_width, self._columns[index]), default=0) <= self._widths[index] for index in self._kept):
            # No cell wraps. For 20,000 rows, `_line` takes a fifth of the time of `_wrapped`.
            yield from map(self._line, zip(*(self._columns[index] for index in self._kept), strict=True))
            return
        for row in zip(*self._columns, strict=True):
            yield from self._wrapped(row)

    @property
    def title_lines(self) -> int:
        """Number of lines of the titles."""
        return len(list(self._wrapped(self._titles)))

    @property
    def line_width(self) -> int:
        """Width of a full line: all columns that are shown and the gaps."""
        return _total([self._widths[index] for index in self._kept])

    def _wrapped(self, row: Row) -> Iterator[str]:
        cells = [wrap(row[index], self._widths[index]) if _width(row[index]) > self._widths[index] else [row[index]]
                 for index in self._kept]  # fmt: skip
        for number in range(max(map(len, cells))):
            yield self._line([cell[number] if number < len(cell) else "" for cell in cells])

    def _line(self, cells: Sequence[str]) -> str:
        parts = []
        for index, cell in zip(self._kept, cells, strict=True):
            blanks = " " * (self._widths[index] - _width(cell))
            parts.append(blanks + cell if self._is_number[index] else cell + blanks)
        return (" " * GAP).join(parts).rstrip()

    def records(self) -> Iterator[list[tuple[str, str]]]:
        """Yield the pairs (title, cell) of each row, also for the columns that are left out."""
        for row in self._rows:
            yield list(zip(self._titles, row, strict=True))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)


def _longest_word(text: str) -> int:
    return max(map(_width, text.split()), default=0)

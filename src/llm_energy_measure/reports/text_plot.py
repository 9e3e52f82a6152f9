"""Draw a figure as text, for terminals: one line as dots of Braille if Unicode is possible, otherwise characters."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from llm_energy_measure.domain import formatting
from llm_energy_measure.reports.labels import readable
from llm_energy_measure.reports.plots import FRONT_NOTE, Axis, Mark, Panel, Plot, Series, thinned
from llm_energy_measure.reports.tables import with_unit

_HEIGHT = 16
_LEAST_WIDTH = 20
_SIGNS = "oxv#+*%@&sdp"
_FAINT = {True: "·", False: "."}
_BAR = {True: "━", False: "-"}
_LABEL_WIDTH = 34
# Bits of the dots of a Braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def text_lines(plot: Plot, width: int, *, is_unicode: bool = True) -> list[str]:
    """Return the lines of a figure.

    Args:
        plot: The figure.
        width: Number of columns of the terminal.
        is_unicode: False if the encoding of the terminal has only ASCII.
    """
    width = max(width, _LEAST_WIDTH * 2)
    lines = [_fitting(readable(plot.title), width)]
    drawn = thinned(plot)
    draw = _rows if plot.x.categories is not None else _grid
    for panel in drawn.panels:
        if panel.title:
            lines += ["", readable(panel.title)]
        lines += draw(drawn, panel, width, is_unicode=is_unicode)
    notes = [readable(note) for note in drawn.notes if note != FRONT_NOTE]
    fronts = [place for panel in drawn.panels for place in panel.front]
    named = [mark.name for mark in drawn.marks() if (mark.x, mark.y) in fronts]
    if named:
        notes.append(f"Pareto front: {'; '.join(map(readable, named))}.")
    return [*lines, *(line for note in notes for line in textwrap.wrap(note, width))]


def _rows(plot: Plot, panel: Panel, width: int, *, is_unicode: bool) -> list[str]:
    """Return one line for each mark of a category: its interval as a bar, its value as a sign and as a number."""
    marks = [(series, mark) for series in panel.series for mark in series.marks if _ends(mark) is not None]
    marks.sort(key=lambda pair: pair[1].x)
    if not marks:
        return ["(no values)"]
    names = [
        readable(" ".join(filter(None, (_category(plot.x, mark), series.name))), _LABEL_WIDTH) for series, mark in marks
    ]
    texts = [_text(panel.y or plot.y, mark) for _, mark in marks]
    label, number = max(map(len, names)), max(map(len, texts))
    room = max(width - label - number - 4, 8)
    greatest = max(ends[1] for _, mark in marks if (ends := _ends(mark)) is not None) or 1.0
    lines = []
    for name, value, (_, mark) in zip(names, texts, marks, strict=True):
        low, high = _ends(mark) or (0.0, 0.0)
        cells = [_FAINT[is_unicode]] * room
        for place in range(_place(low, greatest, room), _place(high, greatest, room) + 1):
            cells[place] = _BAR[is_unicode]
        if mark.y is not None:
            cells[_place(mark.y, greatest, room)] = ">" if mark.is_lower_bound else "o"
        lines.append(f"{name:<{label}}  {''.join(cells)}  {value:>{number}}")
    axis = panel.y or plot.y
    return [*lines, f"{'':<{label}}  0{with_unit(greatest, axis.unit):>{room - 1}}"]


def _category(axis: Axis, mark: Mark) -> str:
    return "" if axis.categories is None else axis.categories[int(mark.x)]


def _ends(mark: Mark) -> tuple[float, float] | None:
    known = [value for value in (mark.y, mark.y_low, mark.y_high) if value is not None and math.isfinite(value)]
    return (max(min(known), 0.0), max(*known, 0.0)) if known else None


def _place(value: float, greatest: float, room: int) -> int:
    return min(max(round(value / greatest * (room - 1)), 0), room - 1)


def _text(axis: Axis, mark: Mark) -> str:
    if mark.is_range:
        return f"{with_unit(mark.y_low, axis.unit)} to {with_unit(mark.y_high, axis.unit)}"
    return ("≥ " if mark.is_lower_bound else "") + with_unit(mark.y, axis.unit)


def _grid(plot: Plot, panel: Panel, width: int, *, is_unicode: bool) -> list[str]:
    """Return a grid with one sign for each series, and the ends of both axes."""
    axis = panel.y or plot.y
    points = [(mark.x, value) for series in panel.series for mark in series.marks for value in _values(mark)]
    if not points:
        return ["(no values)"]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span(
        [0.0, *(y for _, y in points)] if axis.unit.startswith(("J", "W")) else [y for _, y in points]
    )
    bottom, top = _end_texts(y_low, y_high, axis.unit)
    margin = max(len(bottom), len(top))
    room = width - margin - 2
    canvas = _Canvas(room, _HEIGHT, is_unicode=is_unicode and len(panel.series) == 1 and plot.kind == "line")
    for number, series in enumerate(panel.series):
        _paint(
            canvas,
            series,
            _Window(x_low, x_high, y_low, y_high),
            _SIGNS[number % len(_SIGNS)],
            is_line=plot.kind == "line",
        )
    bar = "│" if is_unicode else "|"
    lines = []
    for index, text in enumerate(canvas.lines()):
        label = top if index == 0 else bottom if index == _HEIGHT - 1 else ""
        lines.append(f"{label:>{margin}} {bar}{text}".rstrip())
    left, right = _end_texts(x_low, x_high, plot.x.unit)
    middle = max(room - len(left) - len(right), 1)
    lines.append(f"{'':>{margin}}  {left}{_fitting(plot.x.label, middle):^{middle}}{right}")
    if len(panel.series) > 1:
        lines += [
            f"{'':>{margin}}  {_SIGNS[number % len(_SIGNS)]}  {readable(series.name)}"
            for number, series in enumerate(panel.series)
        ]
    return lines


def _end_texts(low: float, high: float, unit: str) -> tuple[str, str]:
    """Return the texts of both ends of an axis, in one unit."""
    if not unit.startswith(("J", "W")):
        return with_unit(low, unit), with_unit(high, unit)
    divisor, shared = formatting.scale([low, high], unit)
    return f"{formatting.number(low / divisor)} {shared}", f"{formatting.number(high / divisor)} {shared}"


class _Canvas:
    """A grid of characters. Braille has two columns and four rows of dots in each character."""

    def __init__(self, width: int, height: int, *, is_unicode: bool) -> None:
        self.width, self.height, self.is_braille = width, height, is_unicode
        self.columns, self.rows = (width * 2, height * 4) if is_unicode else (width, height)
        self.cells: dict[tuple[int, int], int | str] = {}

    def set(self, x: float, y: float, sign: str) -> None:
        """Set the dot at a position from 0 to 1 in both directions."""
        column, row = round(x * (self.columns - 1)), round((1 - y) * (self.rows - 1))
        if not self.is_braille:
            self.cells[row, column] = sign
            return
        place = (row // 4, column // 2)
        before = self.cells.get(place, 0)
        assert isinstance(before, int)  # noqa: S101 - a Braille canvas has only bits
        self.cells[place] = before | _DOTS[row % 4][column % 2]

    def lines(self) -> list[str]:
        """Return the lines from top to bottom."""

        def character(cell: int | str | None) -> str:
            return " " if cell is None else chr(0x2800 + cell) if isinstance(cell, int) else cell

        return [
            "".join(character(self.cells.get((row, column))) for column in range(self.width))
            for row in range(self.height)
        ]


class _Window(NamedTuple):
    """The ends of both axes."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float


def _paint(canvas: _Canvas, series: Series, window: _Window, sign: str, *, is_line: bool) -> None:
    """Set the dots of a series: its values, its intervals and ranges, and the lines between neighbouring values."""

    def scaled(x: float, y: float) -> tuple[float, float]:
        return (x - window.x_low) / (window.x_high - window.x_low), (y - window.y_low) / (window.y_high - window.y_low)

    before: tuple[float, float] | None = None
    for mark in series.marks:
        values = _values(mark)
        if not values:
            before = None
            continue
        ends = [scaled(mark.x, min(max(value, window.y_low), window.y_high)) for value in (min(values), max(values))]
        _connect(canvas, ends[0], ends[1], sign if is_line else "|")
        if mark.y is not None:
            place = scaled(mark.x, mark.y)
            canvas.set(*place, sign)
            if is_line and before is not None:
                _connect(canvas, before, place, sign)
            before = place


def _connect(canvas: _Canvas, begin: tuple[float, float], end: tuple[float, float], sign: str) -> None:
    steps = max(abs(round((end[0] - begin[0]) * canvas.columns)), abs(round((end[1] - begin[1]) * canvas.rows)), 1)
    for step in range(steps + 1):
        share = step / steps
        canvas.set(begin[0] + (end[0] - begin[0]) * share, begin[1] + (end[1] - begin[1]) * share, sign)


def _values(mark: Mark) -> list[float]:
    return [value for value in (mark.y, mark.y_low, mark.y_high) if value is not None and math.isfinite(value)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _fitting(text: str, width: int) -> str:
    return text if len(text) <= width else readable(text, max(width, 1))

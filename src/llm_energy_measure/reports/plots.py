"""Figures as plain values. `drawing.py` draws a figure, and `data_table` lists the values of a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct, structs

from llm_energy_measure.reports.tables import Cell, Header, Row, Table, limited, with_unit

Kind = Literal["points", "bars", "box", "line", "rows", "stacked"]
"""`rows` has one row for each category, with its name on the left; `stacked` is a bar of parts in each row."""

KINDS: tuple[Kind, ...] = ("points", "bars", "box", "line")
"""The kinds that a user can choose."""

MOST_MARKS = 2_000
"""Greatest number of marks in a series. `thinned` keeps the least and the greatest value of each pixel column."""

MOST_CATEGORIES = 60
FRONT_NOTE = "Dashed line: Pareto front. No configuration is better in both values than a configuration on this line."
_MOST_TABLE_ROWS = 500
_PIXEL_COLUMNS = MOST_MARKS // 2


class Axis(Struct, frozen=True, kw_only=True):
    """One axis.

    Attributes:
        label: Name of the values, without the unit.
        unit: Base unit of the values; empty if they have none.
        categories: The categories, if the values are their indices. None for numbers.
    """

    label: str
    unit: str = ""
    categories: list[str] | None = None


class Mark(Struct, frozen=True, kw_only=True):
    """One value of a series, in base units.

    Attributes:
        x: Position on the first axis: a number, or the index of a category.
        y: The value. None if the records give only a range.
        y_low: Lower end of the interval or of the range. None if there is none.
        y_high: Upper end of the interval or of the range. None if there is none.
        x_low: Lower end of the interval of `x`. None if there is none.
        x_high: Upper end of the interval of `x`. None if there is none.
        is_lower_bound: True if the value is at least `y`.
        repeats: The values of the repeats behind a mean.
        name: Name of the configuration or of the experiment.
        verdict: Verdict on the experiments of the mark.
        target: Id of the row that the mark links to.
    """

    x: float
    y: float | None
    y_low: float | None = None
    y_high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    is_lower_bound: bool = False
    repeats: list[float] = []
    name: str = ""
    verdict: str = ""
    target: str | None = None

    @property
    def is_range(self) -> bool:
        """True if the records give a range and no value."""
        return self.y is None and self.y_low is not None and self.y_high is not None


class Series(Struct, frozen=True, kw_only=True):
    """The marks with one colour and one name."""

    name: str
    marks: list[Mark]


class Panel(Struct, frozen=True, kw_only=True):
    """One part of a figure.

    Attributes:
        title: Title of the part; empty if the figure has only one.
        series: The series.
        front: The Pareto front as positions, from left to right. Empty if it is not drawn.
        y: The second axis of this panel. None if the panel uses the second axis of the figure.
    """

    title: str = ""
    series: list[Series]
    front: list[tuple[float, float]] = []
    y: Axis | None = None


class Plot(Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        name: Id of the figure in the document.
        title: Title.
        description: One or two sentences that say what the figure shows, for readers who do not see it.
        kind: How the marks are drawn.
        x: First axis. For `rows` and `stacked`, the axis has categories, which are drawn from top to bottom.
        y: Second axis.
        panels: At least one panel.
        by: Name of the fact that separates the series; empty if there is only one series.
        notes: Sentences below the figure.
    """

    name: str
    title: str
    description: str
    kind: Kind
    x: Axis
    y: Axis
    panels: list[Panel]
    by: str = ""
    notes: list[str] = []

    def marks(self) -> list[Mark]:
        """Return the marks of all panels."""
        return [mark for panel in self.panels for series in panel.series for mark in series.marks]


def thinned(plot: Plot) -> Plot:
    """Return the figure with at most `MOST_MARKS` marks and repeats in a series, and notes if some are left out."""
    marks = repeats = 0
    panels = []
    for panel in plot.panels:
        series = []
        for one in panel.series:
            kept = _extremes(one.marks) if len(one.marks) > MOST_MARKS else one.marks
            marks += len(one.marks) - len(kept)
            before = sum(len(mark.repeats) for mark in kept)
            if before > MOST_MARKS and plot.kind != "box":  # the quartiles need all repeats
                most = max(MOST_MARKS // len(kept), 2)
                kept = [structs.replace(mark, repeats=_spread(mark.repeats, most)) for mark in kept]
                repeats += before - sum(len(mark.repeats) for mark in kept)
            series.append(structs.replace(one, marks=kept))
        panels.append(structs.replace(panel, series=series))
    notes = list(plot.notes)
    if marks:
        words = f"each of {_PIXEL_COLUMNS:,} pixel columns keeps its least and its greatest value."
        notes.append(f"{marks:,} marks are not drawn: {words}")
    if repeats:
        notes.append(f"{repeats:,} repeats are not drawn; each configuration keeps its least and its greatest repeat.")
    return structs.replace(plot, panels=panels, notes=notes) if marks or repeats else plot


def _spread(values: Sequence[float], most: int) -> list[float]:
    """Return at most `most` of the values: the least, the greatest, and others at equal distances in sorted order."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return list(values)
    return [ordered[round(place * (len(ordered) - 1) / (most - 1))] for place in range(most)]


def _extremes(marks: Sequence[Mark]) -> list[Mark]:
    """Return the marks with the least and the greatest value of each pixel column, in their order."""
    known = [mark for mark in marks if mark.y is not None and math.isfinite(mark.y)]
    if not known:
        return list(marks[:MOST_MARKS])
    least, greatest = min(mark.x for mark in known), max(mark.x for mark in known)
    width = (greatest - least) / _PIXEL_COLUMNS or 1.0
    columns: dict[int, tuple[int, int]] = {}
    for index, mark in enumerate(known):
        column = min(int((mark.x - least) / width), _PIXEL_COLUMNS - 1)
        low, high = columns.get(column, (index, index))
        columns[column] = (
            index if _value(mark) < _value(known[low]) else low,
            index if _value(mark) > _value(known[high]) else high,
        )
    return [known[index] for index in sorted({index for pair in columns.values() for index in pair})]


def _value(mark: Mark) -> float:
    return math.inf if mark.y is None else mark.y


def data_table(plot: Plot) -> Table:
    """Return the values of a figure as a table."""
    marks = plot.marks()
    is_named = plot.x.categories is None and any(mark.name for mark in marks)
    columns: dict[str, tuple[Header, Callable[[Panel, Series, Mark], Cell]]] = {
        "name": (Header("name"), lambda _panel, _series, mark: Cell(mark.name, target=mark.target)),
        "x": (
            Header(plot.x.label, "left" if plot.x.categories is not None else "right"),
            lambda _panel, _series, mark: _position(plot.x, mark),
        ),
        "panel": (Header("part"), lambda panel, _series, _mark: Cell(panel.title)),
        "series": (Header(plot.by or "series"), lambda _panel, series, _mark: Cell(series.name)),
        "y": (Header(plot.y.label, "right"), lambda panel, _series, mark: _value_cell(panel.y or plot.y, mark)),
        "low": (Header("low", "right"), lambda panel, _series, mark: _end_cell(panel.y or plot.y, mark.y_low)),
        "high": (Header("high", "right"), lambda panel, _series, mark: _end_cell(panel.y or plot.y, mark.y_high)),
        "verdict": (Header("verdict"), lambda _panel, _series, mark: Cell(mark.verdict)),
    }
    has_interval = plot.kind != "stacked" and any(mark.y_low is not None for mark in marks)
    is_shown = {
        "name": is_named,
        "panel": len(plot.panels) > 1,
        "series": any(len(panel.series) > 1 for panel in plot.panels),
        "low": has_interval,
        "high": has_interval,
        "verdict": any(mark.verdict for mark in marks),
    }
    shown = [column for name, column in columns.items() if is_shown.get(name, True)]
    rows = [
        Row([cell(panel, series, mark) for _, cell in shown])
        for panel in plot.panels
        for series in panel.series
        for mark in series.marks
    ]
    # In a report, only the figures of power samples have lines.
    advice = "The files samples-process_* in raw/ contain all samples." if plot.kind == "line" else None
    kept, notes = limited(rows, _MOST_TABLE_ROWS, "values", advice)
    headers = [header for header, _ in shown]
    return Table(name=f"{plot.name}-data", caption=f"Data: {plot.title}", headers=headers, rows=kept, notes=notes)


def _value_cell(axis: Axis, mark: Mark) -> Cell:
    sign = "≥ " if mark.is_lower_bound else ""
    return Cell(sign + with_unit(mark.y, axis.unit), mark.y)


def _end_cell(axis: Axis, value: float | None) -> Cell:
    return Cell(with_unit(value, axis.unit), value)


def _position(axis: Axis, mark: Mark) -> Cell:
    if axis.categories is not None:
        return Cell(axis.categories[int(mark.x)], target=mark.target)
    return Cell(with_unit(mark.x, axis.unit), mark.x)


def pareto_front(
    marks: Sequence[Mark], *, is_greater_x_better: bool, is_greater_y_better: bool = False
) -> list[tuple[float, float]]:
    """Return the positions that no other mark improves in both values, sorted by the first value.

    Example:
        >>> marks = [Mark(x=1.0, y=3.0), Mark(x=2.0, y=1.0), Mark(x=3.0, y=2.0)]
        >>> pareto_front(marks, is_greater_x_better=False)
        [(1.0, 3.0), (2.0, 1.0)]
    """
    x_sign, y_sign = (-1 if is_greater_x_better else 1), (-1 if is_greater_y_better else 1)
    known = [(mark.x, mark.y) for mark in marks if mark.y is not None and not mark.is_lower_bound]
    front: list[tuple[float, float]] = []
    for x, y in sorted(known, key=lambda one: (x_sign * one[0], y_sign * one[1])):
        if not front or y_sign * y < y_sign * front[-1][1]:
            front.append((x, y))
    return sorted(front)

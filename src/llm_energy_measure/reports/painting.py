"""Draw the marks of one series: points, bars, boxes, lines, stacks, ranges and lower bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain import formatting
from llm_energy_measure.reports import style
from llm_energy_measure.reports.plots import Axis, Mark, Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MARKERS = 60
"""A line with more values has no markers."""

_RANGE_WIDTH = 5.0
_OFFSET = 0.11


class Scale:
    """Divides the values of an axis by the prefix of their unit, so that the axis has numbers of few digits."""

    def __init__(self, axis: Axis, values: Sequence[float]) -> None:
        """Choose the prefix for finite values in the base unit."""
        self.factor, self.unit = formatting.scale(values, axis.unit) if axis.unit else (1.0, "")
        self.label = f"{axis.label} [{self.unit}]" if self.unit else axis.label

    def __call__(self, value: float | None) -> float:
        """Return a value in the unit of the axis. An unknown value gives NaN, which matplotlib draws as a gap."""
        return math.nan if value is None or not math.isfinite(value) else value / self.factor


class DrawnSeries:
    """A series, its number among the series of a panel, and the number of series."""

    def __init__(self, plot: Plot, series: Series, number: int, of: int) -> None:
        self.kind = plot.kind
        self.name, self.marks = series.name, series.marks
        self.number, self.of = number, of
        self.colour = style.COLOURS[number % len(style.COLOURS)]
        self.marker = style.MARKERS[number % len(style.MARKERS)]
        self.has_categories = plot.x.categories is not None

    def place(self, mark: Mark) -> float:
        """Return the position of a mark. In one category, the marks of the series are next to each other."""
        if not self.has_categories or self.kind in ("rows", "stacked", "line"):
            return mark.x
        return mark.x + (self.number - (self.of - 1) / 2) * 0.8 / self.of


def draw_points(axes: Axes, series: DrawnSeries, scale_x: Scale, scale_y: Scale) -> None:
    """Draw means with their intervals in both directions, the repeats, ranges and lower bounds."""
    is_rows = series.kind == "rows"

    def plot(x: Sequence[float], y: Sequence[float], **settings: Any) -> None:
        axes.plot(*((y, x) if is_rows else (x, y)), **settings)

    def position(mark: Mark) -> float:
        return -mark.x if is_rows else series.place(mark) / scale_x.factor

    _draw_ranges(axes, series, position, scale_y, is_rows=is_rows)
    points = [mark for mark in series.marks if mark.y is not None and not mark.is_lower_bound]
    bars = [mark for mark in points if mark.y_low is not None]
    plot(
        [x for mark in bars for x in (position(mark), position(mark), math.nan)],
        [y for mark in bars for y in (scale_y(mark.y_low), scale_y(mark.y_high), math.nan)],
        color=series.colour,
        linewidth=1.4,
        zorder=3,
    )
    wide = [mark for mark in points if mark.x_low is not None]
    plot(
        [x for mark in wide for x in (scale_x(mark.x_low), scale_x(mark.x_high), math.nan)],
        [y for mark in wide for y in (scale_y(mark.y), scale_y(mark.y), math.nan)],
        color=series.colour,
        linewidth=1.0,
        zorder=3,
    )
    _draw_repeats(axes, series, position, scale_y, is_rows=is_rows)
    _scatter(axes, series, points, position, scale_y, is_rows=is_rows, marker=series.marker, filled=True)


def _draw_ranges(axes: Axes, series: DrawnSeries, position: Any, scale_y: Scale, *, is_rows: bool) -> None:
    """Draw ranges as wide pale bars, and lower bounds as triangles whose base is at the value."""
    ranges = [mark for mark in series.marks if mark.is_range]
    x = [value for mark in ranges for value in (position(mark), position(mark), math.nan)]
    y = [value for mark in ranges for value in (scale_y(mark.y_low), scale_y(mark.y_high), math.nan)]
    colours: dict[str, Any] = {"linewidth": _RANGE_WIDTH, "solid_capstyle": "butt", "zorder": 2.5}
    colours |= {"color": style.FAINT} if series.of == 1 else {"color": series.colour, "alpha": 0.5}
    axes.plot(*((y, x) if is_rows else (x, y)), **colours)
    bounds = [mark for mark in series.marks if mark.is_lower_bound]
    caret = 9 if is_rows else 10  # CARETRIGHTBASE, CARETUPBASE
    _scatter(axes, series, bounds, position, scale_y, is_rows=is_rows, marker=caret, filled=False)


def _scatter(
    axes: Axes,
    series: DrawnSeries,
    marks: Sequence[Mark],
    position: Any,
    scale_y: Scale,
    *,
    is_rows: bool,
    marker: Any,
    filled: bool,
) -> None:
    """Draw marks that link to the rows of their experiments."""
    if not marks:
        return
    # Some markers consist of lines and have no edge; matplotlib warns about `edgecolors` for them.
    colours: dict[str, Any] = {"facecolors": series.colour, "edgecolors": "none"} if filled else {"color": style.FAINT}
    x, y = [position(mark) for mark in marks], [scale_y(mark.y) for mark in marks]
    across, up = (y, x) if is_rows else (x, y)
    drawn = axes.scatter(
        across,
        up,
        s=26,
        marker=marker,
        **colours,
        zorder=4,
    )
    if any(mark.target for mark in marks):
        drawn.set_urls([f"#{mark.target}" if mark.target else None for mark in marks])


def _draw_repeats(axes: Axes, series: DrawnSeries, position: Any, scale_y: Scale, *, is_rows: bool) -> None:
    """Draw each repeat as a small open circle. If the axis has categories, the circles are next to the mark."""
    shift = _OFFSET * 2 if is_rows else _OFFSET / series.of if series.has_categories else 0.0
    x, y = [], []
    for mark in series.marks:
        if len(mark.repeats) > 1:
            x += [position(mark) + shift] * len(mark.repeats)
            y += [scale_y(value) for value in mark.repeats]
    axes.plot(
        *((y, x) if is_rows else (x, y)),
        linestyle="none",
        marker="o",
        markersize=3,
        markerfacecolor="none",
        markeredgecolor=series.colour,
        markeredgewidth=0.7,
        zorder=3.5,
    )


def draw_bars(axes: Axes, series: DrawnSeries, scale_x: Scale, scale_y: Scale) -> None:
    """Draw bars from 0 with their intervals. A range or a lower bound has no bar from 0."""
    marks = [mark for mark in series.marks if mark.y is not None and not mark.is_lower_bound]
    width = 0.8 / series.of if series.has_categories else _bar_width(series, scale_x)
    axes.bar(
        [_place(series, mark, scale_x, width) for mark in marks],
        [scale_y(mark.y) for mark in marks],
        width=width * 0.92,
        color=series.colour,
        linewidth=0,
        zorder=2,
    )
    bars = [mark for mark in marks if mark.y_low is not None]
    axes.plot(
        [x for mark in bars for x in (*(_place(series, mark, scale_x, width),) * 2, math.nan)],
        [y for mark in bars for y in (scale_y(mark.y_low), scale_y(mark.y_high), math.nan)],
        color=style.INK,
        linewidth=1.1,
        zorder=3,
    )
    _draw_ranges(axes, series, lambda mark: _place(series, mark, scale_x, width), scale_y, is_rows=False)


def _bar_width(series: DrawnSeries, scale_x: Scale) -> float:
    """Return the width of bars at numbers: 0.8 of the least distance of positions, divided by the number of series."""
    places = sorted({scale_x(mark.x) for mark in series.marks})
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    return (min(steps) if steps else 1.0) * 0.8 / series.of


def _place(series: DrawnSeries, mark: Mark, scale_x: Scale, width: float) -> float:
    if series.has_categories:
        return series.place(mark)
    return scale_x(mark.x) + (series.number - (series.of - 1) / 2) * width


def draw_boxes(axes: Axes, series: DrawnSeries, scale_x: Scale, scale_y: Scale) -> None:
    """Draw quartiles, and each repeat as a point. Fewer than five repeats have only their points."""
    width = 0.8 / series.of if series.has_categories else _bar_width(series, scale_x)
    for mark in series.marks:
        if len(mark.repeats) >= 5:
            axes.boxplot(
                [[scale_y(value) for value in mark.repeats]],
                positions=[_place(series, mark, scale_x, width)],
                widths=width * 0.6,
                showfliers=False,
                manage_ticks=False,
                boxprops={"color": series.colour},
                whiskerprops={"color": series.colour},
                capprops={"color": series.colour},
                medianprops={"color": style.INK},
            )
    axes.plot(
        [_place(series, mark, scale_x, width) for mark in series.marks for _ in mark.repeats],
        [scale_y(value) for mark in series.marks for value in mark.repeats],
        linestyle="none",
        marker=series.marker,
        markersize=4,
        markerfacecolor="none",
        markeredgecolor=series.colour,
        zorder=3,
    )
    _draw_ranges(axes, series, lambda mark: _place(series, mark, scale_x, width), scale_y, is_rows=False)


def draw_line(axes: Axes, series: DrawnSeries, scale_x: Scale, scale_y: Scale) -> None:
    """Draw a line through the means, and a band for their intervals. An unknown value is a gap."""
    marks = [mark for mark in series.marks if not mark.is_range and not mark.is_lower_bound]
    x, y = [mark.x / scale_x.factor for mark in marks], [scale_y(mark.y) for mark in marks]
    is_dense = len(marks) > MOST_MARKERS
    axes.plot(x, y, color=series.colour, marker=None if is_dense else series.marker, zorder=3)
    if any(mark.y_low is not None for mark in marks):
        low, high = ([scale_y(getattr(mark, name)) for mark in marks] for name in ("y_low", "y_high"))
        axes.fill_between(x, low, high, color=series.colour, alpha=0.2, linewidth=0, zorder=2)
    _draw_ranges(axes, series, lambda mark: mark.x / scale_x.factor, scale_y, is_rows=False)


def draw_stack(axes: Axes, series: DrawnSeries, _scale_x: Scale, scale_y: Scale) -> None:
    """Draw the parts of each row from left to right; `y_low` is where a part begins."""
    marks = [mark for mark in series.marks if mark.y]
    axes.barh(
        [-mark.x for mark in marks],
        [scale_y(mark.y) for mark in marks],
        left=[scale_y(mark.y_low or 0.0) for mark in marks],
        height=0.62,
        color=style.PARTS.get(series.name, series.colour),
        linewidth=0,
        zorder=2,
    )

"""Draw a figure with matplotlib, in the style of `style`. matplotlib is imported here only when a figure is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain import formatting
from llm_energy_measure.exceptions import MissingExtraError
from llm_energy_measure.reports import style
from llm_energy_measure.reports.labels import for_matplotlib
from llm_energy_measure.reports.plots import Axis, Mark, Panel, Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_CM = 0.62
_GOLDEN_RATIO = 1.618
_MOST_COLUMNS = 3
_LEAST_PANEL_CM = 5.0
_LEAST_PANEL_INCHES = 1.7
_LABELS_INCHES = 0.9
_LEGEND_ROW_INCHES = 0.17
_MOST_LEGEND_COLUMNS = 4
_CHARACTER_INCHES = 0.065
_SLANTED_INCHES = 0.035
_MOST_TICK_CHARACTERS = 48
_MOST_MARKERS = 60
_RANGE_WIDTH = 5.0
_OFFSET = 0.11


class Scale:
    """Divides the values of an axis by the prefix of their unit, so that the axis has numbers of few digits."""

    def __init__(self, axis: Axis, values: Sequence[float]) -> None:
        """Choose the prefix for finite values in the base unit."""
        self.factor, self.unit = formatting.scale(values, axis.unit) if axis.unit else (1.0, "")
        self.label = f"{axis.label} [{self.unit}]" if self.unit else axis.label

    def __call__(self, value: float | None) -> float:
        """Return a value in the unit of the axis; NaN, which matplotlib draws as a gap, if it is unknown."""
        return math.nan if value is None or not math.isfinite(value) else value / self.factor


@contextmanager
def styled(size: style.Size) -> Iterator[None]:
    """Use the style of a figure until the block ends.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    import logging
    import warnings

    try:
        import matplotlib as mpl
    except ImportError as error:
        raise missing("matplotlib") from error
    fonts = logging.getLogger("fontTools")
    fonts.setLevel(logging.ERROR)  # it warns about the dates in the fonts that matplotlib contains
    settings: Any = style.settings_of(size)  # matplotlib types its keys as literals
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A label may have a character that the font lacks. The figure shows a box in its place.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        warnings.filterwarnings("ignore", message="cmr10 font should ideally be used with mathtext")
        yield


def missing(package: str) -> MissingExtraError:
    """Return the error about a package that is not installed."""
    advice = f"run: pip install {EXTRA_PACKAGES['report']}"
    return MissingExtraError("cannot draw a figure", f"the package {package} is not installed", advice)


def draw(plot: Plot, size: style.Size) -> Figure:
    """Return the drawn figure. Use it inside `styled`, which the caller also needs to save it."""
    from matplotlib.figure import Figure

    width = size.width_cm / style.CM_PER_INCH
    columns = 1
    if not _is_horizontal(plot) and all(panel.y is None for panel in plot.panels):
        columns = min(_MOST_COLUMNS, len(plot.panels), max(int(size.width_cm / _LEAST_PANEL_CM), 1))
    rows = math.ceil(len(plot.panels) / columns)
    figure = Figure(figsize=(width, _height(plot, width, columns, rows)), layout="constrained")
    is_shared = all(panel.y is None for panel in plot.panels)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=is_shared)
    places = list(grid.flat)
    for axes, panel in zip(places, plot.panels, strict=False):
        _paint_panel(axes, plot, panel)
    for axes in places[len(plot.panels) :]:
        axes.set_visible(False)
    # Panels can share their axes, and an axis with limits ignores later values.
    for axes, panel in zip(places, plot.panels, strict=False):
        _label(axes, plot, panel, is_alone=len(plot.panels) == 1)
        _set_limits(axes, plot, panel)
    if len(plot.panels) > 1:
        _label_figure(figure, plot)
    _add_legend(figure, plot)
    return figure


def _is_horizontal(plot: Plot) -> bool:
    return plot.kind in ("rows", "stacked")


def _height(plot: Plot, width: float, columns: int, rows: int) -> float:
    """Return the height of a figure, in inches."""
    if _is_horizontal(plot):
        return (len(plot.x.categories or ()) * _ROW_CM + 1.9) / style.CM_PER_INCH
    panel = max(width / columns / _GOLDEN_RATIO, _LEAST_PANEL_INCHES)
    base = panel if rows == columns == 1 else 0.85 * panel * rows + _LABELS_INCHES
    names = plot.panels[0].series if len(plot.panels[0].series) > 1 else []
    legend_rows = math.ceil(len(names) / _legend_columns([series.name for series in names], width)) if names else 0
    ticks = [for_matplotlib(name) for name in plot.x.categories or ()]
    slanted = max(map(len, ticks)) * _SLANTED_INCHES * rows if _are_slanted(ticks) else 0.0
    return base + max(legend_rows - 2, 0) * _LEGEND_ROW_INCHES + slanted


def _legend_columns(names: Sequence[str], width: float) -> int:
    """Return the number of columns of a legend that fits the width, in inches."""
    longest = max((len(for_matplotlib(name)) for name in names), default=0)
    return max(1, min(len(names), _MOST_LEGEND_COLUMNS, int(width / ((longest + 5) * _CHARACTER_INCHES))))


def _are_slanted(names: Sequence[str]) -> bool:
    """Return True if the names of categories are too long to stand side by side."""
    return sum(map(len, names)) > _MOST_TICK_CHARACTERS


def draw_panel(axes: Axes, plot: Plot, panel: Panel) -> None:
    """Draw one panel of a figure on axes of the caller."""
    _paint_panel(axes, plot, panel)
    _label(axes, plot, panel, is_alone=True)
    _set_limits(axes, plot, panel)
    handles, names = _legend(plot)
    if handles:
        axes.legend(handles, names, title=for_matplotlib(plot.by) or None)


def _paint_panel(axes: Axes, plot: Plot, panel: Panel) -> None:
    scale_x, scale_y = _scales(plot, panel)
    painter = {"bars": _draw_bars, "box": _draw_boxes, "line": _draw_line, "stacked": _draw_stack}.get(
        plot.kind, _draw_points
    )
    for number, series in enumerate(panel.series):
        painter(axes, _Series(plot, series, number, len(panel.series)), scale_x, scale_y)
    if panel.front:
        front = [(scale_x(x), scale_y(y)) for x, y in panel.front]
        axes.plot(*zip(*front, strict=True), color=style.INK, linestyle="--", linewidth=1, zorder=2)


class _Series:
    """A series with its place among the others."""

    def __init__(self, plot: Plot, series: Series, number: int, of: int) -> None:
        self.kind = plot.kind
        self.name, self.marks = series.name, series.marks
        self.number, self.of = number, of
        self.colour = style.COLOURS[number % len(style.COLOURS)]
        self.marker = style.MARKERS[number % len(style.MARKERS)]
        self.has_categories = plot.x.categories is not None

    def place(self, mark: Mark) -> float:
        """Return the position of a mark. Series share a category side by side."""
        if not self.has_categories or self.kind in ("rows", "stacked", "line"):
            return mark.x
        return mark.x + (self.number - (self.of - 1) / 2) * 0.8 / self.of


def _scales(plot: Plot, panel: Panel) -> tuple[Scale, Scale]:
    """Return the scales of both axes. Panels with the axis of the figure share its prefix."""
    marks = plot.marks() if panel.y is None else [mark for series in panel.series for mark in series.marks]
    values = [value for mark in marks for value in (mark.y, mark.y_high) if value is not None and math.isfinite(value)]
    return Scale(plot.x, [mark.x for mark in marks if math.isfinite(mark.x)]), Scale(panel.y or plot.y, values)


def _draw_points(axes: Axes, series: _Series, scale_x: Scale, scale_y: Scale) -> None:
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


def _draw_ranges(axes: Axes, series: _Series, position: Any, scale_y: Scale, *, is_rows: bool) -> None:
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
    series: _Series,
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
    # matplotlib warns about the edge of a marker that has none.
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


def _draw_repeats(axes: Axes, series: _Series, position: Any, scale_y: Scale, *, is_rows: bool) -> None:
    """Draw each repeat as a small open circle. Those of a category are next to its mark."""
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


def _draw_bars(axes: Axes, series: _Series, scale_x: Scale, scale_y: Scale) -> None:
    marks = [mark for mark in series.marks if mark.y is not None]
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


def _bar_width(series: _Series, scale_x: Scale) -> float:
    """Return the width of bars at numbers: 0.8 of the least distance, divided between the series."""
    places = sorted({scale_x(mark.x) for mark in series.marks})
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    return (min(steps) if steps else 1.0) * 0.8 / series.of


def _place(series: _Series, mark: Mark, scale_x: Scale, width: float) -> float:
    if series.has_categories:
        return series.place(mark)
    return scale_x(mark.x) + (series.number - (series.of - 1) / 2) * width


def _draw_boxes(axes: Axes, series: _Series, scale_x: Scale, scale_y: Scale) -> None:
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


def _draw_line(axes: Axes, series: _Series, scale_x: Scale, scale_y: Scale) -> None:
    marks = [mark for mark in series.marks if not mark.is_range and not mark.is_lower_bound]
    x, y = [mark.x / scale_x.factor for mark in marks], [scale_y(mark.y) for mark in marks]
    is_dense = len(marks) > _MOST_MARKERS
    axes.plot(x, y, color=series.colour, marker=None if is_dense else series.marker, zorder=3)
    if any(mark.y_low is not None for mark in marks):
        low, high = ([scale_y(getattr(mark, name)) for mark in marks] for name in ("y_low", "y_high"))
        axes.fill_between(x, low, high, color=series.colour, alpha=0.2, linewidth=0, zorder=2)
    _draw_ranges(axes, series, lambda mark: mark.x / scale_x.factor, scale_y, is_rows=False)


def _draw_stack(axes: Axes, series: _Series, _scale_x: Scale, scale_y: Scale) -> None:
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


def _label(axes: Axes, plot: Plot, panel: Panel, *, is_alone: bool) -> None:
    """Set the title of a panel, and its labels if no label of the whole figure replaces them."""
    scale_x, scale_y = _scales(plot, panel)
    names = None if plot.x.categories is None else [for_matplotlib(name) for name in plot.x.categories]
    if panel.title:
        axes.set_title(for_matplotlib(panel.title), loc="left")
    if _is_horizontal(plot):
        axes.set_xlabel(for_matplotlib(scale_y.label))
        axes.set_yticks([-float(index) for index in range(len(names or ()))], names or [])
        axes.grid(visible=False, axis="y")
        return
    if is_alone:
        axes.set_xlabel(for_matplotlib(scale_x.label))
    if is_alone or panel.y is not None:
        axes.set_ylabel(for_matplotlib(scale_y.label))
    if names is not None:
        is_long = _are_slanted(names)
        axes.set_xticks(range(len(names)), names, rotation=30 if is_long else 0, ha="right" if is_long else "center")


def _label_figure(figure: Figure, plot: Plot) -> None:
    """Set the labels that the panels share."""
    scale_x, scale_y = _scales(plot, plot.panels[0])
    figure.supxlabel(for_matplotlib(scale_x.label), fontsize="medium")
    if all(panel.y is None for panel in plot.panels):
        figure.supylabel(for_matplotlib(scale_y.label), fontsize="medium")


def _set_limits(axes: Axes, plot: Plot, panel: Panel) -> None:
    """Begin an axis at 0 if only the ends of intervals are below 0: no energy and no time is negative."""
    categories = plot.x.categories
    marks = plot.marks()
    if _is_horizontal(plot):
        axes.set_ylim(-len(categories or ()) + 0.4, 0.6)
        axes.set_xlim(left=0)
        return
    is_negative = axes.get_ylim()[0] < 0 and all((mark.y or 0.0) >= 0 for mark in marks)
    if is_negative or plot.kind == "bars" or panel.y is not None:
        axes.set_ylim(bottom=0)
    if categories is not None:
        axes.set_xlim(-0.6, len(categories) - 0.4)
    elif axes.get_xlim()[0] < 0 and all(mark.x >= 0 for mark in marks):
        axes.set_xlim(left=0)


def _add_legend(figure: Figure, plot: Plot) -> None:
    """Add a legend above the panels, if there are several series."""
    handles, names = _legend(plot)
    if handles:
        columns = _legend_columns(names, figure.get_figwidth())
        title = for_matplotlib(plot.by) or None
        figure.legend(handles, names, title=title, loc="outside upper right", ncols=columns)


def _legend(plot: Plot) -> tuple[list[Any], list[str]]:
    """Return the handles and the names of the series; empty if there is only one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [series.name for series in plot.panels[0].series]
    if len(names) < 2:
        return [], []
    handles: list[Any] = []
    for number, name in enumerate(names):
        colour = style.COLOURS[number % len(style.COLOURS)]
        if plot.kind in ("stacked", "bars"):
            handles.append(Patch(color=style.PARTS.get(name, colour) if plot.kind == "stacked" else colour))
        else:
            line: Any = "-" if plot.kind == "line" else "none"
            is_dense = plot.kind == "line" and len(plot.marks()) > _MOST_MARKERS * len(names)
            marker = None if is_dense else style.MARKERS[number]
            handles.append(Line2D([], [], color=colour, linestyle=line, marker=marker))
    return handles, [for_matplotlib(name) for name in names]

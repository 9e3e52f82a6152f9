"""Draw a figure with matplotlib, with the settings of `style.py`. The functions import matplotlib when they run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.exceptions import MissingExtraError
from llm_energy_measure.reports import painting, style
from llm_energy_measure.reports.labels import for_matplotlib, in_two_lines
from llm_energy_measure.reports.painting import Scale
from llm_energy_measure.reports.plots import Panel, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_CM = 0.62
_TWO_LINES_CM = 0.9
_GOLDEN_RATIO = 1.618
_MOST_COLUMNS = 3
_NOTEBOOK_CM = 13.0
_LEAST_PANEL_CM = 5.0
_LEAST_PANEL_INCHES = 1.7
_LABELS_INCHES = 0.9
_LEGEND_ROW_INCHES = 0.17
_MOST_LEGEND_COLUMNS = 4
_CHARACTER_INCHES = 0.065
_SLANTED_INCHES = 0.035
_MOST_TICK_CHARACTERS = 48


@contextmanager
def styled(size: style.Size) -> Iterator[None]:
    """Apply the style of a figure inside a `with` block.

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
    fonts.setLevel(logging.ERROR)  # fontTools warns about the dates in the fonts of matplotlib
    settings: Any = style.settings_of(size)  # the type hints of matplotlib accept only literal keys
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
    """Return the drawn figure. Call `draw` and save the figure in one `with styled(size)` block."""
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
    # The limits come after the marks of all panels: panels can share an axis, and an axis with limits ignores later
    # values.
    for axes, panel in zip(places, plot.panels, strict=False):
        _label(axes, plot, panel, is_alone=len(plot.panels) == 1)
        _set_limits(axes, plot, panel)
    if len(plot.panels) > 1:
        _label_figure(figure, plot)
    _add_legend(figure, plot)
    if size.purpose == "paper":
        _choose_font(figure)
    return figure


def _choose_font(figure: Figure) -> None:
    """Use another font for the whole figure if Computer Modern does not draw all characters of its texts."""
    import matplotlib as mpl
    from matplotlib.text import Text

    texts: Any = figure.findobj(Text)
    if not set().union(*(text.get_text().replace(r"\$", "$") for text in texts)) <= style.COMPUTER_MODERN:
        mpl.rcParams.update(style.ALL_CHARACTERS)


def axes_of(plot: Plot, axes: Axes | None = None) -> Axes:
    """Draw a figure of one panel on axes of pyplot, and return these axes.

    Args:
        plot: The figure.
        axes: The axes. None creates a figure of pyplot, which a notebook shows.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    size = style.Size(width_cm=_NOTEBOOK_CM)
    with styled(size):
        if axes is None:
            import matplotlib.pyplot as plt

            width = size.width_cm / style.CM_PER_INCH
            _, axes = plt.subplots(figsize=(width, _height(plot, width, 1, 1)), layout="constrained")
        draw_panel(axes, plot, plot.panels[0])
    return axes


def _is_horizontal(plot: Plot) -> bool:
    return plot.kind in ("rows", "stacked")


def _height(plot: Plot, width: float, columns: int, rows: int) -> float:
    """Return the height of a figure, in inches."""
    if _is_horizontal(plot):
        names = [in_two_lines(name) for name in plot.x.categories or ()]
        row_cm = _TWO_LINES_CM if any("\n" in name for name in names) else _ROW_CM
        return (len(names) * row_cm + 1.9) / style.CM_PER_INCH
    panel = max(width / columns / _GOLDEN_RATIO, _LEAST_PANEL_INCHES)
    base = panel if rows == columns == 1 else 0.85 * panel * rows + _LABELS_INCHES
    series = [one.name for one in plot.panels[0].series]
    legend_rows = math.ceil(len(series) / _legend_columns(series, width)) if len(series) > 1 else 0
    ticks = [for_matplotlib(name) for name in plot.x.categories or ()]
    slanted = max(map(len, ticks)) * _SLANTED_INCHES * rows if _are_slanted(ticks) else 0.0
    return base + max(legend_rows - 2, 0) * _LEGEND_ROW_INCHES + slanted


def _legend_columns(names: Sequence[str], width: float) -> int:
    """Return the number of columns of a legend in a figure of this width, in inches."""
    longest = max((len(for_matplotlib(name)) for name in names), default=0)
    return max(1, min(len(names), _MOST_LEGEND_COLUMNS, int(width / ((longest + 5) * _CHARACTER_INCHES))))


def _are_slanted(names: Sequence[str]) -> bool:
    """Return True if the names of categories are too long for horizontal labels, so that the labels are slanted."""
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
    painter = {
        "bars": painting.draw_bars,
        "box": painting.draw_boxes,
        "line": painting.draw_line,
        "stacked": painting.draw_stack,
    }.get(plot.kind, painting.draw_points)
    for number, series in enumerate(panel.series):
        painter(axes, painting.DrawnSeries(plot, series, number, len(panel.series)), scale_x, scale_y)
    if panel.front:
        front = [(scale_x(x), scale_y(y)) for x, y in panel.front]
        axes.plot(*zip(*front, strict=True), color=style.INK, linestyle="--", linewidth=1, zorder=2)


def _scales(plot: Plot, panel: Panel) -> tuple[Scale, Scale]:
    """Return the scales of both axes. Panels without their own second axis share one unit prefix."""
    marks = plot.marks() if panel.y is None else [mark for series in panel.series for mark in series.marks]
    values = [value for mark in marks for value in (mark.y, mark.y_high) if value is not None and math.isfinite(value)]
    return Scale(plot.x, [mark.x for mark in marks if math.isfinite(mark.x)]), Scale(panel.y or plot.y, values)


def _label(axes: Axes, plot: Plot, panel: Panel, *, is_alone: bool) -> None:
    """Set the title of a panel, and the labels of its axes if `_label_figure` does not set them."""
    scale_x, scale_y = _scales(plot, panel)
    names = None if plot.x.categories is None else [for_matplotlib(name) for name in plot.x.categories]
    if panel.title:
        axes.set_title(for_matplotlib(panel.title), loc="left")
    if _is_horizontal(plot):
        axes.set_xlabel(for_matplotlib(scale_y.label))
        rows = [in_two_lines(name) for name in plot.x.categories or ()]
        axes.set_yticks([-float(index) for index in range(len(rows))], rows)
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
    """Set the axis labels that all panels share."""
    scale_x, scale_y = _scales(plot, plot.panels[0])
    figure.supxlabel(for_matplotlib(scale_x.label), fontsize="medium")
    if all(panel.y is None for panel in plot.panels):
        figure.supylabel(for_matplotlib(scale_y.label), fontsize="medium")


def _set_limits(axes: Axes, plot: Plot, panel: Panel) -> None:
    """Set the limits. An axis begins at 0 if only ends of intervals are negative: energies and times are at least 0."""
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
    """Add the legend above the panels, if the figure needs one."""
    handles, names = _legend(plot)
    if handles:
        columns = _legend_columns(names, figure.get_figwidth())
        title = for_matplotlib(plot.by) or None
        figure.legend(handles, names, title=title, loc="outside upper right", ncols=columns)


def _legend(plot: Plot) -> tuple[list[Any], list[str]]:
    """Return the handles and the names of the series. Both are empty for one series, unless the figure is stacked."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [series.name for series in plot.panels[0].series]
    if len(names) < 2 and plot.kind != "stacked":
        return [], []
    handles: list[Any] = []
    for number, name in enumerate(names):
        colour = style.COLOURS[number % len(style.COLOURS)]
        if plot.kind in ("stacked", "bars"):
            handles.append(Patch(color=style.PARTS.get(name, colour) if plot.kind == "stacked" else colour))
        else:
            line: Any = "-" if plot.kind == "line" else "none"
            is_dense = plot.kind == "line" and len(plot.marks()) > painting.MOST_MARKERS * len(names)
            marker = None if is_dense else style.MARKERS[number]
            handles.append(Line2D([], [], color=colour, linestyle=line, marker=marker))
    return handles, [for_matplotlib(name) for name in names]

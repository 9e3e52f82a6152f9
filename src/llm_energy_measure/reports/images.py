"""Encode a figure as SVG, PDF or PNG. Equal figures give equal bytes: no date, no version, and stable ids."""

from __future__ import annotations

import io
from typing import Any

from llm_energy_measure.reports.drawing import draw, styled
from llm_energy_measure.reports.labels import readable
from llm_energy_measure.reports.plots import Plot, thinned
from llm_energy_measure.reports.style import Size
from llm_energy_measure.reports.svg import for_page
from llm_energy_measure.reports.tables import with_unit

FORMATS = {".pdf": "pdf", ".svg": "svg", ".png": "png"}
"""Format by suffix."""

_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_REPORT_SIZE = Size(width_cm=19.0, purpose="report")


def encode_image(plot: Plot, size: Size, form: str) -> bytes:
    """Return a figure in a format: `svg`, `pdf` or `png`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    buffer = io.BytesIO()
    with styled(size):
        draw(thinned(plot), size).savefig(buffer, format=form, metadata=_METADATA[form])
    return buffer.getvalue()


def page_svg(plot: Plot) -> str:
    """Return a figure as an SVG element for a page. The caller limits the marks with `thinned`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    svg = encode_image(plot, _REPORT_SIZE, "svg").decode()
    tooltips = {
        mark.target: readable(", ".join(filter(None, (mark.name, _value(plot, mark.y), mark.verdict))))
        for mark in plot.marks()
        if mark.target is not None
    }
    return for_page(svg, plot.name, readable(plot.title), readable(plot.description), tooltips=tooltips)


def _value(plot: Plot, value: float | None) -> str:
    return "" if value is None else with_unit(value, plot.y.unit)

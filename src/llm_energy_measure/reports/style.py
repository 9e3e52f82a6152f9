"""The style of all figures: widths, fonts, colours and markers."""

from __future__ import annotations

import re
import string
from typing import Any, Literal

from msgspec import Struct

from llm_energy_measure.exceptions import ConfigurationError

CM_PER_INCH = 2.54

WIDTHS_CM = {"single": 8.8, "double": 18.1}
"""Widths of one and of two columns. Sources: guides for authors of IEEE (8.89, 18.2 cm) and Nature (8.8, 18 cm)."""

_LEAST_CM, _GREATEST_CM = 4.0, 60.0

INK = "#1d2126"
"""Colour of text and axes. In a report, the SVG has `currentColor` in its place, so that text follows the theme."""

FAINT = "#80868c"
"""Colour of grids and ranges, with a contrast of at least 3 to white and to the dark theme."""

COLOURS = ("#0072b2", "#d55e00", "#00875f", "#b0559b", "#8c6d00", "#64748b")
"""Colours that colour-blind readers distinguish, in the order of the series. Each series has a different marker too.

Each colour has a contrast of at least 3 to white and to the dark theme. Source: M. Okabe and K. Ito, "Color Universal
Design" (2002), with green, purple and yellow darkened.
"""

MARKERS = ("o", "s", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d")

MOST_SERIES = len(MARKERS)

PARTS = {"GPU": COLOURS[0], "CPU": COLOURS[1], "RAM": COLOURS[2], "not attributed": FAINT}
"""Colour of each component of the energy."""

COMPUTER_MODERN = frozenset(string.ascii_letters + string.digits + string.whitespace + "!#$%&()*+,-./:;=?@[]'")
"""Characters that the font of LaTeX in matplotlib (cmr10) draws correctly. cmr10 draws `_` as a dot, and `<` as `¡`."""

ALL_CHARACTERS: Any = {"font.serif": ["STIXGeneral"], "mathtext.fontset": "stix"}
"""Settings of a paper figure with characters that cmr10 lacks: a similar font for the whole figure."""

Purpose = Literal["report", "paper"]


class Size(Struct, frozen=True, kw_only=True):
    """Width and purpose of a figure.

    Attributes:
        width_cm: Width in centimetres.
        purpose: A figure for a paper has the fonts of LaTeX. A figure of a report has a sans-serif font.
    """

    width_cm: float
    purpose: Purpose = "paper"


def size_of(text: str) -> Size:
    """Return the size of a width: `single`, `double` or centimetres.

    Raises:
        ConfigurationError: The text is not a width from 4 to 60 cm.
    """
    if text in WIDTHS_CM:
        return Size(width_cm=WIDTHS_CM[text])
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?(?:cm)?", text.strip())
    width_cm = float(match[1]) if match else 0.0
    if not _LEAST_CM <= width_cm <= _GREATEST_CM:
        found = f"it is not a width from {_LEAST_CM:g} to {_GREATEST_CM:g} cm"
        advice = "use single, double, or a number of centimetres"
        raise ConfigurationError(f"cannot use the width {text[:40]!r}", found, advice)
    return Size(width_cm=width_cm)


def settings_of(size: Size) -> dict[str, Any]:
    """Return the settings of matplotlib for a figure."""
    is_paper = size.purpose == "paper"
    points = 8.0 if is_paper else 10.0
    return {
        "font.family": "serif" if is_paper else "sans-serif",
        "font.serif": ["cmr10"],  # Computer Modern is the font of LaTeX; see ALL_CHARACTERS for other characters
        "font.sans-serif": ["DejaVu Sans"],
        "mathtext.fontset": "cm" if is_paper else "dejavusans",
        "axes.formatter.use_mathtext": is_paper,
        "axes.unicode_minus": not is_paper,  # cmr10 has no minus sign in Unicode
        "font.size": points,
        "axes.titlesize": points,
        "axes.labelsize": points,
        "xtick.labelsize": points - 1,
        "ytick.labelsize": points - 1,
        "legend.fontsize": points - 1,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 5,
        "legend.frameon": False,
        "legend.handlelength": 1.5,
        "legend.handletextpad": 0.5,
        "legend.columnspacing": 1.4,
        "figure.facecolor": "none" if not is_paper else "white",
        "axes.facecolor": "none",
        "savefig.facecolor": "auto",
        "figure.dpi": 100,
        "savefig.dpi": 300,
        "path.simplify": True,
        "svg.fonttype": "path" if is_paper else "none",
        "svg.hashsalt": "llm-energy-measure",
        "pdf.fonttype": 42,  # publishers refuse Type 3 fonts
        "text.usetex": False,
    }

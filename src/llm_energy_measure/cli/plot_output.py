"""Print a figure in the terminal."""

from __future__ import annotations

import shutil

from llm_energy_measure.cli import encoding, terminal
from llm_energy_measure.reports.plots import Plot
from llm_energy_measure.reports.text_plot import text_lines


def print_figure(plot: Plot) -> None:
    """Print a figure that fits the terminal."""
    columns = shutil.get_terminal_size().columns
    for line in text_lines(plot, columns, is_unicode=encoding.is_unicode()):
        terminal.print_line(line)

"""The option `--energy`, and the footnote of tables with energies; `analysis.energies` has the values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from llm_energy_measure.analysis.energies import (
    CORRECTED,
    CORRECTED_NOTE,
    NOTES,
    Energy,
    EnergyKind,
    energy_of,
    energy_of_group,
)
from llm_energy_measure.cli import terminal

__all__ = [
    "CORRECTED",
    "CORRECTED_NOTE",
    "Energy",
    "EnergyKind",
    "energy_of",
    "energy_of_group",
    "energy_option",
    "print_footnote",
]

FunctionT = TypeVar("FunctionT", bound="Callable[..., object]")


def energy_option(function: FunctionT) -> FunctionT:
    """Add the option `--energy`."""
    return click.option(
        "--energy",
        "kind",
        type=click.Choice(["attributed", "plain"]),
        default="attributed",
        show_default=True,
        help="Show the attributed energy, which counts each joule once, or the plain sums over processes.",
    )(function)


def print_footnote(energies: Iterable[Energy]) -> None:
    """Print one line that explains the signs of corrected and undetermined energies, if there are any."""
    signs = {cell[0] for energy in energies if (cell := energy.cell())}
    notes = [note for sign, note in NOTES.items() if sign in signs]
    if notes:
        terminal.print_line(f"{'; '.join(notes)}; --energy plain shows the plain sums")

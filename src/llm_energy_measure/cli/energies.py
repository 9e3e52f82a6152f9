"""The options `--energy` and `--unit`, and the footnote of tables with energies."""

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
    require_unit,
)
from llm_energy_measure.cli import formatting, terminal
from llm_energy_measure.domain.units import ENERGY_UNITS

__all__ = [
    "CORRECTED",
    "CORRECTED_NOTE",
    "Energy",
    "EnergyKind",
    "energy_of",
    "energy_of_group",
    "energy_option",
    "print_footnote",
    "require_unit_fits",
    "scale_of",
    "unit_option",
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


def unit_option(function: FunctionT) -> FunctionT:
    """Add the option `--unit`."""
    return click.option(
        "--unit",
        type=click.Choice(list(ENERGY_UNITS)),
        help="Show energies and energies per token in this unit. [default: one unit with a fitting prefix for each "
        "column]",
    )(function)


def require_unit_fits(unit: str | None, metrics: Iterable[str]) -> None:
    """Raise `click.BadParameter` for `--unit` if none of the metrics is an energy."""
    # Other commands do not need these imports.
    from llm_energy_measure.analysis.observations import METRICS
    from llm_energy_measure.cli.options import usage_errors

    with usage_errors("--unit"):
        require_unit(unit, [METRICS[metric].unit for metric in metrics])


def scale_of(shown: Iterable[Energy], unit: str | None) -> tuple[float, str]:
    """Return the divisor and the unit of a column of energies; see `formatting.energy_scale`."""
    return formatting.energy_scale([one.shown_j for one in shown], unit)


def print_footnote(energies: Iterable[Energy]) -> None:
    """Print one line that explains the signs in the table. Print no line if no energy has a sign."""
    signs = {cell[0] for energy in energies if (cell := energy.cell())}
    notes = [note for sign, note in NOTES.items() if sign in signs]
    if notes:
        terminal.print_text(f"{'; '.join(notes)}; --energy plain shows the plain sums")

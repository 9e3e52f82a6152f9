"""The energies that tables show: attributed (each joule counted once) or plain sums, with their signs.

`*` marks a corrected energy, `≤` an upper bound and `≥` a lower bound.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.domain.units import ENERGY_UNITS
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from llm_energy_measure.catalogue.selection import Group
    from llm_energy_measure.catalogue.summary import ExperimentSummary

EnergyKind = Literal["attributed", "plain"]

CORRECTED = "*"
"""Sign of an energy that is less than the plain sum, because the plain sum counts some energy more than once."""

CORRECTED_NOTE = f"{CORRECTED} corrected: the plain sum counts some energy more than once"
"""Explanation of `CORRECTED`."""

NOTES = {
    CORRECTED: CORRECTED_NOTE,
    "≤": "≤ undetermined: the greatest energy that the records allow; 'results show ID' explains it",
}
"""Explanations of `*` and `≤`, by sign."""


def require_unit(unit: str | None, units: Collection[str] = ("J",)) -> None:
    """Raise `ConfigurationError` if the unit is not a unit of energy, or if no column has an energy.

    Args:
        unit: The unit that the user chose. None raises no error.
        units: The units of the columns.
    """
    if unit is None:
        return
    doing = f"cannot show energies in {unit}"
    if unit not in ENERGY_UNITS:
        raise ConfigurationError(doing, f"unknown unit {unit!r}", f"use one of {', '.join(ENERGY_UNITS)}")
    if not any(map(formatting.is_energy, units)):
        others = ", ".join(dict.fromkeys(filter(None, units))) or "no unit"
        raise ConfigurationError(doing, f"no column has an energy; the columns have {others}", "omit the unit")


class Energy(Struct, frozen=True, kw_only=True):
    """An energy for a table cell: one value, a range, or a lower bound.

    Attributes:
        low_j: Least energy, in joules. None if the energy is unknown.
        high_j: Greatest energy, in joules. It equals `low_j` if the energy is not undetermined.
        is_corrected: True if the plain sum counts some energy more than once, and this energy counts each joule once.
        is_lower_bound: True if the energy of some processes or experiments is missing.
        is_partial: True if a component of the energy is unknown. The energy per token is then a lower bound too.
    """

    low_j: float | None = None
    high_j: float | None = None
    is_corrected: bool = False
    is_lower_bound: bool = False
    is_partial: bool = False

    @property
    def is_undetermined(self) -> bool:
        """True if the records allow a range of energies."""
        return self.low_j != self.high_j

    @property
    def shown_j(self) -> float | None:
        """The energy that `cell` shows, in joules. See `is_undetermined` and `is_lower_bound`."""
        return self.high_j if self.is_undetermined and not self.is_lower_bound else self.low_j

    def cell(self, scale: tuple[float, str] | None = None) -> str:
        """Return the energy with its signs as a table cell.

        Args:
            scale: Divisor and unit of all cells of the column; see `formatting.energy_scale`. None chooses a prefix.

        Example:
            >>> Energy(low_j=300.0, high_j=600.0).cell(), Energy(low_j=9190.0, high_j=9190.0, is_corrected=True).cell()
            ('≤ 600 J', '* 9.19 kJ')
        """
        if self.low_j is None:
            return formatting.UNKNOWN
        text = formatting.quantity(self.shown_j, "J") if scale is None else formatting.scaled(self.shown_j, scale)
        if self.is_undetermined and not self.is_lower_bound:
            return f"≤ {text}"
        mark = f"{CORRECTED} " if self.is_corrected and not self.is_undetermined else ""
        return mark + ("≥ " if self.is_lower_bound else "") + text

    def efficiency_cell(self, tokens_per_joule: float | None) -> str:
        """Return the table cell of tokens per joule (tokens divided by `high_j`), with the sign `≥`, `≤` or `*`."""
        if tokens_per_joule is None:
            return formatting.UNKNOWN
        mark = "≥ " if self.is_undetermined else f"{CORRECTED} " if self.is_corrected else ""
        if self.is_partial:
            mark = "≤ "
        return mark + formatting.quantity(tokens_per_joule)


def energy_of(row: ExperimentSummary | AggregatedSummary, kind: EnergyKind) -> Energy:
    """Return the energy of an experiment. Without attribution, the energy is the total or the partial total."""
    is_lower_bound = bool(row.is_lower_bound)
    point_j, bounds_j = row.attributed_energy_j, row.attributed_bounds_j
    if kind == "plain" or (point_j is None and bounds_j is None):
        is_partial = row.total_energy_j is None
        total_j = row.partial_energy_j if is_partial else row.total_energy_j
        return Energy(low_j=total_j, high_j=total_j, is_lower_bound=is_lower_bound, is_partial=is_partial)
    if point_j is not None:
        is_corrected = row.attribution_factor is not None and row.attribution_factor > 1
        return Energy(low_j=point_j, high_j=point_j, is_corrected=is_corrected, is_lower_bound=is_lower_bound)
    assert bounds_j is not None  # noqa: S101 - the first branch returns if both are None
    return Energy(low_j=bounds_j[0], high_j=bounds_j[1], is_lower_bound=is_lower_bound)


def energy_of_group(group: Group, kind: EnergyKind) -> Energy:
    """Return the energy of a group of experiments."""
    is_lower_bound = bool(group.lower_bounds or group.unknown_energy)
    if kind == "plain":
        return Energy(low_j=group.total_energy_j, high_j=group.total_energy_j, is_lower_bound=is_lower_bound)
    return Energy(
        low_j=group.attributed_low_j,
        high_j=group.attributed_high_j,
        is_corrected=group.corrected > 0,
        is_lower_bound=is_lower_bound,
    )

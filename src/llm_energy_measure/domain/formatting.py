"""Values and short texts for people: quantities with four digits and a prefix, energies, dates, plurals."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import datetime

from llm_energy_measure.domain.units import ENERGY_UNITS

UNKNOWN = "-"

_PREFIXES = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1: "", 1e-3: "m"}


def quantity(value: float | None, unit: str = "") -> str:
    """Return a number with four significant digits and an SI prefix. Without a unit, the text is that of `number`.

    Example:
        >>> quantity(1971.7, "J"), quantity(0.24, "J/token"), quantity(None, "J")
        ('1.972 kJ', '240 mJ/token', '-')
    """
    if value is None:
        return UNKNOWN
    prefix = ""
    if unit and value:
        for factor, name in _PREFIXES.items():
            if abs(value) >= factor:
                value, prefix = value / factor, name
                break
    text = f"{value:.4g}" if abs(value) < 1e4 or unit else f"{value:,.0f}"
    return f"{text} {prefix}{unit}".rstrip()


def number(value: float) -> str:
    """Return a number with four significant digits; from 10,000 on, a whole number with commas between thousands.

    Example:
        >>> number(1971.7), number(123456.0), number(0.0821)
        ('1972', '123,456', '0.0821')
    """
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def energy_scale(values_j: Iterable[float | None], unit: str | None = None) -> tuple[float, str]:
    """Return the divisor and the unit for a column of energies. By default, the unit fits the median.

    Example:
        >>> energy_scale([222.7, 2000.0, 82.05]), energy_scale([1.0], "kWh")
        ((1, 'J'), (3600000.0, 'kWh'))
    """
    if unit is not None:
        return ENERGY_UNITS[unit], unit
    known = sorted(abs(value) for value in values_j if value)
    middle = known[len(known) // 2] if known else 1.0
    factor, prefix = next((pair for pair in _PREFIXES.items() if middle >= pair[0]), (1e-3, "m"))
    return factor, f"{prefix}J"


def scaled(value: float | None, scale: tuple[float, str]) -> str:
    """Return a value in the unit of its column.

    Example:
        >>> scaled(2000.0, (1, "J")), scaled(82.05, (1e3, "kJ"))
        ('2000 J', '0.08205 kJ')
    """
    return UNKNOWN if value is None else f"{number(value / scale[0])} {scale[1]}"


def is_energy(unit: str) -> bool:
    """Return True for the unit of an energy or of an energy per token or request."""
    return unit == "J" or unit.startswith("J/")


def scale(values: Iterable[float], unit: str, energy_unit: str | None = None) -> tuple[float, str]:
    """Return the divisor and the unit for a column of values. J and W get the prefix that fits the greatest value.

    Args:
        values: The values.
        unit: Unit of the numbers.
        energy_unit: Unit of energies; None chooses a prefix.

    Example:
        >>> scale([0.0626, 0.341], "J/token"), scale([12.0], "ms"), scale([3.6], "J/token", "Wh")
        ((0.001, 'mJ/token'), (1.0, 'ms'), (3600.0, 'Wh/token'))
    """
    if energy_unit is not None and is_energy(unit):
        return ENERGY_UNITS[energy_unit], energy_unit + unit.removeprefix("J")
    greatest = max(map(abs, values), default=0.0)
    if not unit.startswith(("J", "W")) or not greatest:
        return 1.0, unit
    factor, prefix = next((pair for pair in _PREFIXES.items() if greatest >= pair[0]), (1e-3, "m"))
    return factor, prefix + unit


def mean_with_interval(mean: float | None, half_width: float | None, factor: float = 1.0) -> str:
    """Return a mean and the half-width of its interval, both divided by a factor.

    The half-width has two significant digits, or all its digits before the point if these are more. The mean has as
    many decimals as the half-width. Both have fewer decimals if the mean would have more than six significant digits.

    Example:
        >>> mean_with_interval(0.06263, 0.0027, 1e-3), mean_with_interval(12.3456, None)
        ('62.6 ± 2.7', '12.35')
    """
    if mean is None:
        return UNKNOWN
    mean /= factor
    if half_width is None:
        return f"{mean:.4g}"
    half_width /= factor
    decimals = min(max(0, 1 - _exponent(half_width)), max(0, 5 - _exponent(mean)))
    return f"{mean:.{decimals}f} ± {half_width:.{decimals}f}"


def _exponent(value: float) -> int:
    """Return the decimal exponent of a value in scientific notation; -9 for 0."""
    return int(f"{value:.1e}".partition("e")[2]) if value else -9


def energy(energy_j: float | None, *, at_least: str = "", unknown: str = UNKNOWN) -> str:
    """Return an energy with the text `at_least` in front of it; `unknown` if the energy is None.

    Example:
        >>> energy(1971.7, at_least="≥ "), energy(None, at_least="≥ ")
        ('≥ 1.972 kJ', '-')
    """
    return unknown if energy_j is None else at_least + quantity(energy_j, "J")


def verdict(word: str, basis: Collection[str]) -> str:
    """Return a verdict, with a mark if the attributed energy follows from facts that the user stated.

    Example:
        >>> verdict("complete", ["assumed"])
        'complete (assumed)'
    """
    return f"{word} (assumed)" if "assumed" in basis else word


def attributed_energy(energy_j: float | None, bounds_j: tuple[float, float] | None, factor: float | None) -> str:
    """Return an attributed energy, its bounds if they differ, and how often the plain sum counts it if more than once.

    Example:
        >>> attributed_energy(27468.0, (21668.4, 31199.5), 4.0)
        '27.47 kJ (21.67 kJ to 31.2 kJ), counted 4 times'
        >>> attributed_energy(None, (300.0, 600.0), None)
        '300 J to 600 J'
    """
    text = quantity(energy_j, "J")
    if bounds_j is not None and bounds_j[0] != bounds_j[1]:
        interval = f"{quantity(bounds_j[0], 'J')} to {quantity(bounds_j[1], 'J')}"
        text = interval if energy_j is None else f"{text} ({interval})"
    if factor is not None and factor > 1:
        text += f", counted {factor:.3g} times"
    return text


def count(value: int | None) -> str:
    """Return a whole number with commas between thousands."""
    return UNKNOWN if value is None else f"{value:,}"


def date_time(value: datetime | None) -> str:
    """Return date, hour and minute in the time zone of the value."""
    return UNKNOWN if value is None else value.strftime("%Y-%m-%d %H:%M")


def cell(value: object, unit: str = "") -> str:
    """Return the text of a table cell for a value of a record or of a query.

    Example:
        >>> cell(0.25, "J"), cell(True), cell([1, None]), cell({"paper": "fig3"})
        ('0.25 J', 'yes', '1, -', 'paper=fig3')
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g} {unit}".rstrip() if isinstance(value, float) else f"{value} {unit}".rstrip()
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or UNKNOWN
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items()) or UNKNOWN
    return value.isoformat() if isinstance(value, datetime) else str(value)


def config_value(value: object) -> str:
    """Return the text of a configuration value, as the user writes it in a condition.

    Example:
        >>> config_value(True), config_value(0.5), config_value(None)
        ('true', '0.5', '-')
    """
    if value is None:
        return UNKNOWN
    return str(value).lower() if isinstance(value, bool) else str(value)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders the numbers in a text by value.

    Example:
        >>> sorted(["a_c10", "a_c2", "a"], key=natural_key)
        ['a', 'a_c2', 'a_c10']
    """
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), part) if number % 2 else (1, 0, part) for number, part in enumerate(parts) if part]


def plural(number: int, noun: str) -> str:
    """Return a number and its noun.

    Example:
        >>> plural(1, "experiment"), plural(3, "process")
        ('1 experiment', '3 processes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"

"""Types with units for all recorded quantities, and unit conversions.

A value of type `Joules` is a finite number of joules and at least 0. None means unknown. The unit is also part of the
field name, and the JSON Schema has it as `x-unit`.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from msgspec import Meta

from llm_energy_measure.constants import MAX_PROCESSES

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?((?:[kmgt]i?)?b?)", re.IGNORECASE)

JOULES_PER_KWH = 3.6e6
"""Joules per kilowatt-hour: 1000 W x 3600 s, exact by definition."""


def _unit(unit: str) -> dict[str, str]:
    return {"x-unit": unit}


Joules = Annotated[float, Meta(ge=0, extra_json_schema=_unit("J"))]
JoulesPerToken = Annotated[float, Meta(ge=0, extra_json_schema=_unit("J/token"))]
Watts = Annotated[float, Meta(ge=0, extra_json_schema=_unit("W"))]
Seconds = Annotated[float, Meta(ge=0, extra_json_schema=_unit("s"))]
Hertz = Annotated[float, Meta(ge=0, extra_json_schema=_unit("Hz"))]
Megahertz = Annotated[float, Meta(ge=0, extra_json_schema=_unit("MHz"))]
Fraction = Annotated[float, Meta(ge=0, le=1, extra_json_schema=_unit("1"))]
Milliseconds = Annotated[float, Meta(ge=0, extra_json_schema=_unit("ms"))]
TokensPerSecond = Annotated[float, Meta(ge=0, extra_json_schema=_unit("token/s"))]
Tokens = Annotated[int, Meta(ge=0, extra_json_schema=_unit("token"))]
Count = Annotated[int, Meta(ge=0, extra_json_schema=_unit("1"))]
ProcessIndex = Annotated[int, Meta(ge=0, lt=MAX_PROCESSES, extra_json_schema=_unit("1"))]
ProcessCount = Annotated[int, Meta(ge=1, le=MAX_PROCESSES, extra_json_schema=_unit("1"))]
Factor = Annotated[float, Meta(ge=1, extra_json_schema=_unit("1"))]
Flops = Annotated[float, Meta(ge=0, extra_json_schema=_unit("FLOP"))]
FlopsPerToken = Annotated[float, Meta(ge=0, extra_json_schema=_unit("FLOP/token"))]
FlopsPerSecond = Annotated[float, Meta(ge=0, extra_json_schema=_unit("FLOP/s"))]
Mebibytes = Annotated[float, Meta(ge=0, extra_json_schema=_unit("MiB"))]
KilogramsCO2 = Annotated[float, Meta(ge=0, extra_json_schema=_unit("kg CO2eq"))]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hexadecimal")]


def kwh_to_j(energy_kwh: float) -> float:
    """Convert kilowatt-hours to joules.

    Example:
        >>> kwh_to_j(0.5)
        1800000.0
    """
    return energy_kwh * JOULES_PER_KWH


def j_to_kwh(energy_j: float) -> float:
    """Convert joules to kilowatt-hours.

    Example:
        >>> j_to_kwh(1800000.0)
        0.5
    """
    return energy_j / JOULES_PER_KWH


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return `numerator / denominator`, or None if a value is None, the denominator is 0, or the result overflows.

    Example:
        >>> ratio(1.0, 4.0), ratio(1.0, 0.0), ratio(None, 4.0), ratio(1.0, 5e-324)
        (0.25, None, None, None)
    """
    if numerator is None or not denominator:
        return None
    try:
        quotient = numerator / denominator
    except OverflowError:  # integers with hundreds of digits, which JSON allows
        return None
    return quotient if math.isfinite(quotient) else None


_PREFIXES = {"": 1.0, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS: dict[str, tuple[str, float]] = {
    **{prefix + unit: (unit, factor) for unit in ("J", "W", "s", "FLOP") for prefix, factor in _PREFIXES.items()},
    **{f"{prefix}Wh": ("J", factor * 3600) for prefix, factor in _PREFIXES.items()},
    "min": ("s", 60.0),
    "h": ("s", 3600.0),
    "token": ("token", 1.0),
    "tokens": ("token", 1.0),
    "request": ("request", 1.0),
    "requests": ("request", 1.0),
}

ENERGY_UNITS = {
    "J": 1.0,
    "mJ": 1e-3,
    "kJ": 1e3,
    "MJ": 1e6,
    "mWh": 3.6,
    "Wh": 3600.0,
    "kWh": JOULES_PER_KWH,
    "MWh": 1000 * JOULES_PER_KWH,
}
"""Number of joules in each unit in which a table can show an energy, or an imported file can state it."""


def convert(value: float, unit: str, to: str) -> float | None:
    """Return a value in another unit. None if the units measure different quantities, or if one is unknown.

    Example:
        >>> convert(1.5, "kJ", "J"), convert(2, "mJ/token", "J/token"), convert(1, "kWh", "s")
        (1500.0, 0.002, None)
    """
    found, wanted = _base_unit(unit), _base_unit(to)
    if found is None or wanted is None or found[0] != wanted[0]:
        return None
    return value * found[1] / wanted[1]


def _base_unit(unit: str) -> tuple[list[str], float] | None:
    """Return the base units of a unit such as `mJ/token`, and the factor that converts a value to the base units."""
    parts = [_UNITS.get(part) for part in unit.split("/")]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    factor = known[0][1]
    for _, divisor in known[1:]:
        factor /= divisor
    return [base for base, _ in known], factor


def parse_size(text: str) -> int:
    """Return a size in bytes, at least 1.

    Args:
        text: A number with an optional unit: `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB`.

    Raises:
        ValueError: The text is not a size. The message is a clause, such as `'x' is not a positive number of bytes`.

    Example:
        >>> parse_size("1.5 GB"), parse_size("2GiB"), parse_size("4096")
        (1500000000, 2147483648, 4096)
    """
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    size = int(float(found[1]) * (1024 if "i" in unit else 1000) ** ("bkmgt".index(unit[:1] or "b"))) if found else 0
    if size < 1:
        msg = f"{text[:40]!r} is not a positive number of bytes"
        raise ValueError(msg)
    return size

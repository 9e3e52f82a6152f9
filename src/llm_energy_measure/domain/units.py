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

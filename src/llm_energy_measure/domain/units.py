"""The units of every recorded quantity, as types, and the conversions between them.

A field typed `Joules | None` is a finite number of joules, not negative, or unknown. The unit also stands in
the field's name and, for machines, as `x-unit` in the JSON Schema.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

from llm_energy_measure.constants import MAX_PROCESSES

JOULES_PER_KWH = 3.6e6
"""Exact by definition: 1 kWh = 1000 W x 3600 s."""


def _unit(unit: str) -> dict[str, str]:
    return {"x-unit": unit}


Joules = Annotated[float, Meta(ge=0, extra_json_schema=_unit("J"))]
JoulesPerToken = Annotated[float, Meta(ge=0, extra_json_schema=_unit("J/token"))]
Watts = Annotated[float, Meta(ge=0, extra_json_schema=_unit("W"))]
Seconds = Annotated[float, Meta(ge=0, extra_json_schema=_unit("s"))]
Hertz = Annotated[float, Meta(ge=0, extra_json_schema=_unit("Hz"))]
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
    """Energy in joules.

    Args:
        energy_kwh: Energy in kilowatt-hours.

    Example:
        >>> kwh_to_j(0.5)
        1800000.0
    """
    return energy_kwh * JOULES_PER_KWH


def j_to_kwh(energy_j: float) -> float:
    """Energy in kilowatt-hours.

    Args:
        energy_j: Energy in joules.

    Example:
        >>> j_to_kwh(1800000.0)
        0.5
    """
    return energy_j / JOULES_PER_KWH


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient, or None where either is unknown, the denominator is 0, or no number can hold it.

    Example:
        >>> ratio(1.0, 4.0), ratio(1.0, 0.0), ratio(None, 4.0), ratio(1.0, 5e-324)
        (0.25, None, None, None)
    """
    if numerator is None or not denominator:
        return None
    try:
        quotient = numerator / denominator
    except OverflowError:  # of whole numbers with hundreds of digits, which JSON can hold
        return None
    return quotient if math.isfinite(quotient) else None

"""Unit conversions, ratios, and the units in field names and JSON Schema."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics
from llm_energy_measure.domain.units import j_to_kwh, kwh_to_j, ratio

UNITS = {
    "_per_token_j": "J/token",
    "_j": "J",
    "_w": "W",
    "_sec": "s",
    "_ms": "ms",
    "_mb": "MiB",
    "_tokens": "token",
    "_per_second": "/s",
}


def test_one_kilowatt_hour_is_3_6_megajoules() -> None:
    assert kwh_to_j(1.0) == 3.6e6
    assert j_to_kwh(3.6e6) == 1.0


@given(st.floats(0, 1e200, allow_subnormal=False))
def test_conversion_to_joules_and_back_keeps_energy(energy: float) -> None:
    assert j_to_kwh(kwh_to_j(energy)) == pytest.approx(energy, rel=1e-15)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [(1.0, 4.0, 0.25), (0.0, 4.0, 0.0), (1.0, 0.0, None), (1.0, 0, None), (None, 4.0, None), (1.0, None, None)],
)
def test_ratio_is_none_if_unknown_or_divided_by_zero(
    numerator: float | None, denominator: float | None, expected: float | None
) -> None:
    assert ratio(numerator, denominator) == expected


@pytest.mark.parametrize("record", [EnergyMetrics, InferenceMetrics, ComputeMetrics])
def test_field_name_and_json_schema_have_same_unit(record: type[msgspec.Struct]) -> None:
    properties = msgspec.json.schema(record)["$defs"][record.__name__]["properties"]
    checked = 0
    for name, shape in properties.items():
        for suffix, unit in UNITS.items():
            if name.endswith(suffix) and not (suffix == "_j" and name.endswith("_per_token_j")):
                found = [part["x-unit"] for part in shape.get("anyOf", [shape]) if "x-unit" in part]
                assert len(found) == 1, name
                assert found[0].endswith(unit), name
                checked += 1
    assert checked >= 3


@pytest.mark.parametrize(("numerator", "denominator"), [(10**400, 3), (1.5, 10**400), (10**400, 0.5)])
def test_ratio_that_overflows_is_none(numerator: float, denominator: float) -> None:
    assert ratio(numerator, denominator) is None

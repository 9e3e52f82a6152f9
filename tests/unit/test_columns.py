"""The exported columns: their names, units and types are those of the records."""

from __future__ import annotations

import typing
from datetime import datetime
from typing import Any

import msgspec
import pytest

from llm_energy_measure.domain.experiment import AggregatedResult, AggregatedSummary, RawProcessResult, summary_of
from llm_energy_measure.domain.schema import json_schema
from llm_energy_measure.results import columns
from llm_energy_measure.results.columns import (
    AGGREGATED_COLUMNS,
    RAW_COLUMNS,
    SUMMARY_COLUMNS,
    Column,
    breakdown_columns,
    expected_processes,
    model_name,
    model_name_of_processes,
)
from tests.support import factories

TYPES = {"text": str, "integer": int, "number": float, "boolean": bool, "time": datetime}

# The unit of each ending of a name.
UNITS = {
    "_per_joule": "/J",
    "_per_token_j": "J/token",
    "_per_token_ms": "ms",
    "_per_token": "/token",
    "_per_output_token": "J/token",
    "_per_second": "/s",
    "_kg_co2": "kg CO2eq",
    "_sec": "s",
    "_ms": "ms",
    "_mb": "MiB",
    "_j": "J",
    "_w": "W",
}

# Columns whose name is not the name of a field: renamed to be unique, or computed.
RENAMED = {"start_time", "end_time", "energy_window_sec", "origin_tool", "origin_file", "idle_adjusted_energy_j"}
COMPUTED = {
    "attributed_joules_per_output_token",
    "model_name",
    "expected_processes",
    "flops_per_joule",
    "tokens_per_joule",
    "duration_sec",
    "warnings",
    "coverage",
    "attributed_low_j",
    "attributed_high_j",
    "attributed_joules_per_token",
    "attributed_tokens_per_joule",
    "failed_checks",
}

ALL = [*AGGREGATED_COLUMNS, *RAW_COLUMNS, *breakdown_columns([factories.full_aggregated()])]


def unit_of(name: str) -> str | None:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), None)


def fields_inside(record: type) -> dict[str, Any]:
    """Return the type of each field of a record, and of the records inside it, by name."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        found[field.name] = field.type
        for inner in [field.type, *typing.get_args(field.type)]:
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                found |= {name: kind for name, kind in fields_inside(inner).items() if name not in found}
    return found


@pytest.mark.parametrize(
    "columns", [AGGREGATED_COLUMNS, RAW_COLUMNS, ALL[-20:]], ids=["aggregated", "raw", "processes"]
)
def test_column_names_are_unique(columns: list[Column[Any]]) -> None:
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("column", ALL, ids=lambda column: column.name)
def test_name_of_a_column_ends_in_its_unit(column: Column[Any]) -> None:
    expected = unit_of(column.name)
    if expected is None:
        assert column.unit in ("", "token", "FLOP", "token/s"), column
    else:
        assert column.unit.endswith(expected), column
    assert bool(column.unit) <= (column.type in ("number", "integer")), column


@pytest.mark.parametrize(
    ("columns", "record", "others"),
    [(AGGREGATED_COLUMNS, AggregatedResult, COMPUTED), (RAW_COLUMNS, RawProcessResult, RENAMED)],
    ids=["aggregated", "raw"],
)
def test_column_has_the_name_of_its_field(columns: tuple[Column[Any], ...], record: type, others: set[str]) -> None:
    assert {column.name for column in columns} - set(fields_inside(record)) <= others


def test_each_value_of_the_processes_has_its_column() -> None:
    """A value without its column would be exported as empty: without processes, the getter returns None."""
    result = factories.full_aggregated()
    assert set(columns._NEED_PROCESSES) == set(columns.process_values(result, result.process_results))


@pytest.mark.parametrize("energy_j", [2000.0, None], ids=["known", "undetermined"])
def test_attributed_ratios_use_the_attributed_energy(energy_j: float | None) -> None:
    status = "undetermined" if energy_j is None else "estimated"
    result = factories.aggregated(
        total_tokens=4000, total_energy_j=8000.0, attributed_energy_j=energy_j, attribution_status=status
    )
    row = {column.name: column.getter(result) for column in AGGREGATED_COLUMNS}
    assert row["attribution_status"] == status
    assert row["attributed_tokens_per_joule"] == (None if energy_j is None else 2.0)
    assert row["attributed_joules_per_token"] == (None if energy_j is None else 0.5)
    assert (row["tokens_per_joule"], row["total_energy_j"]) == (0.5, 8000.0)


def test_units_are_those_of_the_schema() -> None:
    schemas = json_schema("aggregated")["$defs"] | {"": json_schema("aggregated")}
    stated: dict[str, set[str]] = {}
    for definition in schemas.values():
        for name, field in definition.get("properties", {}).items():
            units = {part["x-unit"] for part in [field, *field.get("anyOf", [])] if "x-unit" in part}
            stated.setdefault(name, set()).update(units - {"1"})
    columns: list[Column[Any]] = [*AGGREGATED_COLUMNS, *RAW_COLUMNS]
    checked = [column for column in columns if len(stated.get(column.name, ())) == 1]
    assert len(checked) > 30
    assert {column.name: {column.unit} for column in checked} == {
        column.name: stated[column.name] for column in checked
    }


@pytest.mark.parametrize(
    ("columns", "record"),
    [(AGGREGATED_COLUMNS, factories.full_aggregated()), (RAW_COLUMNS, factories.full_raw())],
    ids=["aggregated", "raw"],
)
def test_values_have_the_type_of_their_column(columns: tuple[Column[Any], ...], record: object) -> None:
    for column in columns:
        value = column.getter(record)
        assert value is None or type(value) is TYPES[column.type], (column.name, value)


def test_full_record_has_a_value_in_every_column() -> None:
    record = factories.full_raw()
    assert [column.name for column in RAW_COLUMNS if column.getter(record) is None] == []


def test_columns_of_an_empty_record_are_unknown() -> None:
    bare = factories.raw(inference_metrics=None, compute_metrics=None, energy_metrics=_no_energy(), gpu_id=None)
    assert all(column.getter(bare) is None for column in RAW_COLUMNS if column.unit and column.name != "duration_sec")
    nothing = factories.aggregated(
        process_results=[bare], total_energy_j=None, total_tokens=None, total_flops=None, start_time=None
    )
    values = {column.name: column.getter(nothing) for column in AGGREGATED_COLUMNS}
    assert values["tokens_per_joule"] is values["flops_per_joule"] is values["duration_sec"] is None


def _no_energy() -> Any:
    return factories.energy(0, **dict.fromkeys(msgspec.structs.asdict(factories.energy())))


def test_model_name_is_found_in_each_place() -> None:
    assert model_name_of_processes(factories.aggregated(model_name="own")) == "own"
    assert model_name_of_processes(factories.aggregated()) == "meta-llama/Llama-3.2-1B"
    bare = msgspec.structs.replace(factories.aggregated(), process_results=[])
    assert model_name_of_processes(bare) is None
    assert model_name(msgspec.structs.replace(bare, effective_config={"model_name": "configured"})) == "configured"
    assert model_name(msgspec.structs.replace(bare, effective_config={"model_name": ["x"]})) is None


def _processes(result: AggregatedResult) -> int:
    return len(result.process_results)


_RIGHT: tuple[Column[AggregatedResult], ...] = (*SUMMARY_COLUMNS, Column("processes", "integer", "", _processes))
# mypy fails if this line, the wrong use, is no error: strict mode reports an unused `type: ignore`.
_WRONG: tuple[Column[AggregatedSummary], ...] = (*SUMMARY_COLUMNS, Column("processes", "integer", "", _processes))  # type: ignore[arg-type]


def test_column_that_needs_processes_cannot_be_a_summary_column() -> None:
    """The catalogue loads aggregates without their processes."""
    with pytest.raises(AttributeError, match="process_results"):
        columns._summary("process_results", "text")
    summary = summary_of(factories.aggregated())
    assert [column.getter(summary) for column in SUMMARY_COLUMNS if column.name != "model_name"]
    with pytest.raises(AttributeError, match="process_results"):
        columns.model_name_of_processes(summary)  # type: ignore[arg-type]  # the wrong use


def test_expected_processes_is_none_without_completeness() -> None:
    assert expected_processes(factories.aggregated()) is None
    assert expected_processes(factories.full_aggregated()) == 3

"""Schema versions, migrations, checks at save time, and JSON Schemas."""

from __future__ import annotations

import copy
import json
import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llm_energy_measure import constants
from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain import schema
from llm_energy_measure.domain.schema import (
    Migration,
    find_non_finite,
    json_schema,
    migrate,
    parse_version,
    timestamp_problems,
)
from llm_energy_measure.results.store import codec
from tests.support import factories

NAIVE = factories.START.replace(tzinfo=None)


@pytest.mark.parametrize(("text", "version"), [("2.0.0", (2, 0)), ("2.1", (2, 1)), ("10.20.30", (10, 20))])
def test_parse_version_returns_major_and_minor(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text", [None, 2, 2.0, "", "2", "2.", "v2.0", "2.0.0 ", "2.0.0\n", "2.0.0.0", "1" * 5000 + ".0"]
)
def test_parse_version_returns_none_for_other_values(text: object) -> None:
    assert parse_version(text) is None


def test_format_history_describes_current_version() -> None:
    source = Path(constants.__file__).read_text(encoding="utf-8")
    assert re.search(rf"^# - {re.escape(SCHEMA_VERSION)}: ", source, re.MULTILINE)
    for step in schema.MIGRATIONS:
        assert re.search(rf"^# - {re.escape(step.source)}: ", source, re.MULTILINE)


def _rename(old: str, new: str, source: str, target: str) -> Migration:
    def apply(document: dict[str, Any]) -> dict[str, Any]:
        return {new if key == old else key: value for key, value in document.items()}

    return Migration(source=source, target=target, apply=apply)


STEPS = (_rename("a", "b", "1.8.0", "1.9.0"), _rename("b", "c", "1.9.0", "2.0.0"))


@pytest.mark.parametrize("steps", [STEPS, STEPS[::-1]])
def test_migrate_applies_migrations_in_order(steps: tuple[Migration, ...]) -> None:
    old = {"schema_version": "1.8.0", "a": [1]}
    assert migrate(old, steps) == {"schema_version": "2.0.0", "c": [1]}


def test_migrate_does_not_change_its_input() -> None:
    old = {"schema_version": "1.8.0", "a": {"deep": [1]}}
    before = copy.deepcopy(old)
    migrate(old, STEPS)
    assert old == before


def test_migrate_returns_document_of_target_version_unchanged() -> None:
    assert migrate({"schema_version": "1.9.0", "b": 1}, STEPS, target="1.9.0") == {"schema_version": "1.9.0", "b": 1}


@pytest.mark.parametrize("version", ["1.7.0", "3.0.0", None, 2, ["1.8.0"]])
def test_migrate_returns_none_without_migration_path(version: object) -> None:
    assert migrate({"schema_version": version}, STEPS) is None


def test_migrate_returns_none_for_cycle_of_migrations() -> None:
    def never(_: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    there = Migration(source="1.8.0", target="1.9.0", apply=never)
    back = Migration(source="1.9.0", target="1.8.0", apply=never)
    assert migrate({"schema_version": "1.8.0"}, (there, back)) is None


def test_find_non_finite_yields_path_of_each_number() -> None:
    nan, inf = float("nan"), float("inf")
    document = {"a": nan, "b": [1.0, {"c": inf}], "d": (-inf,), "e": "nan", "f": 1, "g": None}
    assert [path for path, _ in find_non_finite(document)] == ["a", "b[1].c", "d[0]"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"end": None, "duration_sec": None}, []),
        ({"end": factories.START}, []),
        (
            {"end": (factories.START - timedelta(minutes=1)).astimezone(timezone(timedelta(hours=9)))},
            ["is before start"],
        ),
        ({"end": NAIVE}, ["only one of start and end has a UTC offset"]),
        ({"start": NAIVE, "end": factories.START}, ["only one of start and end has a UTC offset"]),
        ({"duration_sec": -1.0}, ["-1.0 is negative"]),
        ({"end": factories.START - timedelta(1), "duration_sec": -1.0}, ["is before start", "is negative"]),
    ],
)
@pytest.mark.parametrize("place", ["timestamps", "energy_metrics.window"])
def test_timestamp_problems_reports_each_invalid_span(place: str, changes: dict[str, Any], found: list[str]) -> None:
    span = factories.timestamps(**changes)
    record = factories.raw(timestamps=span)
    if place != "timestamps":
        record = factories.raw(energy_metrics=factories.energy(window=span))
    problems = timestamp_problems(record)
    assert len(problems) == len(found)
    for problem, words in zip(problems, found, strict=True):
        assert problem.startswith(place)
        assert words in problem


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("raw", codec.encode_raw(factories.raw())),
        ("raw", codec.encode_raw(factories.full_raw(unknown_fields={"/new": 1, "/energy_metrics/new": 1}))),
        ("aggregated", codec.encode_aggregated(factories.full_aggregated())),
    ],
)
def test_encoded_records_match_json_schema(kind: str, data: bytes) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(kind))
    jsonschema.Draft202012Validator(json_schema(kind)).validate(json.loads(data))


@pytest.mark.parametrize(
    ("path", "value"),
    [("energy_metrics.total_energy_j", -1.0), ("process_index", "0"), ("timestamps", None), ("origin.sha256", "x")],
)
def test_json_schema_rejects_invalid_values(path: str, value: object) -> None:
    document = factories.changed(factories.document(factories.full_raw()), path, value)
    assert not jsonschema.Draft202012Validator(json_schema("raw")).is_valid(document)


def test_json_schema_has_units_but_not_unknown_fields() -> None:
    text = json.dumps(json_schema("aggregated"))
    assert '"x-unit": "J"' in text
    assert "unknown_fields" not in text
    assert '"additionalProperties": false' not in text


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_json_schema_describes_each_field(kind: str) -> None:
    document = json_schema(kind)
    definitions = {"": document, **document["$defs"]}
    del definitions["LatencyMeasurements"]
    definitions.pop("LatencyStatistics", None)  # its docstring describes `ttft_*` and `itl_*`
    fields = {f"{name}.{key}": field for name, item in definitions.items() for key, field in item["properties"].items()}
    assert [name for name, field in fields.items() if "description" not in field] == []
    assert "None" not in str([field["description"] for field in fields.values()])

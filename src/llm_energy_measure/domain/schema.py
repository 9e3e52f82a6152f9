"""Migrations between schema versions, checks of values at save time, and the JSON Schema.

`llm_energy_measure.constants` contains the history of the format.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import AggregatedFile, AggregatedResult, AggregatedSummary, RawProcessResult

Document = dict[str, Any]
"""A decoded JSON object that was not converted to a record."""

_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})(?:\.[0-9]{1,9})?")


class Migration(Struct, frozen=True, kw_only=True):
    """Conversion of a document from one schema version to another one.

    Attributes:
        source: Version of the input.
        target: Version of the output.
        apply: Pure function that returns the converted document. `migrate` sets its version.
    """

    source: str
    target: str
    apply: Callable[[Document], Document]


def _from_3_0_0(document: Document) -> Document:
    """Return a document of schema 3.0.0 in schema 2.0.0. The layout is the same; new fields become unknown fields.

    If `energy_tracking_failed` is true, energies and powers of 0 are placeholders and become unknown. A duration of 0
    also becomes unknown.
    """
    energy = document.get("energy_metrics")
    if not isinstance(energy, dict):
        return document
    energy = dict(energy)
    if document.get("energy_tracking_failed") is True or energy.get("energy_tracking_failed") is True:
        energy |= {name: None for name, value in energy.items() if name.endswith(("_j", "_w")) and value == 0}
        energy.setdefault("total_energy_j", None)
    if energy.get("duration_sec") == 0:
        energy["duration_sec"] = None
    return {**document, "energy_metrics": energy}


MIGRATIONS: tuple[Migration, ...] = (Migration(source="3.0.0", target=SCHEMA_VERSION, apply=_from_3_0_0),)
"""All migrations. Schema 3.0.0 was written in early 2026 by another branch of the format. 2.0.0 is the first version
that result files contain, so no older version has a migration."""


def parse_version(version: object) -> tuple[int, int] | None:
    """Return the major and the minor version, or None if `version` is not a version.

    Example:
        >>> parse_version("2.1.0"), parse_version("two")
        ((2, 1), None)
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return (int(match[1]), int(match[2])) if match else None


def migrate(
    document: Document, migrations: Sequence[Migration] = MIGRATIONS, target: str = SCHEMA_VERSION
) -> Document | None:
    """Return the document converted to the target version, or None if the migrations do not reach this version.

    Args:
        document: A decoded object with a `schema_version`. It is not changed.
        migrations: The available migrations, in any order.
        target: The required version.
    """
    steps = {step.source: step for step in migrations}
    version = document.get("schema_version")
    chain: list[Migration] = []
    while version != target:
        # A chain with more steps than there are migrations is a cycle.
        if not isinstance(version, str) or version not in steps or len(chain) == len(steps):
            return None
        chain.append(steps[version])
        version = chain[-1].target
    for step in chain:
        document = {**step.apply(document), "schema_version": step.target}
    return document


def find_non_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted path and the value of each NaN and infinity, which JSON cannot represent."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from find_non_finite(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_non_finite(inner, f"{path}[{index}]")


def timestamp_problems(record: RawProcessResult) -> list[str]:
    """Return one sentence for each problem of a time span: end before start, duration below 0, or only one UTC offset.

    A new record with such timestamps is refused. An existing file still loads, because its energy remains valid.
    """
    problems = _span_problems(
        "timestamps", record.timestamps.start, record.timestamps.end, record.timestamps.duration_sec
    )
    window = record.energy_metrics.window
    if window is not None:
        problems += _span_problems("energy_metrics.window", window.start, window.end, window.duration_sec)
    return problems


def _span_problems(name: str, start: datetime | None, end: datetime | None, duration_sec: float | None) -> list[str]:
    problems = []
    if start is not None and end is not None and (start.tzinfo is None) != (end.tzinfo is None):
        problems.append(f"{name}: only one of start and end has a UTC offset")
    elif start is not None and end is not None and end < start:
        problems.append(f"{name}: end {end.isoformat()} is before start {start.isoformat()}")
    if duration_sec is not None and duration_sec < 0:
        problems.append(f"{name}.duration_sec: {duration_sec!r} is negative")
    return problems


def json_schema(kind: str) -> Document:
    """Return the JSON Schema (2020-12) of a record. It allows unknown fields, because readers keep them.

    The docstrings of the record types describe the fields.

    Args:
        kind: `raw` or `aggregated`.
    """
    records: dict[str, list[type]] = {
        "raw": [RawProcessResult],
        "aggregated": [AggregatedFile, AggregatedResult, AggregatedSummary],
    }
    record, *bases = records[kind]
    _, components = msgspec.json.schema_components([record, *bases], ref_template="#/$defs/{name}")
    for definition in components.values():
        definition.pop("additionalProperties", None)
        definition.get("properties", {}).pop("unknown_fields", None)
        text = definition.get("description", "")
        definition["description"] = text.partition("\n")[0]
        for name, description in _field_descriptions(text).items():
            if name in definition["properties"]:
                definition["properties"][name]["description"] = description
    root = components.pop(record.__name__)
    for base in bases:  # the docstring of a base class describes the inherited fields
        root["properties"] |= components.pop(base.__name__)["properties"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": components}


def _field_descriptions(docstring: str) -> dict[str, str]:
    """Return the descriptions under `Attributes:` by field. In them, None becomes `null`, and UNSET `Absent`."""
    section = textwrap.dedent(docstring.partition("\n")[2]).partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("None", "null").replace("UNSET", "Absent") for name, text in found}

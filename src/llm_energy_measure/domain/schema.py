"""Migrations between versions of the format, what is checked when a record is saved, and the JSON Schema.

The history of the format stands beside its version, in `llm_energy_measure.constants`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

Document = dict[str, Any]
"""A decoded JSON object, not yet a record."""

_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})(?:\.[0-9]{1,9})?")


class Migration(Struct, frozen=True, kw_only=True):
    """One step from one version of the format to the next.

    Attributes:
        source: Version it reads.
        target: Version it makes.
        apply: Pure function from a document of the one to a document of the other; it need not set the version.
    """

    source: str
    target: str
    apply: Callable[[Document], Document]


MIGRATIONS: tuple[Migration, ...] = ()
"""Steps in order, oldest first. Empty today: 2.0.0 is the first version that names itself."""


def parse_version(version: object) -> tuple[int, int] | None:
    """Major and minor version, or None if the text is no version.

    Example:
        >>> parse_version("2.1.0"), parse_version("two")
        ((2, 1), None)
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return (int(match[1]), int(match[2])) if match else None


def migrate(
    document: Document, migrations: Sequence[Migration] = MIGRATIONS, target: str = SCHEMA_VERSION
) -> Document | None:
    """The document brought to the target version step by step, or None if no chain of steps leads there.

    Args:
        document: A decoded object with a `schema_version`; it is not changed.
        migrations: The steps to choose from.
        target: The version wanted.
    """
    steps = {step.source: step for step in migrations}
    version = document.get("schema_version")
    chain: list[Migration] = []
    while version != target:
        # A chain longer than there are steps goes in a circle.
        if not isinstance(version, str) or version not in steps or len(chain) == len(steps):
            return None
        chain.append(steps[version])
        version = chain[-1].target
    for step in chain:
        document = {**step.apply(document), "schema_version": step.target}
    return document


def find_non_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a decoded object that JSON can't hold (NaN and the infinities), with its dotted path."""
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
    """What is wrong with the stamps of a record, a sentence each: reversed, or not comparable.

    A file of the field with such stamps still loads, since its energy is none the worse; a new record is refused.
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
        problems.append(f"{name}: one of start and end has a UTC offset and the other has none")
    elif start is not None and end is not None and end < start:
        problems.append(f"{name}: end {end.isoformat()} is before start {start.isoformat()}")
    if duration_sec is not None and duration_sec < 0:
        problems.append(f"{name}.duration_sec: {duration_sec!r} is negative")
    return problems


def json_schema(kind: str) -> Document:
    """The JSON Schema (2020-12) of a kind of record; unknown fields are allowed, since readers keep them.

    Args:
        kind: `raw` or `aggregated`.
    """
    record = {"raw": RawProcessResult, "aggregated": AggregatedResult}[kind]
    _, components = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    for definition in components.values():
        definition.pop("additionalProperties", None)
        definition.get("properties", {}).pop("unknown_fields", None)
        if "description" in definition:
            definition["description"] = definition["description"].partition("\n")[0]
    root = components.pop(record.__name__)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": components}

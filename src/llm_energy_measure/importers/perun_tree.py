"""The tree of nodes in a perun file, with all values in base units (J, W, s)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.values import as_number, as_text

SENSOR = 6
"""Lowest level of the tree. The levels above: device group (5), node (4), run (3), multi-run (2), application (1)."""

MAX_DEPTH = 10

_NO_RANGE = {"uint64": 2.0**63, "int64": 2.0**62, "uint32": 2.0**32 - 1, "float32": 1e38, "float64": 1e300}
"""By data type: a stated maximum of at least this number is the limit of the type, not the range of a counter."""


class Tree(msgspec.Struct):
    """One node of the tree, at any level.

    Attributes:
        name: Id of the node.
        level: Level, from 1 (application) to 6 (sensor).
        facts: Metadata.
        metrics: Metrics of the node by lower-case name, in base units.
        children: Nodes directly below this node.
        kind: Type of the device, for a device group or sensor.
        times: Time of each sample of a sensor, in seconds.
        values: Samples of a sensor, in base units; None for a missing sample.
        unit: Unit of the samples.
        wraps_at: Value at which a counter wraps, in base units; None if it is unknown.
    """

    name: str
    level: int
    facts: dict[str, Any]
    metrics: dict[str, float]
    children: list[Tree]
    kind: str | None
    times: list[float | None]
    values: list[float | None]
    unit: str
    wraps_at: float | None


def build_tree(document: object, name: str, depth: int = 0) -> Tree:
    """Return the tree of a JSON export. The field `nodes` is an object, or a list of objects.

    Raises:
        RefusedInputError: A node is not an object, or is more than `MAX_DEPTH` levels below the root.
    """
    if not isinstance(document, dict) or depth > MAX_DEPTH:
        raise RefusedInputError("missing_field", f"{name} is not a node of a perun tree of at most {MAX_DEPTH} levels")
    raw = as_object(document.get("raw_data"))
    details = as_object(raw.get("v_md"))
    nodes, level = document.get("nodes"), document.get("type")
    return Tree(
        name=as_text(document.get("id")) or name,
        level=level if isinstance(level, int) else SENSOR,
        facts=as_object(document.get("metadata")),
        metrics=_metrics(as_object(document.get("metrics"))),
        children=[
            build_tree(child, inner, depth + 1)
            for mapping in (nodes if isinstance(nodes, list) else [nodes])
            for inner, child in as_object(mapping).items()
        ],
        kind=as_text(document.get("deviceType")),
        times=samples_of(raw.get("timesteps"), as_object(raw.get("t_md")), 1.0),
        values=samples_of(raw.get("values"), details, magnitude(details)),
        unit=as_text(details.get("unit")) or "",
        wraps_at=_counter_range(details),
    )


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a node in base units, without those that are marked as missing."""
    metrics = {}
    for name, metric in found.items():
        details = as_object(as_object(metric).get("metric_md")) or as_object(metric)
        value = as_number(as_object(metric).get("value", as_object(metric).get("sum")))
        if value is not None and value != as_number(details.get("fill")):
            metrics[name.lower()] = value * magnitude(details)
    return metrics


def magnitude(details: Mapping[str, Any]) -> float:
    """Return the factor that converts a number to its base unit."""
    return as_number(details.get("mag")) or 1.0


def samples_of(values: object, details: Mapping[str, Any], factor: float) -> list[float | None]:
    """Return samples in base units; None for each sample that is marked as missing."""
    if not isinstance(values, list):
        return []
    fill = details.get("fill")
    return [None if (value := as_number(raw)) is None or raw == fill else as_number(value * factor) for raw in values]


def _counter_range(details: Mapping[str, Any]) -> float | None:
    """Return the value at which a counter wraps, in base units; None if only the limit of its data type is known."""
    greatest = as_number(details.get("max", details.get("valid_max")))
    if not greatest or greatest >= _NO_RANGE.get(str(details.get("dtype")), 2.0**31 - 1):
        return None
    return greatest * magnitude(details)

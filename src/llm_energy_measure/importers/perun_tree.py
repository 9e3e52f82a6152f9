"""The tree of nodes in a perun file, in base units, and the functions that build it from JSON and HDF5 alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.values import as_number

if TYPE_CHECKING:
    from collections.abc import Mapping

SENSOR = 6
"""Lowest level of the tree; above are device group (5), node (4), run (3), multi-run (2) and application (1)."""

MAX_DEPTH = 10

_NO_RANGE = {"uint64": 2.0**63, "int64": 2.0**62, "uint32": 2.0**32 - 1, "float32": 1e38, "float64": 1e300}
"""Numbers from which a stated maximum is the limit of its data type, and not the range of a counter."""


class Tree(msgspec.Struct):
    """One node of the tree, at any level.

    Attributes:
        name: Id of the node.
        level: Level, from 1 (application) to 6 (sensor).
        facts: Metadata.
        metrics: Metrics of the node by lower-case name, in base units.
        children: Nodes below.
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
    children: list[Tree] = []
    kind: str | None = None
    times: list[float | None] = []
    values: list[float | None] = []
    unit: str = ""
    wraps_at: float | None = None


class Hdf5Response(msgspec.Struct):
    """Output of the process that reads an HDF5 file: the trees, or the reason code and message of a refusal."""

    trees: list[Tree] = []
    code: str | None = None
    message: str = ""


def metrics_of(found: object) -> dict[str, float]:
    """Return the metrics of a node in base units, without those that are marked as missing."""
    metrics = {}
    for name, metric in as_object(found).items():
        if not isinstance(metric, dict):
            continue
        details = as_object(metric.get("metric_md")) or metric
        value = as_number(metric.get("value", metric.get("sum")))
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


def counter_range(details: Mapping[str, Any]) -> float | None:
    """Return the value at which a counter wraps, in base units; None if only the limit of its data type is known."""
    greatest = as_number(details.get("max", details.get("valid_max")))
    if not greatest or greatest >= _NO_RANGE.get(str(details.get("dtype")), 2.0**31 - 1):
        return None
    return greatest * magnitude(details)

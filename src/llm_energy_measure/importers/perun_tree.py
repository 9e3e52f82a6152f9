"""The tree of perun's files, whichever form they have, and what its figures mean in base units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.importers.cells import number

if TYPE_CHECKING:
    from collections.abc import Mapping

SENSOR = 6
"""The lowest level; above are device groups, nodes, runs, runs together, and the application."""

MAX_DEPTH = 10


class Tree(msgspec.Struct):
    """A node of the tree, of whatever level.

    Attributes:
        name: Its id.
        level: Its level, 1 (application) to 6 (sensor).
        facts: Its metadata.
        metrics: Its own figures by lower-case name, in base units.
        children: The nodes below.
        kind: Kind of device of a group or sensor.
        times: Seconds of each sample of a sensor.
        values: Samples, in base units; None where one is missing.
        unit: Unit of the samples.
        wraps_at: What a counter counts up to, in base units; None if that is not known.
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


class Answer(msgspec.Struct):
    """What the process that reads an HDF5 file says: its trees, or the code and sentence of its refusal."""

    trees: list[Tree] = []
    code: str | None = None
    sentence: str = ""


def detail(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside an object, or an empty one."""
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def metrics_of(found: object) -> dict[str, float]:
    """Figures of a node in base units; what is marked missing is left out."""
    metrics = {}
    for name, metric in found.items() if isinstance(found, dict) else ():
        if not isinstance(metric, dict):
            continue
        details = detail(metric, "metric_md") or metric
        value = number(metric.get("value", metric.get("sum")))
        if value is not None and value != number(details.get("fill")):
            metrics[name.lower()] = value * (number(details.get("mag")) or 1.0)
    return metrics


def scaled(values: object, details: Mapping[str, Any], factor: float) -> list[Any]:
    """Samples in base units; None where the mark of a missing one stands."""
    if not isinstance(values, list):
        return []
    fill = details.get("fill")
    return [None if (value := number(raw)) is None or raw == fill else number(value * factor) for raw in values]


def range_of(details: Mapping[str, Any], factor: float) -> float | None:
    """What a counter counts up to, in base units; the greatest number of its type is no such thing."""
    greatest = number(details.get("max", details.get("valid_max")))
    if greatest is None or not greatest or greatest >= _NO_RANGE.get(str(details.get("dtype")), 2.0**31 - 1):
        return None
    return greatest * factor


_NO_RANGE = {"uint64": 2.0**63, "int64": 2.0**62, "uint32": 2.0**32 - 1, "float32": 1e38, "float64": 1e300}

"""Results of perun, as JSON or HDF5: a tree of application, runs, nodes, device groups and sensors.

Each node of a run is one record of host scope: a host counts once. Its sensors stand in it, GPUs as devices too.
Regions are parts of a run that several ranks enter, and are not imported. Energy is calculated anew from what each
sensor read: a counter's differences, with its wraps, or the integral of power samples. perun's own energy has the PUE
multiplied in; it is only compared.

Source: perun 0.x and 1.0, `perun export` and its HDF5 files.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import Component, DeviceEnergy, EnergyMetrics, SensorReading, Timestamps
from llm_energy_measure.importers.bounded import RefusedFileError
from llm_energy_measure.importers.cells import identifier, number, number_in, text, time_in
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.loss import LossReport, Remarks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_energy_measure.importers.bounded import Original

TOOL = "perun"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FIELDS = {"id", "type", "metrics", "nodes"}
_APP, _NODE, _GROUP, _SENSOR = 1, 4, 5, 6
_MAX_DEPTH = 10
_MAX_OBJECTS = 200_000
_MAX_SAMPLES = 10_000_000
_TOLERANCE = 0.01
_COMPONENTS: dict[str, Component] = {"cpu": "cpu", "gpu": "gpu", "ram": "ram", "dram": "ram"}


class _Tree(msgspec.Struct):
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
    children: list[_Tree] = []
    kind: str | None = None
    times: Sequence[float | None] = ()
    values: Sequence[float | None] = ()
    unit: str = ""
    wraps_at: float | None = None


def _recognises(original: Original) -> bool:
    return original.data.startswith(_HDF5) or set(original.fields) >= _FIELDS


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each node of each run whose sensors measured energy."""
    del options
    [original] = originals
    trees = _from_hdf5(original) if original.data.startswith(_HDF5) else [_from_json(original.json(), "app", 0)]
    found = False
    for tree in trees:
        for way, nodes in _runs(tree, ()):
            for index, node in enumerate(nodes):
                found = True
                yield from _node_record(original, way, node, (index, len(nodes)), report)
    if not found:
        report.refuse(original.shown, "no_measurement", "it has no node: no run of it was measured")


def _runs(tree: _Tree, way: tuple[_Tree, ...]) -> Iterator[tuple[tuple[_Tree, ...], list[_Tree]]]:
    """The nodes of each run, with the way from the application down to it."""
    way = (*way, tree)
    # In one order, whichever form the file has: a node's place is its process index.
    nodes = sorted((child for child in tree.children if child.level == _NODE), key=lambda node: node.name)
    if nodes:
        yield way, nodes
    for child in tree.children:
        if child.level < _NODE:
            yield from _runs(child, way)


def _node_record(
    original: Original, way: tuple[_Tree, ...], node: _Tree, place: tuple[int, int], report: LossReport
) -> Iterator[RawProcessResult]:
    """The record of one host in one run; refused if no sensor of it measured energy."""
    index, nodes = place
    where = "/".join([*(part.name for part in way), node.name])
    sensors = [_reading(sensor) for sensor in _sensors(node)]
    energies = [sensor for sensor in sensors if sensor is not None]
    facts = {name: value for part in (*way, node) for name, value in part.facts.items()}
    if not energies:
        names = ", ".join(sensor.name for sensor in _sensors(node)[:6]) or "none"
        report.refuse(original.shown, "no_sensor", f"no sensor of {where} measured energy; its sensors are {names}")
        return
    remarks = Remarks()
    energy = _energy(node, energies)
    _compare(node, energy, facts, remarks)
    siblings = [child for child in way[-2].children if child.level == way[-1].level] if len(way) > 1 else []
    start = time_in(str(facts.get("execution_dt") or "")) if len(siblings) < 2 else None  # noqa: PLR2004 - the first of one
    record = RawProcessResult(
        experiment_id=identifier(TOOL, *(part.name.replace(":", "") for part in way)),
        process_index=index,
        gpu_id=None,
        config_name=way[0].name,
        model_name=None,
        timestamps=Timestamps(start=start, end=None, duration_sec=energy.duration_sec),
        inference_metrics=None,
        energy_metrics=energy,
        compute_metrics=None,
        effective_config={TOOL: facts},
        world_size=nodes,
        host=node.name,
        origin=original.origin(TOOL, text(facts.get("perun_version"))),
    )
    yield report.record(original.shown, record, remarks)


def _sensors(node: _Tree) -> list[_Tree]:
    if node.level == _SENSOR:
        return [node]
    return [sensor for child in node.children for sensor in _sensors(child)]


def _reading(sensor: _Tree) -> SensorReading | None:
    """What a sensor measured, calculated from its samples; None if it measures neither energy nor power."""
    if sensor.unit not in ("J", "W"):
        return None
    pairs = zip(sensor.times, sensor.values, strict=False)
    samples = [(time, value) for time, value in pairs if time is not None and value is not None]
    if len(samples) < 2:  # noqa: PLR2004 - a difference takes two
        return None
    is_counter = sensor.unit == "J"
    joules, wraps = _counted(sensor, samples) if is_counter else (_integrated(samples), None)
    joules = number(joules)
    span = samples[-1][0] - samples[0][0]
    component = _COMPONENTS.get((sensor.kind or "").lower(), "total")
    return SensorReading(
        source=text(sensor.facts.get("source")) or TOOL,
        instance=sensor.name,
        component=component,
        scope="device" if component == "gpu" else "host",
        provenance="measured" if is_counter else "integrated",
        energy_j=joules,
        counter_start_j=samples[0][1] if is_counter else None,
        counter_end_j=samples[-1][1] if is_counter else None,
        counter_range_j=sensor.wraps_at if is_counter else None,
        wraps=wraps,
        samples=len(samples),
        sampling_rate_hz=(len(samples) - 1) / span if span > 0 else None,
        problems=["counter_reset"] if joules is None else [],
    )


def _counted(sensor: _Tree, samples: Sequence[tuple[float, float]]) -> tuple[float | None, int | None]:
    """Energy of a counter and its wraps; None where it fell and nobody says what it counts up to."""
    total, wraps = 0.0, 0
    for (_, before), (_, after) in itertools.pairwise(samples):
        total += after - before
        if after < before:
            if sensor.wraps_at is None or sensor.wraps_at < before:
                return None, None
            total += sensor.wraps_at
            wraps += 1
    return total, wraps


def _integrated(samples: Sequence[tuple[float, float]]) -> float:
    """Energy of power samples, by trapezoids."""
    pairs = itertools.pairwise(samples)
    return math.fsum((one[1] + other[1]) / 2 * max(other[0] - one[0], 0.0) for one, other in pairs)


def _energy(node: _Tree, sensors: list[SensorReading]) -> EnergyMetrics:
    """Energy of a host: what all its sensors measured."""
    by_component: dict[str, list[float | None]] = {}
    for sensor in sensors:
        by_component.setdefault(sensor.component, []).append(sensor.energy_j)
    sums = {
        name: None if None in values else math.fsum(value for value in values if value is not None)
        for name, values in by_component.items()
    }
    is_known = all(value is not None for value in sums.values())
    provenances = {sensor.provenance for sensor in sensors}
    devices = [
        DeviceEnergy(energy_j=sensor.energy_j, provenance=sensor.provenance)
        for sensor in sensors
        if sensor.component == "gpu"
    ]
    return EnergyMetrics(
        total_energy_j=math.fsum(value for value in sums.values() if value is not None) if is_known else None,
        duration_sec=node.metrics.get("runtime"),
        gpu_energy_j=sums.get("gpu"),
        cpu_energy_j=sums.get("cpu"),
        ram_energy_j=sums.get("ram"),
        total_scope="host",
        total_provenance=provenances.pop() if len(provenances) == 1 else None,
        gpu_scope="device" if "gpu" in sums else None,
        gpu_provenance=_provenance(sensors, "gpu"),
        cpu_scope="host" if "cpu" in sums else None,
        cpu_provenance=_provenance(sensors, "cpu"),
        ram_scope="host" if "ram" in sums else None,
        ram_provenance=_provenance(sensors, "ram"),
        devices=devices or None,
        sensors=sensors,
    )


def _provenance(sensors: Sequence[SensorReading], component: str) -> Any:  # noqa: ANN401 - a provenance
    found = {sensor.provenance for sensor in sensors if sensor.component == component}
    return found.pop() if len(found) == 1 else None


def _compare(node: _Tree, energy: EnergyMetrics, facts: Mapping[str, Any], remarks: Remarks) -> None:
    """Say where perun's own figure, which has the PUE in it, is another."""
    own, pue = node.metrics.get("energy"), number_in(str(facts.get("post-processing.pue", "1"))) or 1.0
    if energy.total_energy_j is None:
        remarks.note("no_energy", "a counter fell, and nobody says what it counts up to")
    elif own is not None and not math.isclose(own / pue, energy.total_energy_j, rel_tol=_TOLERANCE):
        found = f"perun's energy is {own!r} J with a PUE of {pue:g}, its samples come to {energy.total_energy_j!r} J"
        remarks.note("own_aggregate_differs", found)


# JSON


def _from_json(document: object, name: str, depth: int) -> _Tree:
    """The tree of a JSON export; `nodes` is a mapping, or a list that holds one."""
    if not isinstance(document, dict) or depth > _MAX_DEPTH:
        raise RefusedFileError("missing_field", f"{name} is no node of perun's tree")
    raw = document.get("raw_data")
    raw = raw if isinstance(raw, dict) else {}
    details = _detail(raw, "v_md")
    nodes = document.get("nodes")
    mappings = [nodes] if isinstance(nodes, dict) else nodes if isinstance(nodes, list) else []
    factor = number(details.get("mag")) or 1.0
    tree = _Tree(
        name=text(document.get("id")) or name,
        level=level if isinstance(level := document.get("type"), int) else _SENSOR,
        facts=facts if isinstance(facts := document.get("metadata"), dict) else {},
        metrics=_metrics(document.get("metrics")),
        kind=text(document.get("deviceType")),
        times=_scaled(raw.get("timesteps"), _detail(raw, "t_md"), 1.0),
        values=_scaled(raw.get("values"), details, factor),
        unit=text(details.get("unit")) or "",
        wraps_at=_range(details, factor),
    )
    tree.children = [
        _from_json(child, inner, depth + 1)
        for mapping in mappings
        if isinstance(mapping, dict)
        for inner, child in mapping.items()
    ]
    return tree


def _detail(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def _metrics(found: object) -> dict[str, float]:
    """Figures of a node in base units; what is marked missing is left out."""
    metrics = {}
    for name, metric in found.items() if isinstance(found, dict) else ():
        if not isinstance(metric, dict):
            continue
        details = _detail(metric, "metric_md") or metric
        value = number(metric.get("value", metric.get("sum")))
        if value is not None and value != number(details.get("fill")):
            metrics[name.lower()] = value * (number(details.get("mag")) or 1.0)
    return metrics


def _scaled(values: object, details: Mapping[str, Any], factor: float) -> list[Any]:
    """Samples in base units; None where the mark of a missing one stands."""
    if not isinstance(values, list):
        return []
    fill = details.get("fill")
    return [None if (value := number(raw)) is None or raw == fill else number(value * factor) for raw in values]


def _range(details: Mapping[str, Any], factor: float) -> float | None:
    """What a counter counts up to, in base units; the greatest number of its type is no such thing."""
    greatest = number(details.get("max", details.get("valid_max")))
    if greatest is None or not greatest or greatest >= _NO_RANGE.get(str(details.get("dtype")), 2.0**31 - 1):
        return None
    return greatest * factor


_NO_RANGE = {"uint64": 2.0**63, "int64": 2.0**62, "uint32": 2.0**32 - 1, "float32": 1e38, "float64": 1e300}


# HDF5


def _from_hdf5(original: Original) -> list[_Tree]:
    """The trees of an HDF5 file. Links that lead anywhere else are not followed."""
    try:
        import h5py  # noqa: PLC0415 - an extra, and heavy
    except ImportError as error:
        found = "reading HDF5 needs h5py: pip install 'llm-energy-measure[hdf5]'"
        raise RefusedFileError("missing_extra", found) from error
    try:
        with h5py.File(io.BytesIO(original.data), "r") as file:
            budget = [_MAX_OBJECTS, _MAX_SAMPLES]
            return [_from_group(group, name, budget, 0) for name, group in _groups(h5py, file)]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise RefusedFileError("unreadable", f"it is no HDF5 that can be read ({error})") from error


def _groups(h5py: Any, parent: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - h5py has no types
    """Groups right below one that lie in the same file, by name."""
    for name in parent:
        is_own = isinstance(parent.get(name, getlink=True), h5py.HardLink)
        if is_own and parent.get(name, getclass=True) is h5py.Group:
            yield name, parent[name]


def _from_group(group: Any, name: str, budget: list[int], depth: int) -> _Tree:  # noqa: ANN401 - h5py has no types
    import h5py  # noqa: PLC0415 - there, or nobody would have come here

    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        raise RefusedFileError("too_large", f"it has more than {_MAX_OBJECTS} nodes, or more than {_MAX_DEPTH} levels")
    facts = {key: _plain(value) for key, value in group.attrs.items()}
    inner = dict(_groups(h5py, group))
    level = facts.pop("type", _SENSOR)
    tree = _Tree(
        name=name,
        level=level if isinstance(level, int) else _SENSOR,
        facts=facts,
        metrics=_metrics({key: _attributes(found) for key, found in _groups(h5py, inner.get("metrics", {}))}),
        kind=text(facts.pop("device_type", None)),
    )
    if "raw_data" in inner and tree.level == _SENSOR:
        times, details = _samples(inner["raw_data"], "timesteps", budget)
        tree.times = _scaled(times, details, number(details.get("mag")) or 1.0)
        values, details = _samples(inner["raw_data"], "values", budget)
        factor = number(details.get("mag")) or 1.0
        tree.values, tree.unit = _scaled(values, details, factor), text(details.get("unit")) or ""
        tree.wraps_at = _range(details, factor)
    if "nodes" in inner:
        tree.children = [_from_group(child, key, budget, depth + 1) for key, child in _groups(h5py, inner["nodes"])]
    return tree


def _samples(group: Any, name: str, budget: list[int]) -> tuple[list[Any], dict[str, Any]]:  # noqa: ANN401 - h5py has no types
    """A data set, once it is known to be small and to lie in this file."""
    found = group.get(name)
    if found is None or not hasattr(found, "shape") or len(found.shape) != 1:
        return [], {}
    budget[1] -= found.shape[0]
    if found.is_virtual or found.external:
        raise RefusedFileError("not_a_file", f"{name} lies in another file, which is not followed")
    if budget[1] < 0:
        raise RefusedFileError("too_large", f"it has more than {_MAX_SAMPLES} samples; split it")
    return found[()].tolist(), _attributes(found)


def _attributes(found: Any) -> dict[str, Any]:  # noqa: ANN401 - h5py has no types
    return {key: _plain(value) for key, value in found.attrs.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - an attribute can be anything
    """A value of HDF5 as one of JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    value = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str | int | float | bool | list) else str(value)


FORMAT = Format(
    name=TOOL,
    looks_for="JSON with id, type, metrics and nodes, or HDF5",
    recognises=_recognises,
    read=_read,
)

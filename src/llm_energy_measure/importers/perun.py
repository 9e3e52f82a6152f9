"""Results of perun, as JSON or HDF5: a tree of application, runs, nodes, device groups and sensors.

Each node of a run is one record of host scope: a host counts once. Its sensors stand in it, GPUs as devices too.
Regions are parts of a run that several ranks enter, and are not imported. Energy is calculated anew from what each
sensor read: a counter's differences, with its wraps, or the integral of power samples. perun's own energy has the PUE
multiplied in; it is only compared.

Source: perun 0.x and 1.0, `perun export` and its HDF5 files.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import (
    COUNTER_RESET,
    SAMPLING_GAP,
    SENSOR_LOST,
    Component,
    DeviceEnergy,
    EnergyMetrics,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.importers.cells import identifier, number, number_in, text, time_in
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.perun_tree import (
    MAX_DEPTH,
    SENSOR,
    Answer,
    Tree,
    detail,
    metrics_of,
    range_of,
    scaled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llm_energy_measure.importers.bounded import Original

TOOL = "perun"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FIELDS = {"id", "type", "metrics", "nodes"}
_NODE = 4
_PATIENCE_SEC = 60
_TOLERANCE = 0.01
_FEWEST = 2
"""Samples that a difference takes."""
_COMPONENTS: dict[str, Component] = {"cpu": "cpu", "gpu": "gpu", "ram": "ram", "dram": "ram"}
_WHOLE = frozenset(("psys", "node"))
"""Kinds of device, and beginnings of a sensor's name, that stand for the whole node."""


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


def _runs(tree: Tree, way: tuple[Tree, ...]) -> Iterator[tuple[tuple[Tree, ...], list[Tree]]]:
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
    original: Original, way: tuple[Tree, ...], node: Tree, place: tuple[int, int], report: LossReport
) -> Iterator[RawProcessResult]:
    """The record of one host in one run; refused if no sensor of it measured energy."""
    index, nodes = place
    where = "/".join([*(part.name for part in way), node.name])
    found = [(sensor, reading) for sensor in _sensors(node) if (reading := _reading(sensor)) is not None]
    energies = [reading for _, reading in found]
    facts = {name: value for part in (*way, node) for name, value in part.facts.items()}
    if not any((reading.samples or 0) >= _FEWEST for reading in energies):
        names = ", ".join(sensor.name for sensor in _sensors(node)[:6]) or "none"
        report.refuse(original.shown, "no_sensor", f"no sensor of {where} measured energy; its sensors are {names}")
        return
    remarks = Remarks()
    of_whole = [reading for sensor, reading in found if _is_whole(sensor)]
    energy = _energy(node, energies, of_whole, remarks)
    _compare(node, energy, facts, remarks)
    siblings = [child for child in way[-2].children if child.level == way[-1].level] if len(way) > 1 else []
    start = time_in(str(facts.get("execution_dt") or "")) if len(siblings) < 2 else None
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


def _sensors(node: Tree) -> list[Tree]:
    if node.level == SENSOR:
        return [node]
    return [sensor for child in node.children for sensor in _sensors(child)]


def _reading(sensor: Tree) -> SensorReading | None:
    """What a sensor measured, calculated from its samples; None if it measures neither energy nor power.

    Where its samples are too few, or in no order, its energy is unknown: the host's total is then, too.
    """
    if sensor.unit not in ("J", "W"):
        return None
    pairs = zip(sensor.times, sensor.values, strict=False)
    samples = [(time, value) for time, value in pairs if time is not None and value is not None]
    is_counter, is_enough = sensor.unit == "J", len(samples) >= _FEWEST
    # Samples that are not in the order of time, or more than their times, would be energy of no time at all.
    is_in_order = len(sensor.times) == len(sensor.values) and samples == sorted(samples, key=lambda sample: sample[0])
    joules, wraps = None, None
    if is_enough and is_in_order:
        joules, wraps = _counted(sensor, samples) if is_counter else (_integrated(samples), None)
        joules = number(joules)
    lost = COUNTER_RESET if is_in_order else SAMPLING_GAP
    span = samples[-1][0] - samples[0][0] if is_enough else 0.0
    component = _COMPONENTS.get((sensor.kind or "").lower(), "total")
    return SensorReading(
        source=text(sensor.facts.get("source")) or TOOL,
        instance=sensor.name,
        component=component,
        scope="device" if component == "gpu" else "host",
        provenance="measured" if is_counter else "integrated",
        energy_j=joules,
        counter_start_j=samples[0][1] if is_counter and samples else None,
        counter_end_j=samples[-1][1] if is_counter and samples else None,
        counter_range_j=sensor.wraps_at if is_counter else None,
        wraps=wraps,
        samples=len(samples),
        sampling_rate_hz=(len(samples) - 1) / span if span > 0 else None,
        problems=[] if joules is not None else [lost if is_enough else SENSOR_LOST],
    )


def _counted(sensor: Tree, samples: Sequence[tuple[float, float]]) -> tuple[float | None, int | None]:
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
    return math.fsum((one[1] + other[1]) / 2 * (other[0] - one[0]) for one, other in pairs)


def _is_whole(sensor: Tree) -> bool:
    """True if a sensor measures the whole node."""
    kind, name = (sensor.kind or "").lower(), sensor.name.lower()
    return kind in _WHOLE or (kind not in _COMPONENTS and name.startswith(tuple(_WHOLE)))


def _total(sensors: list[SensorReading], of_whole: list[SensorReading], remarks: Remarks) -> list[SensorReading]:
    """The sensors that make up the host, each part once; none if nobody knows whether one lies in another."""
    names = ", ".join(sensor.instance or "" for sensor in sensors if sensor.component == "total")
    if not names:
        return sensors
    if len(of_whole) == 1:
        remarks.note("components_disagree", f"{of_whole[0].instance} measured the whole node and is the total alone")
        return of_whole
    remarks.note("no_energy", f"whether the energy of {names} lies in that of the other sensors is not known")
    return []


def _energy(node: Tree, sensors: list[SensorReading], of_whole: list[SensorReading], remarks: Remarks) -> EnergyMetrics:
    """Energy of a host: that of the sensor of the whole node, else of all components."""
    by_component: dict[str, list[float | None]] = {}
    for sensor in sensors:
        by_component.setdefault(sensor.component, []).append(sensor.energy_j)
    sums = {
        name: None if None in values else math.fsum(value for value in values if value is not None)
        for name, values in by_component.items()
    }
    counted = _total(sensors, of_whole, remarks)
    joules = [sensor.energy_j for sensor in counted if sensor.energy_j is not None]
    is_known = bool(counted) and len(joules) == len(counted)
    provenances = {sensor.provenance for sensor in counted}
    devices = [
        DeviceEnergy(energy_j=sensor.energy_j, provenance=sensor.provenance)
        for sensor in sensors
        if sensor.component == "gpu"
    ]
    return EnergyMetrics(
        total_energy_j=math.fsum(joules) if is_known else None,
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


def _provenance(sensors: Sequence[SensorReading], component: str) -> Any:
    found = {sensor.provenance for sensor in sensors if sensor.component == component}
    return found.pop() if len(found) == 1 else None


def _compare(node: Tree, energy: EnergyMetrics, facts: Mapping[str, Any], remarks: Remarks) -> None:
    """Say where perun's own figure, which has the PUE in it, is another."""
    own, pue = node.metrics.get("energy"), number_in(str(facts.get("post-processing.pue", "1"))) or 1.0
    if energy.total_energy_j is None and any(sensor.problems for sensor in energy.sensors or []):
        lost = ", ".join(
            f"{sensor.instance} ({problem})" for sensor in energy.sensors or [] for problem in sensor.problems
        )
        remarks.note("no_energy", f"what a sensor measured can't be told from its samples: {lost}")
    elif (
        own is not None
        and energy.total_energy_j is not None
        and not math.isclose(own / pue, energy.total_energy_j, rel_tol=_TOLERANCE)
    ):
        found = f"perun's energy is {own!r} J with a PUE of {pue:g}, its samples come to {energy.total_energy_j!r} J"
        remarks.note("own_aggregate_differs", found)


# JSON


def _from_json(document: object, name: str, depth: int) -> Tree:
    """The tree of a JSON export; `nodes` is a mapping, or a list that holds one."""
    if not isinstance(document, dict) or depth > MAX_DEPTH:
        raise RefusedFileError("missing_field", f"{name} is no node of perun's tree")
    raw = document.get("raw_data")
    raw = raw if isinstance(raw, dict) else {}
    details = detail(raw, "v_md")
    nodes = document.get("nodes")
    mappings = [nodes] if isinstance(nodes, dict) else nodes if isinstance(nodes, list) else []
    factor = number(details.get("mag")) or 1.0
    tree = Tree(
        name=text(document.get("id")) or name,
        level=level if isinstance(level := document.get("type"), int) else SENSOR,
        facts=facts if isinstance(facts := document.get("metadata"), dict) else {},
        metrics=metrics_of(document.get("metrics")),
        kind=text(document.get("deviceType")),
        times=scaled(raw.get("timesteps"), detail(raw, "t_md"), 1.0),
        values=scaled(raw.get("values"), details, factor),
        unit=text(details.get("unit")) or "",
        wraps_at=range_of(details, factor),
    )
    tree.children = [
        _from_json(child, inner, depth + 1)
        for mapping in mappings
        if isinstance(mapping, dict)
        for inner, child in mapping.items()
    ]
    return tree


# HDF5


def _from_hdf5(original: Original) -> list[Tree]:
    """The trees of an HDF5 file, read by a process of its own: on a torn file the HDF5 library can loop or crash."""
    import subprocess

    if importlib.util.find_spec("h5py") is None:
        found = f"reading HDF5 needs h5py: pip install {EXTRA_PACKAGES['hdf5']}"
        raise RefusedFileError("missing_extra", found)
    # -P: whatever lies in the working directory is not imported.
    command = [sys.executable, "-P", "-m", "llm_energy_measure.importers.perun_hdf5"]
    try:
        done = subprocess.run(command, input=original.data, capture_output=True, timeout=_PATIENCE_SEC, check=False)
    except subprocess.TimeoutExpired as error:
        found = f"it is no HDF5 that can be read within {_PATIENCE_SEC} s"
        raise RefusedFileError("unreadable", found) from error
    try:
        answer = msgspec.json.decode(done.stdout, type=Answer)
    except msgspec.DecodeError as error:
        found = f"the HDF5 library broke off while it read the file (status {done.returncode})"
        raise RefusedFileError("unreadable", found) from error
    if answer.code is not None:
        raise RefusedFileError(answer.code, answer.sentence)
    return answer.trees


FORMAT = Format(
    name=TOOL,
    looks_for="JSON with id, type, metrics and nodes, or HDF5",
    recognises=_recognises,
    read=_read,
)

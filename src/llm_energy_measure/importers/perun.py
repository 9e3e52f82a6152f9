"""Import results of perun, in JSON or HDF5: a tree of application, runs, nodes, device groups and sensors.

Each node of a run is one record with the scope host, so that a host counts once. The record has the readings of the
sensors, and the GPUs as devices. Regions are parts of a run that several ranks enter, and are not imported. The energy
of a sensor is computed from its samples: the increase of a counter, with wraps, or the integral of power. perun's own
energy includes the PUE (power usage effectiveness), so this energy is not imported, but compared with the computed one.

Source: perun 0.x and 1.0, `perun export` and its HDF5 files.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
    Provenance,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.perun_tree import SENSOR, Tree, build_tree
from llm_energy_measure.importers.record_parts import imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_number, as_text, identifier, parse_number, parse_time

TOOL = "perun"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FIELDS = {"id", "type", "metrics", "nodes"}
_NODE = 4
_TIMEOUT_SEC = 60
_TOLERANCE = 0.01
_MIN_SAMPLES = 2
"""A difference needs two samples."""
_COMPONENTS: dict[str, Component] = {"cpu": "cpu", "gpu": "gpu", "ram": "ram", "dram": "ram"}
_WHOLE_NODE = ("psys", "node")
"""Device types, and prefixes of sensor names, of sensors that measure the whole node."""


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each node of each run; a node whose sensors measured no energy is refused."""
    del options
    [source] = sources
    trees = _from_hdf5(source) if source.start.startswith(_HDF5) else [build_tree(source.json(), "app")]
    runs = [run for tree in trees for run in _runs(tree, ())]
    if not runs:
        report.refuse(source.path, "no_measurement", "no run of the file has a node, so nothing was measured")
    for path, nodes in runs:
        for index, node in enumerate(nodes):
            notes = Notes()
            with report.refusing(source.path):
                record = _record(source, path, node, notes)
                record = msgspec.structs.replace(record, process_index=index, world_size=len(nodes))
                yield report.record(source.path, record, notes)


def _runs(tree: Tree, ancestors: tuple[Tree, ...]) -> Iterator[tuple[tuple[Tree, ...], list[Tree]]]:
    """Yield the nodes of each run, with the path of tree nodes from the application down to the run."""
    path = (*ancestors, tree)
    # The position of a node is its process index, so the order must be the same in JSON and in HDF5.
    nodes = sorted((child for child in tree.children if child.level == _NODE), key=lambda node: node.name)
    if nodes:
        yield path, nodes
    for child in tree.children:
        if child.level < _NODE:
            yield from _runs(child, path)


def _record(source: ImportSource, path: tuple[Tree, ...], node: Tree, notes: Notes) -> RawProcessResult:
    """Return the record of one host in one run; refuse a host without a sensor that measured energy."""
    sensors = _sensors(node)
    found = [(sensor, reading) for sensor in sensors if (reading := _reading(sensor)) is not None]
    if not any((reading.samples or 0) >= _MIN_SAMPLES for _, reading in found):
        where = "/".join(part.name for part in (*path, node))
        names = ", ".join(sensor.name for sensor in sensors[:6]) or "none"
        raise RefusedInputError("no_sensor", f"no sensor of {where} measured energy; its sensors are: {names}")
    of_node = [reading for sensor, reading in found if _is_whole_node(sensor)]
    energy = _energy(node, [reading for _, reading in found], of_node, notes)
    facts = {name: value for part in (*path, node) for name, value in part.facts.items()}
    _compare(node, energy, facts, notes)
    runs = [child for child in path[-2].children if child.level == path[-1].level] if len(path) > 1 else []
    # `execution_dt` is the start of the application, which is the start of a run only if there is one run.
    start = parse_time(str(facts.get("execution_dt") or "")) if len(runs) < 2 else None
    return imported_record(
        identifier(TOOL, *(part.name.replace(":", "") for part in path)),
        config_name=path[0].name,
        timestamps=Timestamps(start=start, end=None, duration_sec=energy.duration_sec),
        energy_metrics=energy,
        effective_config={TOOL: facts},
        host=node.name,
        origin=source.origin(TOOL, as_text(facts.get("perun_version"))),
    )


def _sensors(node: Tree) -> list[Tree]:
    if node.level == SENSOR:
        return [node]
    return [sensor for child in node.children for sensor in _sensors(child)]


def _reading(sensor: Tree) -> SensorReading | None:
    """Return the reading of a sensor, computed from its samples; None if it measures neither energy nor power.

    The energy is None if the samples are too few or not in order of time.
    """
    if sensor.unit not in ("J", "W"):
        return None
    pairs = zip(sensor.times, sensor.values, strict=False)
    samples = [(time, value) for time, value in pairs if time is not None and value is not None]
    is_counter, is_enough = sensor.unit == "J", len(samples) >= _MIN_SAMPLES
    is_in_order = len(sensor.times) == len(sensor.values) and samples == sorted(samples, key=lambda sample: sample[0])
    joules, wraps = None, None
    if is_enough and is_in_order:
        joules, wraps = _counter_energy(sensor, samples) if is_counter else (_power_energy(samples), None)
        joules = as_number(joules)
    problem = SENSOR_LOST if not is_enough else COUNTER_RESET if is_in_order else SAMPLING_GAP
    span_sec = samples[-1][0] - samples[0][0] if is_enough else 0.0
    component = _COMPONENTS.get((sensor.kind or "").lower(), "total")
    return SensorReading(
        source=as_text(sensor.facts.get("source")) or TOOL,
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
        sampling_rate_hz=(len(samples) - 1) / span_sec if span_sec > 0 else None,
        problems=[] if joules is not None else [problem],
    )


def _counter_energy(sensor: Tree, samples: Sequence[tuple[float, float]]) -> tuple[float | None, int | None]:
    """Return the energy of a counter in joules and the number of its wraps.

    Both are None if the counter decreased, and its range is unknown or less than the value before the decrease.
    """
    total, wraps = 0.0, 0
    for (_, before), (_, after) in itertools.pairwise(samples):
        total += after - before
        if after < before:
            if sensor.wraps_at is None or sensor.wraps_at < before:
                return None, None
            total += sensor.wraps_at
            wraps += 1
    return total, wraps


def _power_energy(samples: Sequence[tuple[float, float]]) -> float:
    """Return the integral of power samples over time, by the trapezoidal rule."""
    pairs = itertools.pairwise(samples)
    return math.fsum((one[1] + other[1]) / 2 * (other[0] - one[0]) for one, other in pairs)


def _is_whole_node(sensor: Tree) -> bool:
    """True if a sensor measures the whole node."""
    kind, name = (sensor.kind or "").lower(), sensor.name.lower()
    return kind in _WHOLE_NODE or (kind not in _COMPONENTS and name.startswith(_WHOLE_NODE))


def _sensors_of_total(sensors: list[SensorReading], of_node: list[SensorReading], notes: Notes) -> list[SensorReading]:
    """Return the sensors whose sum is the energy of the host; empty if one energy may include another."""
    names = ", ".join(sensor.instance or "" for sensor in sensors if sensor.component == "total")
    if not names:
        return sensors
    if len(of_node) == 1:
        found = f"{of_node[0].instance} measured the whole node, so the total is the energy of this sensor alone"
        notes.add("components_disagree", found)
        return of_node
    found = f"the total is null, because {names} may measure energy that another sensor also measures"
    notes.add("no_energy", found)
    return []


def _energy(node: Tree, sensors: list[SensorReading], of_node: list[SensorReading], notes: Notes) -> EnergyMetrics:
    """Return the energy of a host: of the sensor of the whole node, or the sum of the components."""
    of_total = _sensors_of_total(sensors, of_node, notes)
    parts: dict[str, Any] = {}
    for name in ("gpu", "cpu", "ram"):
        own = [sensor for sensor in sensors if sensor.component == name]
        if own:
            parts[f"{name}_energy_j"] = _sum(own)
            parts[f"{name}_scope"] = "device" if name == "gpu" else "host"
            parts[f"{name}_provenance"] = _only_provenance(own)
    gpus = [sensor for sensor in sensors if sensor.component == "gpu"]
    return EnergyMetrics(
        total_energy_j=_sum(of_total) if of_total else None,
        total_scope="host",
        total_provenance=_only_provenance(of_total),
        duration_sec=node.metrics.get("runtime"),
        devices=[DeviceEnergy(energy_j=gpu.energy_j, provenance=gpu.provenance) for gpu in gpus] or None,
        sensors=sensors,
        **parts,
    )


def _sum(sensors: Sequence[SensorReading]) -> float | None:
    """Return the sum of the energy of sensors; None if the energy of one of them is unknown."""
    known = [sensor.energy_j for sensor in sensors if sensor.energy_j is not None]
    return math.fsum(known) if len(known) == len(sensors) else None


def _only_provenance(sensors: Sequence[SensorReading]) -> Provenance | None:
    """Return the provenance that all sensors share, or None."""
    found = {sensor.provenance for sensor in sensors}
    return found.pop() if len(found) == 1 else None


def _compare(node: Tree, energy: EnergyMetrics, facts: Mapping[str, Any], notes: Notes) -> None:
    """Add a note if the energy is unknown, or differs from the energy of perun divided by the PUE."""
    own_j, pue = node.metrics.get("energy"), parse_number(str(facts.get("post-processing.pue", "1"))) or 1.0
    lost = [f"{sensor.instance} ({problem})" for sensor in energy.sensors or [] for problem in sensor.problems]
    if energy.total_energy_j is None:
        if lost:
            notes.add("no_energy", f"the samples of these sensors give no energy: {', '.join(lost)}")
    elif own_j is not None and not math.isclose(own_j / pue, energy.total_energy_j, rel_tol=_TOLERANCE):
        stated = f"perun states {own_j!r} J, which is {own_j / pue!r} J without its PUE of {pue:g}"
        notes.add("own_aggregate_differs", f"{stated}, but the samples give {energy.total_energy_j!r} J")


def _from_hdf5(source: ImportSource) -> list[Tree]:
    """Return the trees of an HDF5 file. A child process reads the file: HDF5 can loop or crash on a damaged file."""
    import subprocess

    if importlib.util.find_spec("h5py") is None:
        found = f"h5py, which reads HDF5, is not installed; run: pip install {EXTRA_PACKAGES['hdf5']}"
        raise RefusedInputError("missing_extra", found)
    # -P keeps modules in the working directory from being imported.
    command = [sys.executable, "-P", "-m", "llm_energy_measure.importers.perun_hdf5"]
    try:
        done = subprocess.run(command, input=source.data, capture_output=True, timeout=_TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired as error:
        found = f"the HDF5 library did not read the file within {_TIMEOUT_SEC} s; split the file"
        raise RefusedInputError("unreadable", found) from error
    try:
        response = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError as error:
        found = f"the HDF5 library ended with status {done.returncode}; the file is damaged"
        raise RefusedInputError("unreadable", found) from error
    if "code" in response:
        raise RefusedInputError(response["code"], response["message"])
    return [build_tree(document, name) for name, document in response["documents"].items()]


FORMAT = Format(
    name=TOOL,
    looks_for="JSON with id, type, metrics and nodes, or HDF5",
    recognises=lambda source: source.start.startswith(_HDF5) or set(source.fields) >= _FIELDS,
    read=_read,
    covers="host: one record per host and run, with all sensors; GPUs are devices",
    unknown="model, tokens, start of each run if there are several runs",
)

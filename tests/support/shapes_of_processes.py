"""Shapes with a record for each host or process of an experiment: perun, and results of this tool before 2.0.0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from llm_energy_measure.results.columns import kwh_of
from tests.support import peers
from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    INFERENCE,
    LATENCY,
    LAUNCHER,
    NAMES,
    SENSORS,
    STATUS,
    VERSIONS,
    Shape,
    Values,
    copy_of,
    derived_id,
    if_known,
    null,
    scopes,
)
from tests.support.shapes_of_logs import (
    METRIC_PATHS,
    all_tokens,
    anything,
    boards,
    counts,
    document,
    joules,
    kwh_as_j,
    machine_options,
    maybe,
    names,
    seconds,
    watts,
    whole_timestamps,
    with_config,
    words,
)
from tests.support.shapes_of_runs import ENERGIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

# perun: samples of sensors, from which the importer computes the readings

SENSOR = "energy_metrics.sensors[]."
KINDS = {"cpu": "cpu", "gpu": "gpu", "ram": "ram", "total": "psys"}


@st.composite
def sensor_readings(draw: st.DrawFn, component: str, number: int) -> Values:
    samples, rate = draw(st.integers(2, 6)), draw(st.sampled_from([0.5, 1.0, 2.0, 4.0]))
    found: Values = {
        "source": draw(words),
        "instance": f"{component}_{number}",
        "component": component,
        "scope": "device" if component == "gpu" else "host",
        "samples": samples,
        "sampling_rate_hz": rate,
        **dict.fromkeys(("counter_start_j", "counter_end_j", "counter_range_j", "wraps")),
        "problems": [],
    }
    if draw(st.booleans()):  # equal power samples
        energy = draw(st.integers(0, 10**6)) * (samples - 1) / rate
        return {**found, "provenance": "integrated", "energy_j": energy}
    limit = draw(maybe(st.integers(1000, 10**9)))
    start = draw(st.integers(0, (limit or 10**9) - 1))
    # A counter may wrap only once between two samples; more wraps are not visible in the samples.
    energy = draw(st.integers(0, (limit - 1 if limit else 10**6) * (samples - 1)))
    energy -= energy % (samples - 1)
    end, wraps = start + energy, 0
    if limit is not None:
        wraps, end = divmod(start + energy, limit)
    counter: Values = {"counter_start_j": float(start), "counter_end_j": float(end), "wraps": wraps}
    counter["energy_j"] = float(energy)
    counter["counter_range_j"] = None if limit is None else float(limit)
    if limit is None and draw(st.booleans()):  # it decreased, and its range is unknown
        counter |= {"counter_start_j": float(start + 1), "counter_end_j": 0.0, "wraps": None, "energy_j": None}
        found["problems"] = ["counter_reset"]
    return {**found, "provenance": "measured", **counter}


@st.composite
def perun_nodes(draw: st.DrawFn) -> list[Values]:
    hosts = draw(st.sets(names, min_size=1, max_size=3).map(sorted))
    app, version, start = draw(names), draw(maybe(names)), draw(maybe(whole_timestamps))
    rest = draw(st.dictionaries(st.sampled_from(["benchmarking.rounds", "monitoring.sampling"]), st.floats(0, 9)))
    facts = rest | ({} if version is None else {"perun_version": version})
    facts |= {} if start is None else {"execution_dt": start.isoformat()}
    found = []
    for index, host in enumerate(hosts):
        components = draw(st.lists(st.sampled_from(["cpu", "gpu", "ram"]), min_size=1, max_size=4).map(sorted))
        # A sensor of the whole node is optional. The sensors are in the order of their names.
        components += draw(st.sampled_from([[], ["total"]]))
        components.sort(key=KINDS.__getitem__)
        sensors = [draw(sensor_readings(component, number)) for number, component in enumerate(components)]
        found.append(
            {
                "process_index": index,
                "world_size": len(hosts),
                "host": host,
                "config_name": app,
                "timestamps.start": start,
                "energy_metrics.duration_sec": draw(maybe(seconds)),
                **{f"{SENSOR}{name}": [sensor[name] for sensor in sensors] for name in sensors[0]},
                "effective_config": {"perun": facts},
                "origin.version": version,
            }
        )
    return found


def perun_sum(*components: str) -> Callable[[Values], float | None]:
    """Return the energy of components; by default that of the sensor of the whole node, or of all sensors."""

    def total(values: Values) -> float | None:
        of_each = list(zip(values[f"{SENSOR}component"], values[f"{SENSOR}energy_j"], strict=True))
        wanted = components or (("total",) if ("total" in values[f"{SENSOR}component"]) else tuple(KINDS))
        energies = [energy for component, energy in of_each if component in wanted]
        return None if not energies or None in energies else math.fsum(energies)

    return total


def perun_provenance(*components: str) -> Callable[[Values], str | None]:
    def provenance(values: Values) -> str | None:
        of_each = list(zip(values[f"{SENSOR}component"], values[f"{SENSOR}provenance"], strict=True))
        wanted = components or (("total",) if ("total" in values[f"{SENSOR}component"]) else tuple(KINDS))
        found = {provenance for component, provenance in of_each if component in wanted}
        return found.pop() if len(found) == 1 else None

    return provenance


def perun_scope(component: str, scope: str) -> Callable[[Values], str | None]:
    return lambda values: scope if component in values[f"{SENSOR}component"] else None


def perun_gpus(name: str) -> Callable[[Values], list[Any] | None]:
    def of_gpus(values: Values) -> list[Any] | None:
        pairs = zip(values[f"{SENSOR}component"], values[f"{SENSOR}{name}"], strict=True)
        return [value for component, value in pairs if component == "gpu"] or None

    return of_gpus


def perun_tree(records: list[RawProcessResult]) -> dict[str, Any]:
    nodes: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        sensors = nodes.setdefault(record.host or "", [])
        for reading in record.energy_metrics.sensors or []:
            samples, rate = reading.samples or 0, reading.sampling_rate_hz or 0.0
            details: dict[str, Any] = {}
            if reading.provenance == "integrated":
                values = [(reading.energy_j or 0.0) / (samples - 1) * rate] * samples
            else:
                step = (reading.energy_j or 0.0) / (samples - 1)
                limit = reading.counter_range_j or math.inf
                values = [((reading.counter_start_j or 0.0) + index * step) % limit for index in range(samples)]
                values[-1] = reading.counter_end_j or 0.0
                details = {} if reading.counter_range_j is None else {"max": reading.counter_range_j}
            unit = "W" if reading.provenance == "integrated" else "J"
            sensor = peers.perun_sensor(reading.instance or "", KINDS[reading.component], unit, values, **details)
            sensor["raw_data"]["timesteps"] = [index / rate for index in range(samples)]
            sensor["metadata"] = {"source": reading.source}
            sensors.append(sensor)
    tree = peers.perun_tree(nodes)
    [run] = tree["nodes"][0].values()
    tree["id"], run["metadata"] = records[0].config_name, document(records[0], "perun")
    [of_run] = run["nodes"][0].values()
    for record in records:
        runtime = record.energy_metrics.duration_sec
        node = of_run["nodes"][0][record.host]
        node["metrics"] = (
            {} if runtime is None else {**node["metrics"], "runtime": {**node["metrics"]["runtime"], "value": runtime}}
        )
    return tree


def perun(write: Callable[[Path, dict[str, Any]], Path]) -> Shape:
    def write_perun(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
        write(folder / "app", perun_tree(records))
        return {}

    return Shape(
        stored=frozenset(
            [
                *(f"{SENSOR}{name}" for name in ("source", "instance", "component", "scope", "provenance", "energy_j")),
                *(f"{SENSOR}{name}" for name in ("counter_start_j", "counter_end_j", "counter_range_j", "wraps")),
                *(f"{SENSOR}{name}" for name in ("samples", "sampling_rate_hz", "problems")),
                *("process_index", "world_size", "host", "config_name", "timestamps.start", "effective_config"),
                *("energy_metrics.duration_sec", "origin.version"),
            ]
        ),
        derived={
            **ABSENT,
            **NAMES,
            **LAUNCHER,
            **STATUS,
            **VERSIONS,
            **INFERENCE,
            **COMPUTE,
            "experiment_id": derived_id("perun")["experiment_id"],
            **null("", "gpu_id gpu_uuid gpu_name"),
            "origin.tool": "perun",
            **null("timestamps.", "end"),
            "timestamps.duration_sec": copy_of("energy_metrics.duration_sec"),
            "energy_metrics.total_energy_j": perun_sum(),
            **{f"energy_metrics.{part}_energy_j": perun_sum(part) for part in ("gpu", "cpu", "ram")},
            **null("energy_metrics.", "gpu_power_w cpu_power_w emissions_kg_co2 energy_per_token_j"),
            **null("energy_metrics.devices[].", "gpu_uuid gpu_name"),
            "energy_metrics.devices[].energy_j": perun_gpus("energy_j"),
            "energy_metrics.devices[].provenance": perun_gpus("provenance"),
            **scopes(
                total_scope="host",
                total_provenance=perun_provenance(),
                gpu_scope=perun_scope("gpu", "device"),
                gpu_provenance=perun_provenance("gpu"),
                cpu_scope=perun_scope("cpu", "host"),
                cpu_provenance=perun_provenance("cpu"),
                ram_scope=perun_scope("ram", "host"),
                ram_provenance=perun_provenance("ram"),
            ),
        },
        strategy=perun_nodes(),
        write=write_perun,
    )


PERUN = perun(peers.write_json)
PERUN_HDF5 = perun(peers.write_perun_hdf5)


# Results of this tool before 2.0.0: a folder is an experiment

MAIN = [
    *METRIC_PATHS[:3],
    *("inference_metrics.inference_time_sec", "compute_metrics.flops_total", "compute_metrics.peak_memory_mb"),
    "compute_metrics.compute_precision",
]
"""Fields of the main process, which an experiment stores once."""


@st.composite
def legacy_folders(draw: st.DrawFn) -> list[Values]:
    size, board = draw(st.integers(1, 4)), draw(maybe(boards))
    shared = {
        "experiment_id": draw(st.sampled_from(["0042", "3b_0211", "run-7"])),
        "backend": draw(maybe(words)),
        "config_name": draw(maybe(words)),
        "model_name": draw(maybe(words)),
        "gpu_name": board,
        "energy_metrics.devices[].gpu_name": (board and [board] * draw(st.integers(0, 8))) or None,
        "host": draw(maybe(names)),
        "world_size": draw(maybe(st.just(size))),
        "timestamps.start": draw(maybe(whole_timestamps)),
    }
    main: Values = dict.fromkeys(MAIN)
    if draw(st.booleans()):
        main |= {path: draw(counts) for path in MAIN[:2]} | {path: draw(maybe(seconds)) for path in MAIN[2:4]}
    if draw(st.booleans()):
        main |= {MAIN[4]: draw(joules), MAIN[5]: draw(maybe(st.integers(0, 2**50).map(lambda n: n / 2**20)))}
        main[MAIN[6]] = draw(maybe(names))
    rest = {"number_input_prompts": draw(counts), "my note": draw(anything)}
    return [
        {
            **shared,
            **(main if index == 0 else dict.fromkeys(MAIN)),
            "process_index": index,
            **dict(zip(ENERGIES, [draw(kwh_as_j), *(draw(maybe(kwh_as_j)) for _ in range(3))], strict=True)),
            "energy_metrics.gpu_power_w": draw(maybe(watts)),
            "energy_metrics.cpu_power_w": draw(maybe(watts | st.just(112.5))),
            "energy_metrics.emissions_kg_co2": draw(maybe(st.floats(0, 10))),
            "effective_config": rest,
        }
        for index in range(size)
    ]


def legacy_window(values: Values) -> float | None:
    cpu_j = values["energy_metrics.cpu_energy_j"]
    return cpu_j / 112.5 if cpu_j and values["energy_metrics.cpu_power_w"] == 112.5 else None


def legacy_documents(records: list[RawProcessResult]) -> dict[str, dict[str, Any]]:
    """Return the files that an experiment has once, by kind."""
    main = records[0]
    start, metrics, compute = main.timestamps.start, main.inference_metrics, main.compute_metrics
    number = len(main.energy_metrics.devices or [])
    documents: dict[str, dict[str, Any]] = {
        "setup": {
            "experiment_id": main.experiment_id,
            "date_time": None if start is None else start.strftime("%B %d, %Y at %I:%M:%S %p"),
            "model": main.model_name,
            "gpu_model": f"{number} x {main.gpu_name}" if number else main.gpu_name,
        },
        "variables": {
            **{name: value for name, value in main.effective_config.items() if name != "legacy"},
            "config_name": main.config_name,
            "backend": main.backend,
            "accelerate_config": {"num_processes": main.world_size},
            "fp_precision": None,
        },
        "architecture": {"total_params": 7, "architecture": "Unknown"},
    }
    if metrics is not None:
        documents["inference"] = {
            "raw_inference_metrics": {
                "total_input_tokens": metrics.input_tokens,
                "total_generated_tokens": metrics.output_tokens,
            },
            "inference_performance": {
                "total_inference_time_sec": metrics.inference_time_sec,
                "throughput_tokens_per_sec": metrics.tokens_per_second,
            },
        }
    if compute is not None:
        peak = compute.peak_memory_mb
        documents["compute"] = {
            "flops": compute.flops_total,
            "compute_utilisation": {},
            "memory": {"gpu_max_memory_allocated_bytes": None if peak is None else peak * 2**20},
        }
        if compute.compute_precision is not None:
            documents["variables"]["fp_precision"] = f"torch.{compute.compute_precision}"
    return documents


def legacy_energy(record: RawProcessResult) -> dict[str, Any]:
    energy = record.energy_metrics
    return {
        **{f"{name}_energy": kwh_of(getattr(energy, f"{name}_energy_j")) for name in ("cpu", "gpu", "ram")},
        "total_energy_kwh": kwh_of(energy.total_energy_j),
        "total_energy_joules": energy.total_energy_j,
        "gpu_power": energy.gpu_power_w,
        "cpu_power": energy.cpu_power_w,
        "final_emissions": energy.emissions_kg_co2,
    }


LEGACY_FILES = {
    "setup": "1_experiment_setup",
    "variables": "2_experiment_variables",
    "architecture": "3_model_architecture",
    "inference": "4_inference_metrics",
    "compute": "5_compute_metrics",
}


def write_legacy(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    name = records[0].experiment_id.rpartition("_")[2]
    for kind, found in legacy_documents(records).items():
        peers.write_json(folder / f"{name}_{LEGACY_FILES[kind]}.json", found)
    for record in records:
        found = {"local_process_index": record.process_index, "energy_results": legacy_energy(record)}
        peers.write_json(folder / f"{name}_6_local_energy_results_process_{record.process_index}.json", found)
    return machine_options(records)


def finish_legacy(records: list[RawProcessResult]) -> list[RawProcessResult]:
    documents = legacy_documents(records)
    variables = documents.pop("variables")
    return [
        with_config(record, {**variables, "legacy": {**documents, "energy_results": legacy_energy(record)}})
        for record in records
    ]


LEGACY = Shape(
    stored=frozenset(
        [
            *(*ENERGIES, *MAIN),
            *("experiment_id", "backend", "config_name", "model_name", "gpu_name", "host", "world_size"),
            *("energy_metrics.devices[].gpu_name", "timestamps.start", "process_index", "effective_config"),
            *("energy_metrics.gpu_power_w", "energy_metrics.cpu_power_w", "energy_metrics.emissions_kg_co2"),
        ]
    ),
    derived={
        **ABSENT,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **LATENCY,
        **SENSORS,
        **null("", "backend_version gpu_id gpu_uuid"),
        "launcher.local_rank": copy_of("process_index"),
        "origin.tool": "llm-energy-measure 1.x",
        **null("origin.", "version"),
        **null("timestamps.", "end duration_sec"),
        "inference_metrics.total_tokens": all_tokens,
        **null("inference_metrics.", "time_to_first_token_ms"),
        "energy_metrics.duration_sec": legacy_window,
        **null("energy_metrics.", "energy_per_token_j"),
        **null("energy_metrics.devices[].", "gpu_uuid energy_j provenance"),
        **scopes(
            cpu_provenance=lambda values: "modelled" if values["energy_metrics.cpu_power_w"] == 112.5 else None,
            ram_provenance=if_known("energy_metrics.ram_energy_j", "modelled"),
        ),
    },
    strategy=legacy_folders(),
    write=write_legacy,
    finish=finish_legacy,
    folder=lambda records: records[0].experiment_id,
)

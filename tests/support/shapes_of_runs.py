"""Shapes of runs with several experiments: windows and leaderboard of ML.ENERGY, phases of optimum-benchmark."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from llm_energy_measure.domain.units import JOULES_PER_KWH
from llm_energy_measure.results.columns import kwh_of
from tests.support import peers
from tests.support.shapes import (
    ABSENT,
    COMPUTE,
    INFERENCE,
    LAUNCHER,
    OTHER_LATENCY,
    SENSORS,
    STATUS,
    VERSIONS,
    WORLD,
    Shape,
    Values,
    copy_of,
    derived_id,
    for_each,
    if_known,
    near,
    null,
    scopes,
)
from tests.support.shapes_of_logs import (
    LATENCY_PATHS,
    METRIC_PATHS,
    REQUEST_COUNT,
    all_tokens,
    anything,
    as_client,
    boards,
    client_metrics,
    document,
    gaps_by_request,
    in_seconds,
    is_half_watts,
    joules,
    kwh_as_j,
    machine_options,
    maybe,
    moments,
    names,
    seconds,
    start_before,
    watts,
    whole_timestamps,
    with_config,
    words,
)

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

ENERGIES = [f"energy_metrics.{part}_energy_j" for part in ("total", "gpu", "cpu", "ram")]


# ML.ENERGY: a run has two windows


@st.composite
def ml_energy_runs(draw: st.DrawFn) -> list[Values]:
    gpus, status = draw(st.integers(1, 12)), draw(st.sampled_from([None, None, "failed"]))
    model, board, host = draw(words), draw(maybe(boards)), draw(maybe(names))
    uuids = draw(st.sampled_from([None, [f"GPU-{index}" for index in range(gpus)]]))
    rest = draw(st.dictionaries(st.sampled_from(["date", "request_rate", "seed", "my note"]), anything))
    metrics = draw(client_metrics(has_failed=status == "failed"))
    metrics["inference_metrics.inference_time_sec"] = None if all_tokens(metrics) is None else draw(maybe(seconds))
    found = []
    for window in ["whole", "steady"][: draw(st.integers(1, 2))]:
        start = draw(maybe(moments))
        is_whole = window == "whole"
        found.append(
            {
                **(metrics if is_whole else dict.fromkeys(metrics)),
                "status": status,
                "host": host,
                "gpu_name": board,
                "model_name": model,
                "timestamps.start": start,
                "timestamps.end": None if start is None else start + timedelta(seconds=draw(st.integers(0, 10**6))),
                "energy_metrics.duration_sec": draw(seconds),
                "energy_metrics.cpu_energy_j": draw(maybe(joules)),
                "energy_metrics.ram_energy_j": draw(maybe(joules)),
                "energy_metrics.energy_per_token_j": None if is_whole else draw(maybe(joules)),
                "energy_metrics.devices[].energy_j": draw(st.lists(joules, min_size=gpus, max_size=gpus)),
                "energy_metrics.devices[].gpu_uuid": uuids,
                "effective_config": {"ml-energy": {**rest, "window": window}},
            }
        )
    return found


def fsum_of_devices(values: Values) -> float:
    return math.fsum(values["energy_metrics.devices[].energy_j"])


def zeus_measurement(record: RawProcessResult) -> dict[str, Any]:
    energy = record.energy_metrics
    return {
        "time": energy.duration_sec,
        "gpu_energy": {str(index): device.energy_j for index, device in enumerate(energy.devices or [])},
        "cpu_energy": None if energy.cpu_energy_j is None else {"0": energy.cpu_energy_j},
        "dram_energy": energy.ram_energy_j,
    }


def ml_energy_document(records: list[RawProcessResult]) -> dict[str, Any]:
    """Return the fields of a run that a record keeps in its configuration."""
    whole, *steady = records
    rest = {name: value for name, value in document(whole, "ml-energy").items() if name != "window"}
    return {
        **rest,
        "model_id": whole.model_name,
        "gpu_model": whole.gpu_name,
        "duration": None if whole.inference_metrics is None else whole.inference_metrics.inference_time_sec,
        **as_client(whole),
        "entire_benchmark_measurement": zeus_measurement(whole),
        "steady_state_measurement": zeus_measurement(steady[0]) if steady else None,
        "steady_state_energy_per_token": steady[0].energy_metrics.energy_per_token_j if steady else None,
    }


def write_ml_energy(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    timeline = {}
    for record, window in zip(records, ("benchmark", "steady_state"), strict=False):
        for name, stamp in (("start", record.timestamps.start), ("end", record.timestamps.end)):
            timeline[f"{window}_{name}_time"] = None if stamp is None else stamp.timestamp()
    found = {**ml_energy_document(records), "timeline": timeline, "results": []}
    metrics = records[0].inference_metrics
    if metrics is not None and (latency := metrics.latency_measurements) is not None:
        gaps = gaps_by_request(latency.itl_full_ms, latency.itl_trimmed_ms)
        first = [in_seconds(ms) for ms in latency.ttft_ms]
        for index in range(max(len(gaps), len(first))):
            ttft, itl = first[index] if index < len(first) else 0.0, gaps[index] if index < len(gaps) else []
            found["results"].append({"prompt": "SECRET", "ttft": ttft, "itl": itl, "success": True})
        found["results"].append({"prompt": "SECRET", "ttft": 9.0, "itl": [9.0, 9.0, 9.0], "success": False})
    peers.write_json(folder / "results.json", found)
    return machine_options(records)


def finish_ml_energy(records: list[RawProcessResult]) -> list[RawProcessResult]:
    found = ml_energy_document(records)
    return [
        with_config(record, {"ml-energy": {"window": document(record, "ml-energy")["window"], **found}})
        for record in records
    ]


ML_ENERGY = Shape(
    stored=frozenset(
        [
            *(*LATENCY_PATHS, *METRIC_PATHS, "status", "host", "gpu_name", "model_name"),
            "inference_metrics.inference_time_sec",
            *("timestamps.start", "timestamps.end", "effective_config", "energy_metrics.duration_sec"),
            *("energy_metrics.cpu_energy_j", "energy_metrics.ram_energy_j", "energy_metrics.energy_per_token_j"),
            *("energy_metrics.devices[].energy_j", "energy_metrics.devices[].gpu_uuid"),
        ]
    ),
    derived={
        **ABSENT,
        **WORLD,
        **LAUNCHER,
        **VERSIONS,
        **OTHER_LATENCY,
        **COMPUTE,
        **SENSORS,
        **derived_id("ml-energy"),
        **null("", "backend backend_version config_name gpu_id gpu_uuid"),
        "origin.tool": "ml-energy",
        **null("origin.", "version"),
        "timestamps.duration_sec": copy_of("energy_metrics.duration_sec"),
        "inference_metrics.total_tokens": all_tokens,
        "inference_metrics.latency_measurements.streaming_mode": if_known(REQUEST_COUNT, value=True),
        "energy_metrics.total_energy_j": fsum_of_devices,
        "energy_metrics.gpu_energy_j": fsum_of_devices,
        **null("energy_metrics.", "gpu_power_w cpu_power_w emissions_kg_co2"),
        "energy_metrics.devices[].gpu_name": copy_of("gpu_name"),
        "energy_metrics.devices[].provenance": for_each("energy_metrics.devices[].energy_j", lambda _: "measured"),
        **scopes(
            total_scope="device",
            total_provenance="measured",
            gpu_scope="device",
            gpu_provenance="measured",
            cpu_scope=if_known("energy_metrics.cpu_energy_j", "host"),
            cpu_provenance=if_known("energy_metrics.cpu_energy_j", "measured"),
            ram_scope=if_known("energy_metrics.ram_energy_j", "host"),
            ram_provenance=if_known("energy_metrics.ram_energy_j", "measured"),
        ),
    },
    strategy=ml_energy_runs(),
    write=write_ml_energy,
    finish=finish_ml_energy,
)


# Leaderboard of ML.ENERGY: energy per token, but no total


@st.composite
def leaderboards(draw: st.DrawFn) -> list[Values]:
    model, task, host = draw(words), draw(words), draw(maybe(names))
    found = []
    for number in range(draw(st.integers(1, 3))):
        board = draw(maybe(boards))
        found.append(
            {
                "config_name": task,
                "model_name": model,
                "gpu_name": board,
                "host": host,
                "energy_metrics.gpu_power_w": draw(maybe(watts)),
                "energy_metrics.energy_per_token_j": draw(joules),
                "energy_metrics.devices[].gpu_name": board and [board] * draw(st.integers(1, 8)),
                "effective_config": {"ml-energy": {"max_num_seqs": number, "my note": draw(anything)}},
            }
        )
    return found


def leaderboard_row(record: RawProcessResult) -> dict[str, Any]:
    rest = {name: value for name, value in document(record, "ml-energy").items() if name not in ("model_id", "task")}
    return {
        **rest,
        "gpu_model": record.gpu_name,
        "num_gpus": len(record.energy_metrics.devices or []),
        "avg_power_watts": record.energy_metrics.gpu_power_w,
        "energy_per_token_joules": record.energy_metrics.energy_per_token_j,
    }


def write_leaderboard(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    shared = {"model_id": records[0].model_name, "task": records[0].config_name}
    rows = [leaderboard_row(record) | {"output_length_distribution": [1]} for record in records]
    peers.write_json(folder / "model.json", {**shared, "configurations": rows})
    return {"host": records[0].host}


LEADERBOARD = Shape(
    stored=frozenset(
        [
            *("config_name", "model_name", "gpu_name", "host", "effective_config"),
            *("energy_metrics.gpu_power_w", "energy_metrics.energy_per_token_j", "energy_metrics.devices[].gpu_name"),
        ]
    ),
    derived={
        **ABSENT,
        **WORLD,
        **LAUNCHER,
        **STATUS,
        **VERSIONS,
        **INFERENCE,
        **COMPUTE,
        **SENSORS,
        **derived_id("ml-energy"),
        **null("", "backend backend_version gpu_id gpu_uuid"),
        "origin.tool": "ml-energy",
        **null("origin.", "version"),
        **null("timestamps.", "start end duration_sec"),
        **null("energy_metrics.", "total_energy_j gpu_energy_j cpu_energy_j ram_energy_j duration_sec cpu_power_w"),
        **null("energy_metrics.", "emissions_kg_co2"),
        **null("energy_metrics.devices[].", "gpu_uuid energy_j provenance"),
        **scopes(total_scope="device", gpu_scope="device"),
    },
    strategy=leaderboards(),
    write=write_leaderboard,
    finish=lambda records: [
        with_config(
            record,
            {"ml-energy": {"model_id": record.model_name, "task": record.config_name, **leaderboard_row(record)}},
        )
        for record in records
    ],
)


# optimum-benchmark: a phase is a record


@st.composite
def optimum_runs(draw: st.DrawFn) -> list[Values]:
    phases = draw(st.sets(st.sampled_from(["decode", "forward", "load_model", "prefill"]), min_size=1).map(sorted))
    is_interrupted = draw(st.booleans())
    backend, version = draw(maybe(names)), draw(maybe(words))
    versions = draw(st.dictionaries(st.sampled_from(["transformers", "torch", "optimum_benchmark"]), words))
    all_versions = versions | ({backend: version} if backend and version else {})
    gpus = draw(maybe(st.lists(boards, min_size=1, max_size=4)))
    shared = {
        "backend": backend,
        "backend_version": version,
        "gpu_id": draw(maybe(st.integers(0, 8))),
        "config_name": draw(maybe(words)),
        "model_name": draw(maybe(words)),
        "host": draw(maybe(names)),
        "launcher.name": draw(maybe(st.sampled_from(["process", "inline", "torchrun"]))),
        "library_versions": all_versions or None,
        "origin.version": versions.get("optimum_benchmark"),
        "status": "interrupted" if is_interrupted else None,
        "energy_metrics.devices[].gpu_name": gpus,
    }
    config = {"scenario": draw(anything), "ranks": draw(maybe(st.integers(1, 8)))}
    found = []
    for phase in phases:
        has_times = is_interrupted or draw(st.booleans())
        of_carbon = maybe(watts | st.just(112.5)) if has_times else st.none()
        # Drawn in the unit of the file, so that the file can store the value exactly.
        per_kwh = None if is_interrupted else draw(maybe(st.floats(1e-3, 1e9)))
        peak_mb = None if is_interrupted else draw(maybe(st.floats(1.0, 1e6)))
        found.append(
            {
                **shared,
                **dict(zip(ENERGIES, [draw(kwh_as_j), *(draw(maybe(kwh_as_j)) for _ in range(3))], strict=True)),
                "timestamps.end": draw(maybe(whole_timestamps)) if has_times else None,
                "timestamps.duration_sec": draw(seconds) if has_times else None,
                "energy_metrics.gpu_power_w": draw(of_carbon),
                "energy_metrics.cpu_power_w": draw(of_carbon),
                "energy_metrics.emissions_kg_co2": draw(of_carbon),
                "energy_metrics.energy_per_token_j": None if per_kwh is None else JOULES_PER_KWH / per_kwh,
                "compute_metrics.peak_memory_mb": None if peak_mb is None else peak_mb * (1e6 / 2**20),
                "effective_config": {**config, "optimum-benchmark": {"phase": phase}},
            }
        )
    return found


def optimum_config(record: RawProcessResult) -> dict[str, Any]:
    """Return the configuration file of the run."""
    kept = record.effective_config
    ranks = kept["ranks"]
    devices = record.energy_metrics.devices
    return {
        **{name: value for name, value in kept.items() if name != "optimum-benchmark"},
        "name": record.config_name,
        "backend": {
            "name": record.backend,
            "version": record.backend_version,
            "model": record.model_name,
            "device_ids": None if record.gpu_id is None else str(record.gpu_id),
        },
        "scenario": kept["scenario"],
        "launcher": {
            "name": None if record.launcher is None else record.launcher.name,
            **({} if ranks is None else {"nproc_per_node": ranks}),
        },
        "environment": {
            "gpu": None if devices is None else [device.gpu_name for device in devices],
            **{
                f"{name}_version": found
                for name, found in (record.library_versions or {}).items()
                if name != record.backend
            },
        },
    }


def optimum_measurements(record: RawProcessResult) -> dict[str, Any]:
    """Return the measurements of a phase in the report."""
    energy, memory = record.energy_metrics, None
    kwh = {name: kwh_of(getattr(energy, f"{name}_energy_j")) for name in ("cpu", "ram", "gpu", "total")}
    per_token, efficiency = energy.energy_per_token_j, None
    if per_token is not None:
        value = near(JOULES_PER_KWH / per_token, lambda found: JOULES_PER_KWH / found, per_token)
        efficiency = {"unit": "tokens/kWh", "value": value}
    if record.compute_metrics is not None and (peak := record.compute_metrics.peak_memory_mb) is not None:
        memory = {"unit": "MB", "max_allocated": near(peak / (1e6 / 2**20), lambda mb: mb * (1e6 / 2**20), peak)}
    return {"memory": memory, "energy": {"unit": "kWh", **kwh}, "efficiency": efficiency}


def optimum_carbon(record: RawProcessResult) -> dict[str, Any]:
    """Return the content of CodeCarbon's file of a phase."""
    energy, end = record.energy_metrics, record.timestamps.end
    return {
        "timestamp": None if end is None else end.isoformat(),
        "run_id": "21974040-7b90",
        "codecarbon_version": "3.0.1",
        "duration": record.timestamps.duration_sec,
        "emissions": energy.emissions_kg_co2,
        "cpu_power": energy.cpu_power_w,
        "gpu_power": energy.gpu_power_w,
        **{f"{name}_energy": kwh_of(getattr(energy, f"{name}_energy_j")) for name in ("cpu", "ram", "gpu")},
        "energy_consumed": kwh_of(energy.total_energy_j),
    }


def phase_of(record: RawProcessResult) -> str:
    found: str = document(record, "optimum-benchmark")["phase"]
    return found


def write_optimum(folder: Path, records: list[RawProcessResult]) -> dict[str, Any]:
    peers.write_json(folder / "benchmark_config.json", optimum_config(records[0]))
    for record in records:
        if record.timestamps.duration_sec is not None:
            peers.write_json(folder / f"{phase_of(record)}_codecarbon.json", optimum_carbon(record))
    if records[0].status is None:
        measures = {phase_of(record): optimum_measurements(record) for record in records}
        peers.write_json(folder / "benchmark_report.json", measures)
    return machine_options(records)


def finish_optimum(records: list[RawProcessResult]) -> list[RawProcessResult]:
    finished = []
    for record in records:
        config = optimum_config(record)
        launcher = config["launcher"]
        alone = 1 if launcher["name"] in ("process", "inline") else None
        own = {"phase": phase_of(record), "n_ranks": launcher.get("nproc_per_node") or alone}
        measures = optimum_measurements(record) if record.status is None else {}
        finished.append(with_config(record, {**config, "optimum-benchmark": {**own, **measures}}))
    return finished


def optimum_nvidia(values: Values) -> str | None:
    gpus = values["energy_metrics.devices[].gpu_name"] or []
    is_known = values["energy_metrics.gpu_energy_j"] is not None and any("NVIDIA" in name for name in gpus)
    return "measured" if is_known else None


def optimum_constant(values: Values) -> str | None:
    is_known = values["energy_metrics.cpu_energy_j"] is not None
    return "modelled" if is_known and is_half_watts(values["energy_metrics.cpu_power_w"]) else None


OPTIMUM = Shape(
    stored=frozenset(
        [
            *ENERGIES,
            *("backend", "backend_version", "gpu_id", "config_name", "model_name", "host", "launcher.name", "status"),
            *("library_versions", "origin.version", "timestamps.end", "timestamps.duration_sec", "effective_config"),
            *("energy_metrics.gpu_power_w", "energy_metrics.cpu_power_w", "energy_metrics.emissions_kg_co2"),
            *("energy_metrics.energy_per_token_j", "energy_metrics.devices[].gpu_name"),
            "compute_metrics.peak_memory_mb",
        ]
    ),
    derived={
        **ABSENT,
        **WORLD,
        **INFERENCE,
        **SENSORS,
        **derived_id("optimum-benchmark"),
        **null("", "gpu_uuid"),
        "gpu_name": lambda values: (values["energy_metrics.devices[].gpu_name"] or [None])[0],
        "origin.tool": "optimum-benchmark",
        "timestamps.start": start_before,
        "energy_metrics.duration_sec": copy_of("timestamps.duration_sec"),
        **null("energy_metrics.devices[].", "gpu_uuid energy_j provenance"),
        **null("compute_metrics.", "flops_total compute_precision"),
        **scopes(
            total_scope="host",
            gpu_scope=if_known("energy_metrics.gpu_energy_j", "host"),
            gpu_provenance=optimum_nvidia,
            cpu_scope=if_known("energy_metrics.cpu_energy_j", "host"),
            cpu_provenance=optimum_constant,
            ram_scope=if_known("energy_metrics.ram_energy_j", "host"),
            ram_provenance=if_known("energy_metrics.ram_energy_j", "modelled"),
        ),
    },
    strategy=optimum_runs(),
    write=write_optimum,
    finish=finish_optimum,
)

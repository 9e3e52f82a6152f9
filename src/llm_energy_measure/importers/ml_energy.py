"""Import results of the ML.ENERGY benchmark: `results.json` of one run, and the files of its leaderboard.

A run has two windows, the steady state and the whole benchmark. The steady state is a part of the benchmark. So each
window is an experiment, and the two energies are never added. Prompts and answers are personal data and are not parsed.
The energy of a single request is not imported, because the tool derives it from the mean. A leaderboard has energy per
token and mean power, but no total energy.

Source: the ML.ENERGY benchmark v3 and its leaderboard, which measure with Zeus.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import as_object, parse_json, require_unique_keys
from llm_energy_measure.importers.record_parts import (
    client_metrics,
    component,
    imported_record,
    latency_samples,
    unmeasured_devices,
)
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_integer, as_number, as_text, digest, identifier
from llm_energy_measure.importers.zeus import gpu_counters

TOOL = "ml-energy"

_RUN = {"model_id", "steady_state_measurement", "entire_benchmark_measurement"}
_DIFFUSION = {"model_id", "total_energy", "iteration_energy_measurements"}
_LEADERBOARD = {"model_id", "task", "configurations"}
_NOT_IN_CONFIG = frozenset(("results", "timeline", "output_length_distribution", "iteration_energy_measurements"))
"""Long fields with personal text, samples and series, which are not kept in the configuration."""
_WINDOWS = {"steady": "steady_state", "whole": "benchmark"}
_TOLERANCE = 1e-6


class _Request(msgspec.Struct):
    """The fields of a request that are parsed: latencies in seconds and the outcome, but no text."""

    ttft: float | None = None
    itl: list[float] = []
    success: bool | None = None


_REQUESTS_DECODER = msgspec.json.Decoder(list[_Request])


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Return one record for each window of a run, or for each configuration of a leaderboard."""
    [source] = sources
    require_unique_keys(source.data, "the file")
    values = source.fields.items()
    document = {name: parse_json(bytes(value), name) for name, value in values if name not in _NOT_IN_CONFIG}
    if set(source.fields) >= _LEADERBOARD:
        return _read_leaderboard(source, document, report)
    return _read_run(source, document, options, report)


def _read_run(
    source: ImportSource, document: dict[str, Any], options: Options, report: ImportReport
) -> Iterator[RawProcessResult]:
    timeline = _timeline(source)
    model, completed = as_text(document["model_id"]), as_integer(document.get("completed"))
    name = identifier(TOOL, model or "", str(document.get("date") or ""), digest(document))
    latency = _latency(source, completed)
    windows = {
        "whole": document.get("entire_benchmark_measurement") or {"gpu_energy": document.get("total_energy")},
        "steady": document.get("steady_state_measurement"),
    }
    for window, measurement in windows.items():
        notes = Notes()
        energy = _energy(document, as_object(measurement), options, notes)
        if energy is None:
            if window == "whole" or measurement is not None:
                report.refuse(source.path, "no_measurement", f"the {window} window has no GPU energy")
            continue
        energy = _with_run_values(document, window, energy, notes)
        has_failed = completed == 0
        if has_failed:
            notes.add("run_failed", f"none of {document.get('num_prompts')} requests succeeded")
        record = imported_record(
            identifier(name, window),
            gpu_name=as_text(document.get("gpu_model")),
            model_name=model,
            timestamps=_timestamps(timeline, window, energy.duration_sec, notes),
            inference_metrics=client_metrics(document, latency) if window == "whole" and not has_failed else None,
            energy_metrics=energy,
            effective_config={TOOL: {"window": window, **document}},
            origin=source.origin(TOOL),
            status="failed" if has_failed else None,
        )
        yield report.record(source.path, record, notes)


def _energy(
    document: dict[str, Any], measurement: dict[str, Any], options: Options, notes: Notes
) -> EnergyMetrics | None:
    """Return the energy of one measurement of Zeus; None if it has no GPU energy.

    `gpu_energy` is the energy of all GPUs in joules, or an object with the energy of each GPU.
    """
    found = measurement.get("gpu_energy")
    gpu_j = _sum(found)
    if gpu_j is None:
        return None
    board = as_text(document.get("gpu_model"))
    devices = [
        DeviceEnergy(gpu_uuid=_uuid(index, options), gpu_name=board, energy_j=as_number(value), provenance="measured")
        for index, value in sorted(
            as_object(found).items(), key=lambda item: (len(item[0]), item[0])
        )  # 2 sorts before 10
    ]
    cpu_j, ram_j = _sum(measurement.get("cpu_energy")), _sum(measurement.get("dram_energy"))
    if cpu_j is not None or ram_j is not None:
        notes.add("whole", "the total is the energy of the GPUs, without the energy of CPUs and memory")
    parts = component("cpu", cpu_j, "host", "measured") | component("ram", ram_j, "host", "measured")
    return msgspec.structs.replace(gpu_counters(gpu_j, devices, as_number(measurement.get("time"))), **parts)


def _with_run_values(document: dict[str, Any], window: str, energy: EnergyMetrics, notes: Notes) -> EnergyMetrics:
    """Return the energy of a window, completed with duration and energy per token from the fields of the run."""
    if window == "whole":
        return msgspec.structs.replace(energy, duration_sec=energy.duration_sec or as_number(document.get("duration")))
    own_j = as_number(document.get("steady_state_energy"))
    if own_j is not None and not math.isclose(own_j, energy.gpu_energy_j or 0.0, rel_tol=_TOLERANCE):
        found = f"steady_state_energy is {own_j!r} J, but the GPUs sum to {energy.gpu_energy_j!r} J, which is imported"
        notes.add("own_aggregate_differs", found)
    return msgspec.structs.replace(
        energy,
        energy_per_token_j=as_number(document.get("steady_state_energy_per_token")),
        duration_sec=energy.duration_sec or as_number(document.get("steady_state_duration")),
    )


def _uuid(index: str, options: Options) -> str | None:
    """Return the UUID that the caller stated for an index within CUDA_VISIBLE_DEVICES; None if there is no UUID."""
    return options.gpu_uuid(int(index)) if index.isdecimal() and len(index) < 4 else None


def _sum(parts: object) -> float | None:
    """Return one number, or the sum of the numbers of an object; None if one of them is unknown."""
    if not isinstance(parts, dict):
        return as_number(parts)
    known = [number for value in parts.values() if (number := as_number(value)) is not None]
    return math.fsum(known) if known and len(known) == len(parts) else None


def _timeline(source: ImportSource) -> dict[str, float | None]:
    """Return the start and end of both windows, in seconds since 1970, without parsing the long series."""
    raw = source.fields.get("timeline")
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]) if raw is not None else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {name: as_number(parse_json(bytes(value), name)) for name, value in fields.items() if name.endswith("_time")}


def _timestamps(timeline: dict[str, float | None], window: str, duration: float | None, notes: Notes) -> Timestamps:
    start, end = (_utc(timeline.get(f"{_WINDOWS[window]}_{edge}_time")) for edge in ("start", "end"))
    if start is not None and end is not None and end < start:
        notes.add("part_unreadable", f"the {window} window ends before it starts, so both timestamps are null")
        start = end = None
    return Timestamps(start=start, end=end, duration_sec=duration)


def _utc(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _latency(source: ImportSource, completed: int | None) -> LatencyMeasurements | None:
    """Return the latency samples of the requests that succeeded."""
    raw = source.fields.get("results")
    try:
        requests = _REQUESTS_DECODER.decode(raw) if raw is not None else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    good = [request for request in requests if request.success is not False]
    return latency_samples([one.ttft for one in good], [one.itl for one in good], completed) if good else None


def _read_leaderboard(
    source: ImportSource, document: dict[str, Any], report: ImportReport
) -> Iterator[RawProcessResult]:
    model, task = as_text(document["model_id"]), as_text(document["task"])
    shared = {name: value for name, value in document.items() if name != "configurations"}
    configurations = document["configurations"]
    if not isinstance(configurations, list):
        raise RefusedInputError("missing_field", "configurations is not a list")
    for row, found in enumerate(configurations, start=1):
        if not isinstance(found, dict) or as_number(found.get("energy_per_token_joules")) is None:
            report.refuse(source.path, "no_measurement", f"configuration {row} has no energy per token", row=row)
            continue
        config = {name: value for name, value in found.items() if name not in _NOT_IN_CONFIG}
        boards, board = as_integer(config.get("num_gpus")), as_text(config.get("gpu_model"))
        notes = Notes()
        notes.add("no_energy", "a leaderboard has energy per token and mean power, but no total energy")
        record = imported_record(
            identifier(TOOL, model or "", task or "", board or "", digest([shared, config])),
            gpu_name=board,
            config_name=task,
            model_name=model,
            timestamps=Timestamps(start=None, end=None, duration_sec=None),
            energy_metrics=EnergyMetrics(
                total_energy_j=None,
                duration_sec=None,
                gpu_power_w=as_number(config.get("avg_power_watts")),
                energy_per_token_j=as_number(config["energy_per_token_joules"]),
                total_scope="device",
                gpu_scope="device",
                devices=unmeasured_devices(board, boards if boards and boards < 10_000 else None),
            ),
            effective_config={TOOL: {**shared, **config}},
            origin=source.origin(TOOL, row=row),
        )
        yield report.record(source.path, record, notes, row=row)


FORMAT = Format(
    name=TOOL,
    looks_for="JSON with model_id and steady_state_measurement, or with model_id, task and configurations",
    recognises=lambda source: any(set(source.fields) >= fields for fields in (_RUN, _DIFFUSION, _LEADERBOARD)),
    read=_read,
    covers="device",
    unknown="host name, which GPUs; for a leaderboard, everything except energy per token and mean power",
)

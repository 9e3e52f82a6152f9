"""Results of the ML.ENERGY benchmark: `results.json` of one run, and the files of its leaderboard.

A run has two windows, the steady state and the whole benchmark; one lies in the other, so that each is an experiment of
its own and they are never added. Prompts and answers are personal: they are not even parsed. The energy of a single
request is derived by the tool and not taken. A leaderboard has energy per token and mean power and no total.

Source: the ML.ENERGY benchmark v3 and leaderboard; its measurements are Zeus's.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.importers.cells import identifier, number, text, whole
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import parsed
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.work import client_work, latency
from llm_energy_measure.importers.zeus import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.latency import LatencyMeasurements
    from llm_energy_measure.importers.bounded import Original

TOOL = "ml-energy"

_RUN = {"model_id", "steady_state_measurement", "entire_benchmark_measurement"}
_DIFFUSION = {"model_id", "total_energy", "iteration_energy_measurements"}
_BOARD = {"model_id", "task", "configurations"}
# Personal text, samples and series: long, and with a place of their own or none at all.
_LEFT_OUT = frozenset(("results", "timeline", "output_length_distribution", "iteration_energy_measurements"))
_WINDOWS = {"steady": "steady_state", "whole": "benchmark"}
_TOLERANCE = 1e-6


class _Request(msgspec.Struct):
    """What is read of a request: counts and times, and no text."""

    ttft: float | None = None
    itl: list[float] = []
    success: bool | None = None


def _recognises(original: Original) -> bool:
    return any(set(original.fields) >= wanted for wanted in (_RUN, _DIFFUSION, _BOARD))


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """Two records of a run, or one of each configuration of a leaderboard."""
    [original] = originals
    original.require_unique_keys()
    if set(original.fields) >= _BOARD:
        return _read_board(original, report)
    return _read_run(original, options, report)


def _values(original: Original) -> dict[str, Any]:
    """The fields of a file that are short and of no person."""
    return {name: parsed(bytes(value), name) for name, value in original.fields.items() if name not in _LEFT_OUT}


def _read_run(original: Original, options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    document = _values(original)
    timeline = _timeline(original)
    digest = hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()[:8]
    model = text(document["model_id"])
    name = identifier(TOOL, model or "", str(document.get("date") or ""), digest)
    samples = _latency(original, whole(document.get("completed")))
    windows = {
        "whole": document.get("entire_benchmark_measurement") or {"gpu_energy": document.get("total_energy")},
        "steady": document.get("steady_state_measurement"),
    }
    for window, measured in windows.items():
        remarks = Remarks()
        energy = _energy(document, measured, options, remarks)
        if energy is None:
            if window == "whole" or measured is not None:
                report.refuse(original.shown, "no_measurement", f"the {window} window has no GPU energy")
            continue
        energy = _steady(document, energy, remarks) if window == "steady" else _whole(document, energy)
        has_failed = whole(document.get("completed")) == 0
        if has_failed:
            remarks.note("run_failed", f"none of {document.get('num_prompts')} requests succeeded")
        record = RawProcessResult(
            experiment_id=identifier(name, window),
            process_index=0,
            gpu_id=None,
            gpu_name=text(document.get("gpu_model")),
            config_name=None,
            model_name=model,
            timestamps=_stamps(timeline, window, energy.duration_sec, remarks),
            inference_metrics=client_work(document, samples) if window == "whole" and not has_failed else None,
            energy_metrics=energy,
            compute_metrics=None,
            effective_config={TOOL: {"window": window, **document}},
            origin=original.origin(TOOL),
            status="failed" if has_failed else None,
        )
        yield report.record(original.shown, record, remarks)


def _energy(document: dict[str, Any], measured: object, options: Options, remarks: Remarks) -> EnergyMetrics | None:
    """Energy of one of Zeus's measurements, of GPUs one by one or together; None if it has none of a GPU."""
    found = measured.get("gpu_energy") if isinstance(measured, dict) else None
    gpu = _sum(found)
    if gpu is None or not isinstance(measured, dict):
        return None
    board = text(document.get("gpu_model"))
    devices = [
        DeviceEnergy(gpu_uuid=_uuid(index, options), gpu_name=board, energy_j=number(value), provenance="measured")
        for index, value in sorted(found.items() if isinstance(found, dict) else (), key=_place)
    ]
    cpu, ram = (_sum(measured.get(name)) for name in ("cpu_energy", "dram_energy"))
    if cpu is not None or ram is not None:
        remarks.note("whole", "the energy of CPUs and memory stands beside the total, which is that of the GPUs")
    return msgspec.structs.replace(
        counted(gpu, devices, number(measured.get("time"))),
        cpu_energy_j=cpu,
        ram_energy_j=ram,
        cpu_scope=None if cpu is None else "host",
        cpu_provenance=None if cpu is None else "measured",
        ram_scope=None if ram is None else "host",
        ram_provenance=None if ram is None else "measured",
    )


def _whole(document: dict[str, Any], energy: EnergyMetrics) -> EnergyMetrics:
    """The energy of the whole run."""
    duration = energy.duration_sec or number(document.get("duration"))
    return msgspec.structs.replace(energy, duration_sec=duration)


def _steady(document: dict[str, Any], energy: EnergyMetrics, remarks: Remarks) -> EnergyMetrics:
    """The energy of the steady state, with the energy per token that the tool gives for it."""
    own = number(document.get("steady_state_energy"))
    if own is not None and not math.isclose(own, energy.gpu_energy_j or 0.0, rel_tol=_TOLERANCE):
        remarks.note(
            "own_aggregate_differs", f"steady_state_energy is {own!r} J, its GPUs have {energy.gpu_energy_j!r}"
        )
    per_token = number(document.get("steady_state_energy_per_token"))
    duration = energy.duration_sec or number(document.get("steady_state_duration"))
    return msgspec.structs.replace(energy, energy_per_token_j=per_token, duration_sec=duration)


def _place(gpu: tuple[str, object]) -> tuple[int, str]:
    """Where a GPU belongs: 2 stands before 10."""
    index, _ = gpu
    return len(index), index


def _uuid(index: str, options: Options) -> str | None:
    """UUID of a GPU, by an index among those that the measuring process saw; None unless the caller said it."""
    known = dict(enumerate(options.gpu_uuids))
    return known.get(int(index)) if index.isdecimal() and len(index) < 4 else None


def _sum(parts: object) -> float | None:
    """The energy of all sockets, or the one figure; None if it is not known of each."""
    if not isinstance(parts, dict):
        return number(parts)
    known = [number(value) for value in parts.values()]
    return math.fsum(value for value in known if value is not None) if known and None not in known else None


def _timeline(original: Original) -> dict[str, float | None]:
    """Ends of both windows, in seconds since 1970; the series beside them are not parsed."""
    raw = original.fields.get("timeline")
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]) if raw is not None else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {name: number(parsed(bytes(value), name)) for name, value in fields.items() if name.endswith("_time")}


def _stamps(timeline: dict[str, float | None], window: str, duration: float | None, remarks: Remarks) -> Timestamps:
    start, end = (_moment(timeline.get(f"{_WINDOWS[window]}_{end}_time")) for end in ("start", "end"))
    if start is not None and end is not None and end < start:
        remarks.note("part_unreadable", f"the {window} window ends before it starts; both stamps are null")
        start = end = None
    return Timestamps(start=start, end=end, duration_sec=duration)


def _moment(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _latency(original: Original, completed: int | None) -> LatencyMeasurements | None:
    """The latency of each request that succeeded."""
    raw = original.fields.get("results")
    try:
        requests = msgspec.json.decode(raw, type=list[_Request]) if raw is not None else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    good = [request for request in requests if request.success is not False]
    return latency([request.ttft for request in good], [request.itl for request in good], completed) if good else None


def _read_board(original: Original, report: LossReport) -> Iterator[RawProcessResult]:
    document = _values(original)
    model, task = text(document["model_id"]), text(document["task"])
    shared = {name: value for name, value in document.items() if name != "configurations"}
    configurations = document["configurations"]
    if not isinstance(configurations, list):
        raise RefusedFileError("missing_field", "configurations is no list")
    for row, found in enumerate(configurations, start=1):
        if not isinstance(found, dict) or number(found.get("energy_per_token_joules")) is None:
            report.refuse(original.shown, "no_measurement", f"configuration {row} has no energy per token", row=row)
            continue
        config = {name: value for name, value in found.items() if name not in _LEFT_OUT}
        digest = hashlib.sha256(msgspec.json.encode([shared, config], order="sorted")).hexdigest()[:8]
        boards, board = whole(config.get("num_gpus")), text(config.get("gpu_model"))
        remarks = Remarks()
        remarks.note("no_energy", "a leaderboard has energy per token and mean power, and no total")
        record = RawProcessResult(
            experiment_id=identifier(TOOL, model or "", task or "", board or "", digest),
            process_index=0,
            gpu_id=None,
            gpu_name=board,
            config_name=task,
            model_name=model,
            timestamps=Timestamps(start=None, end=None, duration_sec=None),
            inference_metrics=None,
            energy_metrics=EnergyMetrics(
                total_energy_j=None,
                duration_sec=None,
                gpu_power_w=number(config.get("avg_power_watts")),
                energy_per_token_j=number(config["energy_per_token_joules"]),
                total_scope="device",
                gpu_scope="device",
                devices=[DeviceEnergy(gpu_name=board)] * boards if boards and boards < 10_000 else None,
            ),
            compute_metrics=None,
            effective_config={TOOL: {**shared, **config}},
            origin=original.origin(TOOL, row=row),
        )
        yield report.record(original.shown, record, remarks, row=row)


FORMAT = Format(
    name=TOOL,
    looks_for="JSON with model_id and steady_state_measurement, or with model_id, task and configurations",
    recognises=_recognises,
    read=_read,
)

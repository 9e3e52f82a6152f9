"""Facts about experiments that decide whether two experiments are repeats, and whether they can be compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from llm_energy_measure.domain.configuration import Value, flatten, is_ignored
from llm_energy_measure.domain.experiment import AggregatedSummary, RawProcessResult

_COMPONENTS = ("gpu", "cpu", "ram")
_TOKEN_BUDGET = frozenset(
    {
        *("max_tokens", "max_new_tokens", "max_output_tokens", "max_input_tokens", "max_length", "max_model_len"),
        *("min_tokens", "min_new_tokens", "min_output_tokens", "min_length", "input_len", "output_len"),
    }
)
_ASSUMPTION = re.compile(r"--assume ([a-z-]+)=[a-z0-9]+")


class _Inference(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    inference_time_sec: float | None = None
    latency_measurements: _Latency | None = None


class _Latency(Struct):
    request_count: int | None = None


class _Device(Struct):
    gpu_id: int | None = None
    gpu_uuid: str | None = None


class _Sensor(Struct):
    energy_j: float | None = None
    uncertainty_j: float | UnsetType = UNSET


class _Energy(Struct):
    total_energy_j: float | None = None
    gpu_energy_j: float | None = None
    cpu_energy_j: float | None = None
    ram_energy_j: float | None = None
    duration_sec: float | None = None
    total_scope: str | None = None
    total_provenance: str | None = None
    gpu_scope: str | None = None
    gpu_provenance: str | None = None
    cpu_scope: str | None = None
    cpu_provenance: str | None = None
    ram_scope: str | None = None
    ram_provenance: str | None = None
    devices: list[_Device] | None = None
    sensors: list[_Sensor] | None = None


class _Compute(Struct):
    compute_precision: str | None = None


class _Times(Struct):
    start: datetime | None = None
    end: datetime | None = None


class _Origin(Struct):
    tool: str


class EmbeddedProcess(Struct):
    """The fields of a raw result in an aggregate that the catalogue needs."""

    process_index: int = 0
    config_name: str | None = None
    model_name: str | None = None
    host: str | None = None
    gpu_id: int | None = None
    gpu_uuid: str | None = None
    gpu_name: str | None = None
    timestamps: _Times | None = None
    inference_metrics: _Inference | None = None
    energy_metrics: _Energy | None = None
    compute_metrics: _Compute | None = None
    library_versions: dict[str, str] | None = None
    origin: _Origin | None = None


class Configuration(NamedTuple):
    """The flattened configuration of an experiment in two parts.

    Attributes:
        settings: The values of the keys that separate repeats: experiments with different values are not repeats of
            each other.
        others: The values of the other keys: ids, seeds, paths, schedules and counters of repeats.
    """

    settings: dict[str, Value]
    others: dict[str, Value]


class ExperimentFacts(Struct, frozen=True, kw_only=True, array_like=True):
    """Facts about an experiment with an aggregate. None means unknown.

    Attributes:
        identity: Facts that are equal in all repeats of a configuration, by name.
        comparability: Facts that must be equal in compared experiments, by name.
        start: Earliest start, as recorded.
        end: Latest end, as recorded.
        output_tokens: Number of generated tokens.
        requests: Number of requests.
        ttft_p50_ms: Median time to first token over all requests, in milliseconds.
        itl_p50_ms: Median inter-token latency over all requests, in milliseconds.
        window_sec: Longest energy window of a process, in seconds.
        resolution_j: Largest error of the energy due to the sampling of power sensors, in joules.
        assumption: The options of `aggregate` that the findings about an undetermined energy advise.
        content: Digest of the times and energies, without ids; see `_content`.
    """

    identity: dict[str, str | None] = field(default_factory=dict)
    comparability: dict[str, str | None] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None
    output_tokens: int | None = None
    requests: int | None = None
    ttft_p50_ms: float | None = None
    itl_p50_ms: float | None = None
    window_sec: float | None = None
    resolution_j: float | None = None
    assumption: str | None = None
    content: str = ""


def configuration_of(config: dict[str, Any], processes: Sequence[EmbeddedProcess | RawProcessResult]) -> Configuration:
    """Return the flattened configuration of an experiment.

    An importer stores further fields of its source file in an object with the name of the tool. These fields are not
    settings, because they can contain measurements.
    """
    sections = {process.origin.tool for process in processes if process.origin is not None}
    settings, others = Configuration({}, {})
    for key, value in flatten(config).items():
        (others if is_ignored(key, sections) else settings)[key] = value
    return Configuration(settings, others)


def facts_of(
    aggregated: AggregatedSummary,
    processes: Sequence[EmbeddedProcess | RawProcessResult],
    model: str | None,
    settings: dict[str, Value],
) -> ExperimentFacts:
    """Return the facts about an experiment.

    Args:
        aggregated: Aggregate of the experiment.
        processes: The raw results in the aggregate.
        model: Name of the model.
        settings: `Configuration.settings` of the experiment.
    """
    energies = [process.energy_metrics for process in processes if process.energy_metrics is not None]
    gpu = _joined(process.gpu_name for process in processes)
    inference = [process.inference_metrics for process in processes]
    latencies = [None if one is None else one.latency_measurements for one in inference]
    return ExperimentFacts(
        identity={
            "model": model,
            "precision": _joined(
                None if process.compute_metrics is None else process.compute_metrics.compute_precision
                for process in processes
            ),
            "gpus": _gpus(processes, gpu),
            "hosts": _number(process.host for process in processes),
            "processes": str(aggregated.aggregation.num_processes),
            "backend": aggregated.backend,
            "backend_version": aggregated.backend_version,
            "libraries": _joined(
                f"{name}={version}"
                for process in processes
                for name, version in (process.library_versions or {}).items()
            ),
            "method": aggregated.aggregation.method,
        },
        comparability={
            "model_name": model,
            "token_budget": _joined(
                f"{key}={value}" for key, value in settings.items() if key.rpartition(".")[2] in _TOKEN_BUDGET
            ),
            "energy_scope": _of_components(energies, "scope"),
            "provenance": _of_components(energies, "provenance"),
            "metric_version": aggregated.attribution_rule,
            "gpu": gpu,
        },
        start=aggregated.start_time,
        end=aggregated.end_time,
        output_tokens=_sum(None if one is None else one.output_tokens for one in inference if one is not None),
        requests=_sum(None if one is None else one.request_count for one in latencies),
        ttft_p50_ms=None if aggregated.latency_stats is None else aggregated.latency_stats.ttft_median_ms,
        itl_p50_ms=None if aggregated.latency_stats is None else aggregated.latency_stats.itl_median_ms,
        window_sec=max((_window_sec(process) or 0.0 for process in processes), default=0.0) or None,
        resolution_j=_resolution_j(energies),
        assumption=_assumption(aggregated),
        content=_content(aggregated, processes),
    )


def _joined(values: Iterable[str | None]) -> str | None:
    return ", ".join(sorted({value for value in values if value is not None})) or None


def _number(values: Iterable[str | None]) -> str | None:
    known = {value for value in values if value is not None}
    return str(len(known)) if known else None


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum of the values; None if a value is unknown or if there are no values."""
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value is not None)


def _gpus(processes: Sequence[EmbeddedProcess | RawProcessResult], name: str | None) -> str | None:
    """Return number and name of the distinct GPUs, such as `2 x NVIDIA A100`; the name alone if no GPU has an id."""
    if name is None:
        return None
    gpus = set()
    for process in processes:
        devices = (process.energy_metrics.devices if process.energy_metrics is not None else None) or [process]
        for device in devices:
            if device.gpu_uuid is not None:
                gpus.add(("", device.gpu_uuid))
            elif device.gpu_id is not None:
                gpus.add((process.host or "", str(device.gpu_id)))
    return f"{len(gpus)} x {name}" if gpus else name


def _of_components(energies: Sequence[object], fact: str) -> str | None:
    """Return scope or provenance of each component with energy, such as `cpu modelled, gpu measured`."""
    found: dict[str, set[str]] = {}
    for energy in energies:
        for name in _COMPONENTS:
            if getattr(energy, f"{name}_energy_j") is not None:
                found.setdefault(name, set()).add(getattr(energy, f"{name}_{fact}") or "unknown")
    if not found:
        values = {
            getattr(energy, f"total_{fact}") or "unknown"
            for energy in energies
            if getattr(energy, "total_energy_j", None) is not None
        }
        found = {"total": values} if values else {}
    return ", ".join(f"{name} {'/'.join(sorted(values))}" for name, values in sorted(found.items())) or None


def _window_sec(process: EmbeddedProcess | RawProcessResult) -> float | None:
    """Return the energy window of a process, in seconds; the inference time if no window is recorded."""
    energy, inference = process.energy_metrics, process.inference_metrics
    window_sec = None if energy is None else energy.duration_sec
    # Some tools write 0 for an unknown window. The energy of these tools covers the inference.
    return window_sec or (None if inference is None else inference.inference_time_sec)


def _resolution_j(energies: Sequence[object]) -> float | None:
    errors: list[float] = [
        sensor.uncertainty_j
        for energy in energies
        for sensor in getattr(energy, "sensors", None) or ()
        if sensor.uncertainty_j is not UNSET and sensor.uncertainty_j is not None
    ]
    return sum(errors) if errors else None


def _assumption(aggregated: AggregatedSummary) -> str | None:
    """Return the `--assume` options that the findings advise, without those that the user has already given."""
    stated = set() if aggregated.assumptions is UNSET else set(msgspec.structs.asdict(aggregated.assumptions))
    known = {name.replace("_", "-") for name in stated if getattr(aggregated.assumptions, name) is not None}
    advised: dict[str, str] = {}
    for finding in aggregated.findings or ():
        if finding.outcome != "passed" and finding.message:
            for match in _ASSUMPTION.finditer(finding.message):
                advised.setdefault(match[1], match[0])
    return " ".join(option for name, option in advised.items() if name not in known) or None


def _content(aggregated: AggregatedSummary, processes: Sequence[EmbeddedProcess | RawProcessResult]) -> str:
    """Return a digest of the times and energies of all processes.

    Times are in microseconds, so two measurements have different digests. The digest does not include ids, because a
    merge can rename an experiment. If the start of a process is unknown, the digest is computed from the digests of the
    raw files; if these are unknown too, from the id.
    """
    parts: list[object] = []
    timed = [
        process for process in processes if process.timestamps is not None and process.timestamps.start is not None
    ]
    if timed and len(timed) == len(processes):
        for process in processes:
            energy, times = process.energy_metrics, process.timestamps
            figures = [None] * 4 if energy is None else [energy.total_energy_j, *map(_component(energy), _COMPONENTS)]
            parts.append([process.process_index, times and times.start, times and times.end, figures])
    else:
        parts += [source.sha256 for source in aggregated.sources or ()] or [aggregated.experiment_id]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _component(energy: object) -> Callable[[str], float | None]:
    return lambda name: getattr(energy, f"{name}_energy_j")

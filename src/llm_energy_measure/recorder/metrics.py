"""Compute the metrics of a raw record from sensor readings, tokens and latencies. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, structs

from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.metrics import (
    COUNTER_RESET,
    SAMPLING_GAP,
    SENSOR_LOCKED,
    SENSOR_LOST,
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Provenance,
    Scope,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.domain.model_info import inference_flops
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.recorder.token_counter import TokenCounts

_PROVENANCES: tuple[Provenance, ...] = ("measured", "integrated", "modelled")
"""Provenances, from the strongest to the weakest."""

_PROBLEMS = {
    SENSOR_LOST: "could not be read at the start or at the end; the energy of that time is missing",
    COUNTER_RESET: "went backwards; a part of the energy before this reset is missing",
    SAMPLING_GAP: "was not read for some time; its energy over that time is estimated",
}


class ModelDescription(Struct, kw_only=True, frozen=True):
    """Facts about the model and its computation, from `Recording.describe_model`. None means unknown."""

    parameters: float | None = None
    precision: str | None = None
    memory_mb: float | None = None
    flops_total: float | None = None
    flops_method: str | None = None
    flops_confidence: Literal["high", "medium", "low"] | None = None


def energy_metrics(
    readings: Sequence[SensorReading] | None,
    devices: Mapping[str, DeviceEnergy],
    window: Timestamps,
    *,
    tokens: int | None,
    idle_power_w: float | None,
    idle_power_end_w: float | UnsetType | None = UNSET,
) -> EnergyMetrics:
    """Return the energy metrics of a process.

    Args:
        readings: The reading of each sensor; empty if the user selected no source, None if no source works.
        devices: The devices that the sensors see, by name of the sensor.
        window: The energy window.
        tokens: Tokens of the process; None if none were counted.
        idle_power_w: Idle power before the window, in watts; None if it was not measured.
        idle_power_end_w: Idle power after the window, in watts; None if unknown, UNSET if it was not measured.
    """
    known, total = _known_and_total(readings or ())
    gpu, cpu, ram = ([reading for reading in known if reading.component == name] for name in ("gpu", "cpu", "ram"))
    total_j, gpu_j, cpu_j, ram_j = map(_sum_j, (total, gpu, cpu, ram))
    return EnergyMetrics(
        total_energy_j=total_j,
        duration_sec=window.duration_sec,
        gpu_energy_j=gpu_j,
        cpu_energy_j=cpu_j,
        ram_energy_j=ram_j,
        gpu_power_w=ratio(gpu_j, window.duration_sec),
        cpu_power_w=ratio(cpu_j, window.duration_sec),
        energy_per_token_j=ratio(total_j, tokens),
        window=window,
        total_scope=_scope(total),
        total_provenance=_provenance(total),
        gpu_scope=_scope(gpu),
        gpu_provenance=_provenance(gpu),
        cpu_scope=_scope(cpu),
        cpu_provenance=_provenance(cpu),
        ram_scope=_scope(ram),
        ram_provenance=_provenance(ram),
        devices=_devices(readings or (), devices),
        idle_power_w=idle_power_w,
        sensors=None if readings is None else list(readings),
        idle_power_end_w=idle_power_end_w,
    )


def total_energy_j(readings: Sequence[SensorReading]) -> float | None:
    """Return the energy of all components, in joules; None if no reading has an energy."""
    return _sum_j(_known_and_total(readings)[1])


def _known_and_total(readings: Sequence[SensorReading]) -> tuple[list[SensorReading], list[SensorReading]]:
    """Return the readings with an energy, and the readings whose sum is the total."""
    known = [reading for reading in readings if reading.energy_j is not None]
    # A sensor of the component `total` already includes the energy of all other sensors.
    return known, [reading for reading in known if reading.component == "total"] or known


def _sum_j(readings: Sequence[SensorReading]) -> float | None:
    return sum(reading.energy_j or 0.0 for reading in readings) if readings else None


def _scope(readings: Sequence[SensorReading]) -> Scope | None:
    """Return the scope of all readings; None if they differ."""
    scopes = {reading.scope for reading in readings}
    return scopes.pop() if len(scopes) == 1 else None


def _provenance(readings: Sequence[SensorReading]) -> Provenance | None:
    """Return the weakest provenance: a sum with a modelled part is modelled."""
    return max((reading.provenance for reading in readings if reading.provenance), key=_PROVENANCES.index, default=None)


def _devices(readings: Sequence[SensorReading], devices: Mapping[str, DeviceEnergy]) -> list[DeviceEnergy] | None:
    """Return the devices that this process reads, each with its energy; None if there are none."""
    return [
        structs.replace(device, energy_j=reading.energy_j, provenance=reading.provenance)
        for reading in readings
        if (device := devices.get(reading.instance or "")) is not None
        and reading.component == "gpu"
        and SENSOR_LOCKED not in reading.problems
    ] or None


def inference_metrics(
    counts: TokenCounts, latencies: LatencyMeasurements | None, inference_sec: float
) -> InferenceMetrics | None:
    """Return the inference metrics of a process; None if it has no tokens and no requests.

    Args:
        counts: Tokens of the process.
        latencies: Latencies of its requests.
        inference_sec: Time spent in inference, in seconds.
    """
    if not sum(counts) and latencies is None:
        return None
    generated = counts.generated(counts)
    total = counts.input + generated
    return InferenceMetrics(
        total_tokens=total,
        input_tokens=counts.input,
        output_tokens=generated,
        inference_time_sec=inference_sec,
        tokens_per_second=ratio(total, inference_sec),
        latency_per_token_ms=ratio(inference_sec * 1e3, total),
        time_to_first_token_ms=None if latencies is None else latencies.mean_ms("ttft_ms"),
        latency_measurements=latencies,
    )


def compute_metrics(
    model: ModelDescription, tokens: int | None, inference_sec: float, peak_memory_mb: float | None
) -> ComputeMetrics | None:
    """Return the compute metrics of a process; None if nothing is known.

    A number of FLOPs that the user states has priority over the estimate from parameters and tokens.
    """
    total, method, confidence = model.flops_total, model.flops_method or "given", model.flops_confidence
    if total is None and model.parameters is not None and tokens is not None:
        total, method, confidence = inference_flops(model.parameters, tokens), "parameter_estimate", "low"
    if total is None and peak_memory_mb is None and model.memory_mb is None and model.precision is None:
        return None
    return ComputeMetrics(
        flops_total=total,
        flops_per_token=ratio(total, tokens),
        flops_per_second=ratio(total, inference_sec),
        peak_memory_mb=peak_memory_mb,
        model_memory_mb=model.memory_mb,
        flops_method=method if total is not None else None,
        flops_confidence=confidence if total is not None else None,
        compute_precision=model.precision,
    )


def energy_warning(
    readings: Sequence[SensorReading] | None,
    errors: Mapping[str, object],
    failures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str | None:
    """Return the warnings about the energy as one text, joined by `; `; None if there are no warnings.

    Args:
        readings: The reading of each sensor; None if no source works.
        errors: Why a source could not be opened, by name of the source.
        failures: Why energy of a sensor is missing, by label of the sensor.
        notes: Sentences that the sources add to the record.
    """
    if readings is None:
        reasons = "; ".join([*notes, *(f"{name}: {error}" for name, error in errors.items())])
        return f"no energy was measured: it is unknown, not zero; {reasons or 'there is no source'}"
    sentences: dict[str, list[str]] = {}  # names of the sensors by sentence, so that each sentence appears once
    for reading in readings:
        name = f"{reading.source} {reading.instance}"
        for sentence in _sentences(reading, failures.get(name)):
            sentences.setdefault(sentence, []).append(name)
    texts = [sentence.format(sensors=", ".join(names)) for sentence, names in sentences.items()]
    return "; ".join([*dict.fromkeys(notes), *texts]) or None


def _sentences(reading: SensorReading, failure: str | None) -> Iterator[str]:
    """Yield the warnings about one sensor. The caller replaces `{sensors}` by the names of sensors."""
    if reading.provenance == "modelled":
        yield f"{reading.component} energy is modelled, not measured ({{sensors}})"
    if reading.provenance == "integrated" and reading.sampling_rate_hz is not None:
        rate = f"{reading.sampling_rate_hz:.3g} Hz"
        error = (
            ""
            if reading.uncertainty_j is UNSET
            else f", +- {reading.uncertainty_j:.3g} J because the power may change between the samples"
        )
        yield f"{reading.component} energy is integrated from power samples at {rate}{error} ({{sensors}})"
    if reading.window is not UNSET:
        last = f"{reading.window.duration_sec:.4g} s"
        yield f"another process read {{sensors}} first; this record contains the energy of the last {last}"
    for problem in reading.problems:
        if problem == SENSOR_LOCKED:
            yield "{sensors} is read elsewhere: by another process, or for another slice of its board"
        else:
            reason = f" ({failure})" if problem == SENSOR_LOST and failure is not None else ""
            yield f"{{sensors}} {_PROBLEMS[problem]}" + reason.replace("{", "{{").replace("}", "}}")


def gpu_fields(devices: Sequence[DeviceEnergy]) -> dict[str, Any]:
    """Return the GPU fields of a record. They are unknown unless the process has exactly one GPU."""
    if len(devices) != 1:
        return {"gpu_id": None}
    device = devices[0]
    return {
        "gpu_id": device.gpu_id,
        "gpu_uuid": device.gpu_uuid,
        "gpu_name": device.gpu_name,
        "gpu_is_mig": device.mig_profile is not None,
        "gpu_mig_profile": device.mig_profile,
        "gpu_power_limit_w": device.gpu_power_limit_w,
    }

"""What was measured, as a raw record. Pure: everything was read before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

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
)
from llm_energy_measure.domain.model_info import inference_flops
from llm_energy_measure.domain.units import ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm_energy_measure.domain.latency import LatencyMeasurements
    from llm_energy_measure.domain.metrics import SensorReading, Timestamps
    from llm_energy_measure.recorder.tally import Counts

_WORST: dict[Provenance, int] = {"measured": 0, "integrated": 1, "modelled": 2}

_SAID = {
    SENSOR_LOST: "did not answer all the time; what it missed is not counted",
    COUNTER_RESET: "went backwards; what it counted before that is lost in part",
    SAMPLING_GAP: "was not read for a while; its energy over that time is a guess",
}


class ModelFacts(Struct, kw_only=True):
    """What the caller said of the model and its computation; None is unknown.

    Attributes:
        parameters: Parameters that take part in the computation of a token.
        flops_total: Floating-point operations of the whole run, where the caller knows them better.
        flops_method: How the caller knows them.
        flops_confidence: `high`, `medium` or `low`.
        compute_precision: Number format, such as `float16`.
        model_memory_mb: Memory of the model, in MiB.
    """

    parameters: float | None = None
    flops_total: float | None = None
    flops_method: str | None = None
    flops_confidence: Literal["high", "medium", "low"] | None = None
    compute_precision: str | None = None
    model_memory_mb: float | None = None


def energy_metrics(
    readings: Sequence[SensorReading] | None,
    devices: Mapping[str, DeviceEnergy],
    window: Timestamps,
    *,
    tokens: int | None,
    idle_power_w: float | None,
) -> EnergyMetrics:
    """The energy of a process from what its sensors said.

    Args:
        readings: What each sensor said; none at all where the process was asked to measure none; None where it could
            not measure any.
        devices: The devices that sensors saw, by the sensor's instance.
        window: The energy window.
        tokens: Tokens of the process, None if nobody counted.
        idle_power_w: Power while nothing ran, in watts.
    """
    known = [reading for reading in readings or () if reading.energy_j is not None]
    by_component: dict[str, list[SensorReading]] = {"gpu": [], "cpu": [], "ram": [], "total": []}
    for reading in known:
        by_component[reading.component].append(reading)
    gpu, cpu, ram = (_sum_j(by_component[name]) for name in ("gpu", "cpu", "ram"))
    # A sensor of everything together sees what the others see.
    behind_total = by_component["total"] or known
    total = _sum_j(behind_total)
    return EnergyMetrics(
        total_energy_j=total,
        duration_sec=window.duration_sec,
        gpu_energy_j=gpu,
        cpu_energy_j=cpu,
        ram_energy_j=ram,
        gpu_power_w=ratio(gpu, window.duration_sec),
        cpu_power_w=ratio(cpu, window.duration_sec),
        energy_per_token_j=ratio(total, tokens),
        window=window,
        total_scope=_scope(behind_total),
        total_provenance=_provenance(behind_total),
        gpu_scope=_scope(by_component["gpu"]),
        gpu_provenance=_provenance(by_component["gpu"]),
        cpu_scope=_scope(by_component["cpu"]),
        cpu_provenance=_provenance(by_component["cpu"]),
        ram_scope=_scope(by_component["ram"]),
        ram_provenance=_provenance(by_component["ram"]),
        devices=_devices(readings or (), devices),
        idle_power_w=idle_power_w,
        sensors=None if readings is None else list(readings),
    )


def _sum_j(readings: Sequence[SensorReading]) -> float | None:
    return sum(reading.energy_j or 0.0 for reading in readings) if readings else None


def _scope(readings: Sequence[SensorReading]) -> Scope | None:
    """What all of them saw; None where they saw different things."""
    scopes = {reading.scope for reading in readings}
    return scopes.pop() if len(scopes) == 1 else None


def _provenance(readings: Iterable[SensorReading]) -> Provenance | None:
    """The weakest: what is modelled in part is not measured."""
    return max((reading.provenance for reading in readings if reading.provenance), key=_WORST.__getitem__, default=None)


def _devices(readings: Sequence[SensorReading], devices: Mapping[str, DeviceEnergy]) -> list[DeviceEnergy] | None:
    """The devices that this process counts, each with its energy."""
    counted = []
    for reading in readings:
        device = devices.get(reading.instance or "")
        if device is not None and reading.component == "gpu" and SENSOR_LOCKED not in reading.problems:
            facts = {name: getattr(device, name) for name in DeviceEnergy.__struct_fields__}
            facts.update(energy_j=reading.energy_j, provenance=reading.provenance)
            counted.append(DeviceEnergy(**facts))
    return counted or None


def inference_metrics(
    counts: Counts, latencies: LatencyMeasurements | None, inference_sec: float
) -> InferenceMetrics | None:
    """The work of a process; None if nobody counted any.

    Args:
        counts: Its tokens.
        latencies: Latencies of its requests.
        inference_sec: Time spent in inference, in seconds.
    """
    if not sum(counts) and latencies is None:
        return None
    generated = counts.generated(counts)
    total = counts.input + generated
    ttft_ms = latencies.ttft_ms if latencies is not None else []
    return InferenceMetrics(
        total_tokens=total,
        input_tokens=counts.input,
        output_tokens=generated,
        inference_time_sec=inference_sec,
        tokens_per_second=ratio(total, inference_sec),
        latency_per_token_ms=ratio(inference_sec * 1e3, total),
        time_to_first_token_ms=ratio(sum(ttft_ms), len(ttft_ms)),
        latency_measurements=latencies,
    )


def compute_metrics(
    facts: ModelFacts, tokens: int | None, inference_sec: float, peak_memory_mb: float | None
) -> ComputeMetrics | None:
    """The computation of a process; None if nothing is known of it.

    A number that the caller gave stands before an estimate from parameters and tokens.
    """
    total, method, confidence = facts.flops_total, facts.flops_method or "given", facts.flops_confidence
    if total is None and facts.parameters is not None and tokens is not None:
        total, method, confidence = inference_flops(facts.parameters, tokens), "parameter_estimate", "low"
    if total is None and peak_memory_mb is None and facts.model_memory_mb is None and facts.compute_precision is None:
        return None
    return ComputeMetrics(
        flops_total=total,
        flops_per_token=ratio(total, tokens),
        flops_per_second=ratio(total, inference_sec),
        peak_memory_mb=peak_memory_mb,
        model_memory_mb=facts.model_memory_mb,
        flops_method=method if total is not None else None,
        flops_confidence=confidence if total is not None else None,
        compute_precision=facts.compute_precision,
    )


def energy_warning(
    readings: Sequence[SensorReading] | None,
    refusals: Mapping[str, object],
    failures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str | None:
    """What a reader has to know of the energy, in sentences; None if there is nothing.

    Args:
        readings: What each sensor said; None where there was no sensor.
        refusals: Why a source could not be read, by its name.
        failures: Why a sensor stopped answering, by its name.
        notes: What sources said beside.
    """
    if readings is None:
        why = "; ".join([*notes, *(f"{name}: {reason}" for name, reason in refusals.items())])
        return f"no energy was measured, it is unknown and not zero; {why or 'there is no source'}"
    said = list(notes)
    for reading in readings:
        name = f"{reading.source} {reading.instance}"
        if reading.provenance == "modelled":
            said.append(f"{reading.component} energy is modelled, not measured ({name})")
        if reading.provenance == "integrated" and reading.sampling_rate_hz is not None:
            rate = f"{reading.sampling_rate_hz:.3g} Hz"
            said.append(f"{reading.component} energy is integrated from power samples at {rate} ({name})")
        for problem in reading.problems:
            if problem == SENSOR_LOCKED:
                said.append(f"{name} is counted elsewhere: by another process, or with another slice of its board")
            else:
                because = f" ({failures[name]})" if problem == SENSOR_LOST and name in failures else ""
                said.append(f"{name} {_SAID[problem]}{because}")
    return "; ".join(said) or None


def record_fields(devices: Sequence[DeviceEnergy]) -> dict[str, Any]:
    """What a record says of its process's one GPU; nothing where there is none, or several."""
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

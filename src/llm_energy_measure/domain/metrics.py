"""Measurements of one process: time, tokens, energy and computation."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Literal, Self

from msgspec import UNSET, UnsetType, field

from llm_energy_measure.domain.device_state import DeviceEvidence
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.record import Record
from llm_energy_measure.domain.units import (
    Count,
    Flops,
    FlopsPerSecond,
    FlopsPerToken,
    Hertz,
    Joules,
    JoulesPerToken,
    KilogramsCO2,
    Mebibytes,
    Milliseconds,
    Seconds,
    Tokens,
    TokensPerSecond,
    Watts,
)
from llm_energy_measure.exceptions import ConfigurationError

Scope = Literal["device", "process", "host"]
"""Scope of a sensor: one device, one process, or the whole host."""

Component = Literal["gpu", "cpu", "ram", "total"]
"""Component that a sensor measures; `total` is all components together."""

Provenance = Literal["measured", "integrated", "modelled"]
"""Origin of a value: an energy counter, an integral of power samples, or a constant or model."""

SENSOR_LOCKED = "claimed"
"""Problem code: another process holds the lock of this sensor and counts its energy."""

SENSOR_LOST = "sensor_lost"
"""Problem code: the sensor did not answer at the start or the end, so its energy covers only a part of the window."""

COUNTER_RESET = "counter_reset"
"""Problem code: the energy counter decreased, and a part of its energy is lost."""

SAMPLING_GAP = "sampling_gap"
"""Problem code: the sensor was not read for some time, and its energy in this time is an estimate."""


def _moment(value: datetime | str | float) -> datetime:
    """Return the datetime for a datetime, ISO 8601 text, or seconds since 1970-01-01 UTC."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
    except (ValueError, OverflowError, TypeError, OSError) as error:
        advice = "pass a datetime, ISO 8601 text, or seconds since 1970-01-01 UTC"
        raise ConfigurationError("cannot make a time span", f"{value!r} is no time", advice) from error


class Timestamps(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Start, end and duration of a time span.

    New records have timestamps in UTC. Older files can have timestamps without a UTC offset, which load unchanged and
    cannot be compared with timestamps with a UTC offset.

    Attributes:
        start: Wall clock at the start. None if unknown, as in some imported files.
        end: Wall clock at the end. None if unknown.
        duration_sec: Duration in seconds, from a monotonic clock if there was one. None if unknown.
    """

    start: datetime | None
    end: datetime | None
    duration_sec: float | None

    @classmethod
    def from_times(cls, start: datetime | str | float, end: datetime | str | float) -> Self:
        """Return the time span between two points in time, with its duration.

        Args:
            start: A datetime, ISO 8601 text, or seconds since 1970-01-01 UTC, as from `time.time()`.
            end: Like `start`; not before `start`.

        Raises:
            ConfigurationError: A value is not a point in time, the end is before the start, or only one has a UTC
                offset.

        Example:
            >>> Timestamps.from_times("2026-01-16T12:00:00+00:00", "2026-01-16T12:00:10+00:00").duration_sec
            10.0
        """
        first, last = _moment(start), _moment(end)
        if (first.tzinfo is None) != (last.tzinfo is None):
            found, advice = "only one of start and end has a UTC offset", "pass both with an offset"
            raise ConfigurationError("cannot make a time span", found, advice)
        duration_sec = (last - first).total_seconds()
        if duration_sec < 0:
            raise ConfigurationError(
                "cannot make a time span", f"the end {end} is before the start {start}", "swap them"
            )
        return cls(start=first, end=last, duration_sec=duration_sec)

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Start and end. None if one is unknown, or if only one has a UTC offset."""
        if self.start is None or self.end is None or (self.start.tzinfo is None) != (self.end.tzinfo is None):
            return None
        return self.start, self.end


class InferenceMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens, throughput and latency of one process. Numbers are at least 0; None means unknown.

    Attributes:
        total_tokens: Number of input and output tokens.
        input_tokens: Number of prompt tokens.
        output_tokens: Number of generated tokens.
        inference_time_sec: Time in inference, in seconds. Throughput refers to this time.
        tokens_per_second: Throughput of this process, in tokens per second.
        latency_per_token_ms: Inference time per token, in milliseconds.
        time_to_first_token_ms: Time to first token, in milliseconds.
        latency_measurements: Latency samples of the requests.
    """

    total_tokens: Tokens
    input_tokens: Tokens
    output_tokens: Tokens
    inference_time_sec: Seconds | None
    tokens_per_second: TokensPerSecond | None
    latency_per_token_ms: Milliseconds | None = None
    time_to_first_token_ms: Milliseconds | None = None
    latency_measurements: LatencyMeasurements | None = None


class DeviceEnergy(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of one of the devices that a process measured.

    Attributes:
        gpu_id: Index of the device on its host. None if unknown.
        gpu_uuid: UUID of the device. None if unknown.
        gpu_name: Model name of the board. None if unknown.
        gpu_power_limit_w: Power limit of the device, in watts, at least 0. None if unknown.
        mig_profile: Profile of the MIG slice. None for a whole device.
        energy_j: Energy in the energy window, in joules, at least 0. None if unknown.
        provenance: Origin of `energy_j`. None if unknown.
        evidence: State of the device at the start and the end of the run, and the summary of its samples. UNSET if
            unknown.
    """

    gpu_id: int | None = None
    gpu_uuid: str | None = None
    gpu_name: str | None = None
    gpu_power_limit_w: Watts | None = None
    mig_profile: str | None = None
    energy_j: Joules | None = None
    provenance: Provenance | None = None
    evidence: DeviceEvidence | UnsetType = UNSET


class SensorReading(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings of one sensor in the energy window: the evidence for an energy value.

    Energies and counters are in joules and at least 0.

    Attributes:
        source: Source that read the sensor, such as `nvml`, `rapl` or `cpu_model`.
        instance: Sensor of this source, such as a GPU UUID or `package-0`. None if the source has one sensor.
        component: Component that the sensor measures.
        scope: Scope of the sensor. None if unknown.
        provenance: Origin of `energy_j`. None if unknown.
        energy_j: Energy in the energy window. None if unknown.
        counter_start_j: Energy counter at the start of the window. None without a counter.
        counter_end_j: Energy counter at the end of the window. None without a counter.
        counter_range_j: Energy at which the counter restarts from 0. None if it does not restart.
        wraps: Number of restarts of the counter in the window. None if unknown.
        samples: Number of readings behind `energy_j`. None if unknown.
        sampling_rate_hz: Achieved readings per second, in hertz. None if unknown.
        problems: Problem codes: `counter_reset`, `sensor_lost`, `sampling_gap`, or `claimed` if another process reads
            the sensor.
        uncertainty_j: Largest error of `energy_j` that changes of the power between two samples can cause, in joules.
            UNSET for a counter.
        window: Time span of the readings, if another process read the sensor during the first part of the energy
            window. UNSET if the readings cover the whole energy window.
    """

    source: str
    instance: str | None = None
    component: Component
    scope: Scope | None = None
    provenance: Provenance | None = None
    energy_j: Joules | None = None
    counter_start_j: Joules | None = None
    counter_end_j: Joules | None = None
    counter_range_j: Joules | None = None
    wraps: Count | None = None
    samples: Count | None = None
    sampling_rate_hz: Hertz | None = None
    problems: list[str] = field(default_factory=list)
    uncertainty_j: Joules | UnsetType = UNSET
    window: Timestamps | UnsetType = UNSET


class Phase(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the run of a process. The totals of the run include the energy and the tokens of the phase.

    Numbers are sums over all occurrences of the phase and at least 0; None means unknown.

    Attributes:
        name: Name of the phase, such as `load`, `warmup`, `prefill` or `decode`.
        duration_sec: Time in the phase, in seconds.
        occurrences: Number of times that the phase was entered.
        total_energy_j: Energy of all components, in joules.
        gpu_energy_j: Energy of the GPUs, in joules.
        cpu_energy_j: Energy of the CPUs, in joules.
        ram_energy_j: Energy of the memory, in joules.
        input_tokens: Number of prompt tokens.
        output_tokens: Number of generated tokens.
    """

    name: str
    duration_sec: Seconds | None = None
    occurrences: Count | None = None
    total_energy_j: Joules | None = None
    gpu_energy_j: Joules | None = None
    cpu_energy_j: Joules | None = None
    ram_energy_j: Joules | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None


class EnergyMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy that one process measured, and the evidence for it. Numbers are at least 0; None means unknown.

    In many existing files, 0.0 means unknown. This 0.0 loads as 0.0, and verification reports the value.

    Attributes:
        total_energy_j: Energy of all components, in joules.
        duration_sec: Length of the energy window, in seconds.
        gpu_energy_j: Energy of the GPUs, in joules.
        cpu_energy_j: Energy of the CPUs, in joules.
        ram_energy_j: Energy of the memory, in joules.
        gpu_power_w: Power of the GPUs, in watts. In many existing files this power is one sample, not a mean.
        cpu_power_w: Power of the CPUs, in watts.
        emissions_kg_co2: Emissions, in kilograms of CO2 equivalent.
        energy_per_token_j: Energy per token, in joules.
        window: Time span of the energy values. It can differ from the time span of the inference.
        total_scope: Scope of `total_energy_j`.
        total_provenance: Origin of `total_energy_j`.
        gpu_scope: Scope of `gpu_energy_j`.
        gpu_provenance: Origin of `gpu_energy_j`.
        cpu_scope: Scope of `cpu_energy_j`.
        cpu_provenance: Origin of `cpu_energy_j`.
        ram_scope: Scope of `ram_energy_j`.
        ram_provenance: Origin of `ram_energy_j`.
        devices: Energy of each device that this process measured.
        idle_power_w: Power of the components in the total, measured while nothing ran, in watts.
        sensors: Readings of each sensor.
        idle_power_end_w: Like `idle_power_w`, measured after the run. UNSET if it was not measured.
    """

    total_energy_j: Joules | None
    duration_sec: Seconds | None
    gpu_energy_j: Joules | None = None
    cpu_energy_j: Joules | None = None
    ram_energy_j: Joules | None = None
    gpu_power_w: Watts | None = None
    cpu_power_w: Watts | None = None
    emissions_kg_co2: KilogramsCO2 | None = None
    energy_per_token_j: JoulesPerToken | None = None
    window: Timestamps | None = None
    total_scope: Scope | None = None
    total_provenance: Provenance | None = None
    gpu_scope: Scope | None = None
    gpu_provenance: Provenance | None = None
    cpu_scope: Scope | None = None
    cpu_provenance: Provenance | None = None
    ram_scope: Scope | None = None
    ram_provenance: Provenance | None = None
    devices: list[DeviceEnergy] | None = None
    idle_power_w: Watts | None = None
    sensors: list[SensorReading] | None = None
    idle_power_end_w: Watts | UnsetType | None = UNSET

    @property
    def idle_adjusted_energy_j(self) -> float | None:
        """The total energy minus the idle power times the duration, in joules, at least 0.

        The idle power is the mean of the known powers before and after the run. None if the total, the duration or both
        idle powers are unknown. This energy is derived, and never replaces the measured total.
        """
        known = [power_w for power_w in (self.idle_power_w, self.idle_power_end_w) if power_w not in (None, UNSET)]
        if self.total_energy_j is None or self.duration_sec is None or not known:
            return None
        idle_w = sum(float(power_w) for power_w in known if isinstance(power_w, int | float)) / len(known)
        return max(0.0, self.total_energy_j - idle_w * self.duration_sec)

    @property
    def known_energy_j(self) -> float | None:
        """The total, or the sum of the known components if the total is unknown, in joules. None if all are unknown."""
        if self.total_energy_j is not None:
            return self.total_energy_j
        known = [part for part in (self.gpu_energy_j, self.cpu_energy_j, self.ram_energy_j) if part is not None]
        return math.fsum(known) if known else None

    @property
    def is_missing(self) -> bool:
        """True if the total is unknown and no other process counts this energy.

        Energy is not missing if the process read no sensor, or if other processes hold the locks of all its sensors.
        """
        if self.total_energy_j is not None:
            return False
        return self.sensors is None or not all(SENSOR_LOCKED in reading.problems for reading in self.sensors)

    @property
    def is_lower_bound(self) -> bool:
        """True if the energy is too low because a sensor was lost or a counter was reset."""
        return any(not {SENSOR_LOST, COUNTER_RESET}.isdisjoint(reading.problems) for reading in self.sensors or ())


class ComputeMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Floating-point operations and memory of one process. Numbers are at least 0; None means unknown.

    Attributes:
        flops_total: Number of floating-point operations (a count, not a rate).
        flops_per_token: Number of floating-point operations per token.
        flops_per_second: Number of floating-point operations per second of inference.
        peak_memory_mb: Peak memory, in MiB (not in MB as the name suggests).
        model_memory_mb: Memory of the model, in MiB (not in MB as the name suggests).
        flops_method: Method behind `flops_total`, such as `parameter_estimate`.
        flops_confidence: `high`, `medium` or `low`.
        compute_precision: Number format of the computation, such as `float16`.
    """

    flops_total: Flops | None
    flops_per_token: FlopsPerToken | None = None
    flops_per_second: FlopsPerSecond | None = None
    peak_memory_mb: Mebibytes | None = None
    model_memory_mb: Mebibytes | None = None
    flops_method: str | None = None
    flops_confidence: str | None = None
    compute_precision: str | None = None

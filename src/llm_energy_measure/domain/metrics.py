"""What one process measured: tokens, energy, computation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from llm_energy_measure.domain.latency import LatencyMeasurements
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

Scope = Literal["device", "process", "host"]
"""What a sensor saw: one device, one process, or everything on the host."""

Component = Literal["gpu", "cpu", "ram", "total"]
"""What a sensor measures: a component, or everything together."""

Provenance = Literal["measured", "integrated", "modelled"]
"""Where a figure comes from: a counter, a sum of power samples, or a stated constant."""

SENSOR_LOCKED = "claimed"
"""Problem of a sensor that another process of the experiment reads, which counts its joules."""

SENSOR_LOST = "sensor_lost"
"""Problem of a sensor that did not answer at first, or not at last: its energy begins, or ends, with its answers."""

COUNTER_RESET = "counter_reset"
"""Problem of a counter that went backwards: a part of what it counted is lost."""

SAMPLING_GAP = "sampling_gap"
"""Problem of a sensor that was not read for a while: its energy over that time is a guess."""


class Timestamps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A span of time: wall-clock stamps for the when, a monotonic difference for the how long.

    New records carry zone-aware UTC stamps. Old ones without a zone load as they are, and can't be compared with
    zone-aware ones.

    Attributes:
        start: Wall clock at the start; None where an imported file does not tell it.
        end: Wall clock at the end; None if it is unknown.
        duration_sec: Duration in seconds, from a monotonic clock where there was one; None if it is unknown.
    """

    start: Annotated[datetime | None, Meta(description="wall clock at the start; null if unknown")]
    end: Annotated[datetime | None, Meta(description="wall clock at the end; null if unknown")]
    duration_sec: Annotated[float | None, Meta(description="duration in seconds; null if unknown")]

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Start and end, where both are known, and both have a UTC offset or both none."""
        if self.start is None or self.end is None or (self.start.tzinfo is None) != (self.end.tzinfo is None):
            return None
        return self.start, self.end


class InferenceMetrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The work that one process did.

    Attributes:
        total_tokens: Input and output tokens together.
        input_tokens: Prompt tokens.
        output_tokens: Generated tokens.
        inference_time_sec: Time spent in inference, in seconds: the window that throughput refers to.
        tokens_per_second: Throughput of this process.
        latency_per_token_ms: Inference time per token, in milliseconds.
        time_to_first_token_ms: Time to the first output token, in milliseconds.
        latency_measurements: Latency samples of single requests.
    """

    total_tokens: Annotated[Tokens, Meta(description="input and output tokens together")]
    input_tokens: Annotated[Tokens, Meta(description="prompt tokens")]
    output_tokens: Annotated[Tokens, Meta(description="generated tokens")]
    inference_time_sec: Annotated[Seconds | None, Meta(description="time spent in inference, in seconds")]
    tokens_per_second: Annotated[TokensPerSecond | None, Meta(description="throughput of this process")]
    latency_per_token_ms: Annotated[Milliseconds | None, Meta(description="inference time per token, in ms")] = None
    time_to_first_token_ms: Annotated[Milliseconds | None, Meta(description="time to first token, in ms")] = None
    latency_measurements: Annotated[LatencyMeasurements | None, Meta(description="latency samples of requests")] = None


class DeviceEnergy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of one device, where a process measured several.

    Attributes:
        gpu_id: Index on its host; None if unknown.
        gpu_uuid: UUID of the device; None if unknown.
        gpu_name: Model of the board.
        gpu_power_limit_w: Limit of its power, in watts.
        mig_profile: Profile of a MIG slice; None for a whole device.
        energy_j: Energy over the energy window, in joules; None if unknown.
        provenance: Where the figure comes from.
    """

    gpu_id: int | None = None
    gpu_uuid: str | None = None
    gpu_name: str | None = None
    gpu_power_limit_w: Annotated[Watts | None, Meta(description="power limit of the device, in W")] = None
    mig_profile: str | None = None
    energy_j: Annotated[Joules | None, Meta(description="energy over the energy window, in J")] = None
    provenance: Provenance | None = None


class SensorReading(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one sensor said over the energy window: the evidence behind an energy figure.

    Attributes:
        source: The source that read it, such as `nvml`, `rapl` or `cpu_model`.
        instance: Which of the source's sensors, such as a GPU's UUID or `package-0`.
        component: What it measures.
        scope: What it saw.
        provenance: Where its figure comes from.
        energy_j: Energy over the energy window, in joules; None if unknown.
        counter_start_j: Reading of its counter at the start of the window, in joules; None without a counter.
        counter_end_j: Reading of its counter at the end of the window, in joules.
        counter_range_j: What the counter counts up to before it begins anew, in joules; None if it does not.
        wraps: How often the counter began anew within the window.
        samples: How many readings the figure is made from.
        sampling_rate_hz: Readings a second, as achieved.
        problems: What went wrong, a code each: `counter_reset`, `sensor_lost`, `sampling_gap`; or `claimed`, where
            another process reads it.
    """

    source: str
    instance: str | None = None
    component: Component
    scope: Scope | None = None
    provenance: Provenance | None = None
    energy_j: Annotated[Joules | None, Meta(description="energy over the energy window, in J")] = None
    counter_start_j: Annotated[Joules | None, Meta(description="counter at the start, in J")] = None
    counter_end_j: Annotated[Joules | None, Meta(description="counter at the end, in J")] = None
    counter_range_j: Annotated[Joules | None, Meta(description="range of the counter, in J")] = None
    wraps: Annotated[Count | None, Meta(description="times the counter began anew")] = None
    samples: Annotated[Count | None, Meta(description="readings the figure is made from")] = None
    sampling_rate_hz: Annotated[Hertz | None, Meta(description="readings a second, as achieved")] = None
    problems: list[str] = field(default_factory=list)


class Phase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a process's run: its energy and tokens are parts of the whole, never added to it.

    Attributes:
        name: What it did, such as `load`, `warmup`, `prefill` or `decode`.
        duration_sec: Time spent in it, in seconds, over all its occurrences.
        occurrences: How often it was entered.
        total_energy_j: Energy of all components during it, in joules; None if unknown.
        gpu_energy_j: Energy of the GPUs, in joules.
        cpu_energy_j: Energy of the CPUs, in joules.
        ram_energy_j: Energy of the memory, in joules.
        input_tokens: Prompt tokens counted during it.
        output_tokens: Generated tokens counted during it.
    """

    name: str
    duration_sec: Annotated[Seconds | None, Meta(description="time spent in it, in s")] = None
    occurrences: Annotated[Count | None, Meta(description="how often it was entered")] = None
    total_energy_j: Annotated[Joules | None, Meta(description="energy of all components, in J")] = None
    gpu_energy_j: Annotated[Joules | None, Meta(description="energy of the GPUs, in J")] = None
    cpu_energy_j: Annotated[Joules | None, Meta(description="energy of the CPUs, in J")] = None
    ram_energy_j: Annotated[Joules | None, Meta(description="energy of the memory, in J")] = None
    input_tokens: Annotated[Tokens | None, Meta(description="prompt tokens")] = None
    output_tokens: Annotated[Tokens | None, Meta(description="generated tokens")] = None


class EnergyMetrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The energy that one process measured, and what its sensors saw.

    In files of the field 0.0 often means "unknown"; it loads as the 0.0 it is, and verification tells.

    Attributes:
        total_energy_j: Energy of all components together, in joules; None if unknown.
        duration_sec: Length of the energy window, in seconds; None if unknown.
        gpu_energy_j: Energy of the GPUs, in joules.
        cpu_energy_j: Energy of the CPUs, in joules.
        ram_energy_j: Energy of the memory, in joules.
        gpu_power_w: Power of the GPUs, in watts; in files of the field one instantaneous sample and no mean.
        cpu_power_w: Power of the CPUs, in watts.
        emissions_kg_co2: Emissions, in kilograms of CO2 equivalent.
        energy_per_token_j: Energy per token, in joules.
        window: The energy window: what the energy figures refer to, which need not be the inference window.
        total_scope: What the sensors behind the total saw.
        total_provenance: Where the total comes from.
        gpu_scope: What the sensor behind `gpu_energy_j` saw.
        gpu_provenance: Where `gpu_energy_j` comes from.
        cpu_scope: What the sensor behind `cpu_energy_j` saw.
        cpu_provenance: Where `cpu_energy_j` comes from.
        ram_scope: What the sensor behind `ram_energy_j` saw.
        ram_provenance: Where `ram_energy_j` comes from.
        devices: Energy of each device that this process measured; None if it is not known for each.
        idle_power_w: Power of what the total covers, measured while nothing ran, in watts; None if it was not measured.
        sensors: What each sensor said; None if it is not known.
    """

    total_energy_j: Annotated[Joules | None, Meta(description="energy of all components, in J")]
    duration_sec: Annotated[Seconds | None, Meta(description="length of the energy window, in s")]
    gpu_energy_j: Annotated[Joules | None, Meta(description="energy of the GPUs, in J")] = None
    cpu_energy_j: Annotated[Joules | None, Meta(description="energy of the CPUs, in J")] = None
    ram_energy_j: Annotated[Joules | None, Meta(description="energy of the memory, in J")] = None
    gpu_power_w: Annotated[Watts | None, Meta(description="power of the GPUs, in W; may be a single sample")] = None
    cpu_power_w: Annotated[Watts | None, Meta(description="power of the CPUs, in W")] = None
    emissions_kg_co2: Annotated[KilogramsCO2 | None, Meta(description="emissions, in kg CO2eq")] = None
    energy_per_token_j: Annotated[JoulesPerToken | None, Meta(description="energy per token, in J")] = None
    window: Annotated[Timestamps | None, Meta(description="the energy window")] = None
    total_scope: Scope | None = None
    total_provenance: Provenance | None = None
    gpu_scope: Scope | None = None
    gpu_provenance: Provenance | None = None
    cpu_scope: Scope | None = None
    cpu_provenance: Provenance | None = None
    ram_scope: Scope | None = None
    ram_provenance: Provenance | None = None
    devices: Annotated[list[DeviceEnergy] | None, Meta(description="energy of each measured device")] = None
    idle_power_w: Annotated[Watts | None, Meta(description="power while nothing ran, in W")] = None
    sensors: Annotated[list[SensorReading] | None, Meta(description="what each sensor said")] = None

    @property
    def is_missing(self) -> bool:
        """True if energy is missing; not where all that the process could read, if anything, another one counts."""
        if self.total_energy_j is not None:
            return False
        return self.sensors is None or not all(SENSOR_LOCKED in reading.problems for reading in self.sensors)

    @property
    def is_lower_bound(self) -> bool:
        """True if a sensor is known to have seen less than there was."""
        return any(not {SENSOR_LOST, COUNTER_RESET}.isdisjoint(reading.problems) for reading in self.sensors or ())


class ComputeMetrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The computation that one process did.

    Attributes:
        flops_total: Floating-point operations (a count, not a rate); None if unknown.
        flops_per_token: Floating-point operations per token.
        flops_per_second: Floating-point operations per second of inference.
        peak_memory_mb: Peak memory. In MiB, whatever the field's name says.
        model_memory_mb: Memory of the model. In MiB, whatever the field's name says.
        flops_method: How the count was obtained, such as `parameter_estimate`.
        flops_confidence: `high`, `medium` or `low`.
        compute_precision: Number format of the computation, such as `float16`.
    """

    flops_total: Annotated[Flops | None, Meta(description="floating-point operations, a count")]
    flops_per_token: Annotated[FlopsPerToken | None, Meta(description="floating-point operations per token")] = None
    flops_per_second: Annotated[FlopsPerSecond | None, Meta(description="floating-point operations per second")] = None
    peak_memory_mb: Annotated[Mebibytes | None, Meta(description="peak memory, in MiB")] = None
    model_memory_mb: Annotated[Mebibytes | None, Meta(description="memory of the model, in MiB")] = None
    flops_method: str | None = None
    flops_confidence: str | None = None
    compute_precision: str | None = None

"""State of a GPU at an instant and over a run: temperature, clock, throttle reasons, power limit."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from llm_energy_measure.domain.units import Count, Fraction, Megahertz, Seconds, Watts

GPU_IDLE = "gpu_idle"
"""Throttle reason: nothing runs on the GPU."""

SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake", "sw_thermal_slowdown")
"""Throttle reasons that show a problem: heat, or a power supply that is too weak."""

POWER_CAP = "sw_power_cap"
"""Throttle reason: the GPU draws its power limit. This is normal under load."""

THROTTLED = "throttled"
"""Throttle reason: the GPU is slowed down, and its library gives no reason. The cause may be the power limit."""

THROTTLE_BITS = {
    0x1: GPU_IDLE,
    0x2: "applications_clocks_setting",
    0x4: POWER_CAP,
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x100: "display_clock_setting",
}
"""Throttle reason of each bit in a bit mask of NVML. Source: NVML API reference, nvmlClocksEventReasons."""

SEPARATOR = " "
"""Separator of throttle reasons in a file of samples."""


def throttle_names(bits: int) -> list[str]:
    """Return the throttle reasons in a bit mask of NVML.

    Example:
        >>> throttle_names(0x24), throttle_names(0x10000)
        (['sw_power_cap', 'sw_thermal_slowdown'], ['0x10000'])
    """
    known = [name for bit, name in THROTTLE_BITS.items() if bits & bit]
    unknown = bits & ~sum(THROTTLE_BITS)
    return [*known, hex(unknown)] if unknown else known


class DeviceSample(NamedTuple):
    """One sample of a device. None means unknown.

    Attributes:
        power_w: Power, in watts.
        temperature_c: Temperature, in degrees Celsius.
        clock_mhz: Clock of the streaming multiprocessors, or of the graphics engine of AMD, in megahertz.
        throttle: Throttle reasons, separated by spaces; empty if there is none.
    """

    power_w: float
    temperature_c: float | None = None
    clock_mhz: float | None = None
    throttle: str | None = None


class DeviceState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of a device at an instant. None means unknown.

    Attributes:
        temperature_c: Temperature, in degrees Celsius.
        clock_mhz: Clock of the streaming multiprocessors, or of the graphics engine of AMD, in megahertz.
        throttle: Throttle reasons, such as `sw_power_cap`.
        power_limit_w: Enforced power limit, in watts.
        persistence_mode: Whether the driver stays loaded while no program uses the device.
    """

    temperature_c: float | None = None
    clock_mhz: Megahertz | None = None
    throttle: list[str] | None = None
    power_limit_w: Watts | None = None
    persistence_mode: bool | None = None


class DeviceSummary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Summary of the samples of a device over a run. None means unknown.

    The first and the last quarter are quarters of the samples in which the device was not idle.

    Attributes:
        samples: Number of samples.
        interval_sec: Mean time between two samples, in seconds.
        power_min_w: Least power, in watts.
        power_max_w: Greatest power, in watts.
        temperature_max_c: Greatest temperature, in degrees Celsius.
        clock_min_mhz: Lowest clock, in megahertz.
        clock_max_mhz: Highest clock, in megahertz.
        clock_first_mhz: Mean clock in the first quarter, in megahertz.
        clock_last_mhz: Mean clock in the last quarter, in megahertz.
        temperature_first_c: Mean temperature in the first quarter, in degrees Celsius.
        temperature_last_c: Mean temperature in the last quarter, in degrees Celsius.
        throttled: Fraction of the samples with each throttle reason.
    """

    samples: Count
    interval_sec: Seconds | None = None
    power_min_w: Watts | None = None
    power_max_w: Watts | None = None
    temperature_max_c: float | None = None
    clock_min_mhz: Megahertz | None = None
    clock_max_mhz: Megahertz | None = None
    clock_first_mhz: Megahertz | None = None
    clock_last_mhz: Megahertz | None = None
    temperature_first_c: float | None = None
    temperature_last_c: float | None = None
    throttled: dict[str, Fraction] | None = None


class DeviceEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of a device at the start and the end of a run, and the summary of its samples.

    Attributes:
        start: State at the start of the run. None if unknown.
        end: State at the end of the run. None if unknown.
        samples: Summary of the samples in `samples-process_<i>.csv.gz`. UNSET if none were recorded.
    """

    start: DeviceState | None = None
    end: DeviceState | None = None
    samples: DeviceSummary | UnsetType = UNSET

"""Temperature, clock, throttle status and power limit of a GPU, through AMD SMI.

Source: AMD SMI Python API (ROCm 6 and 7), amdsmi_get_gpu_metrics_info, amdsmi_get_power_cap_info and
amdsmi_get_violation_status. A value that a GPU does not have is the text `N/A`, and an old library has fewer keys.
"""

from __future__ import annotations

from typing import Any

from llm_energy_measure.domain.device_state import (
    GPU_IDLE,
    POWER_CAP,
    SEPARATOR,
    THROTTLED,
    DeviceSample,
    DeviceState,
)

# NVML name of each reason of amdsmi_get_violation_status.
_VIOLATIONS = {
    "active_prochot_thrm": "hw_thermal_slowdown",
    "active_socket_thrm": "hw_thermal_slowdown",
    "active_vr_thrm": "hw_thermal_slowdown",
    "active_hbm_thrm": "hw_thermal_slowdown",
    "active_ppt_pwr": POWER_CAP,
}

# ROCm gives a power limit in microwatts; some releases and systems give watts. All limits in watts are below this
# value, and all limits in microwatts are above.
_MAX_LIMIT_W = 1e5


def state_of(smi: Any, handle: Any) -> DeviceState:
    """Return the state of a GPU. A value that the GPU does not give is None."""
    metrics = _query(smi, "amdsmi_get_gpu_metrics_info", handle)
    # This call takes 100 ms, because it reads its counters twice. Samples therefore do not use it.
    violations = _query(smi, "amdsmi_get_violation_status", handle)
    reasons = {reason for name, reason in _VIOLATIONS.items() if violations.get(name) is True}
    return DeviceState(
        temperature_c=_temperature_c(metrics),
        clock_mhz=_clock_mhz(metrics),
        throttle=sorted(reasons) or _throttle(metrics),
        power_limit_w=power_limit_w(smi, handle),
    )


def sample_of(smi: Any, handle: Any) -> DeviceSample | None:
    """Return a sample of a GPU; None if the GPU does not give its present power."""
    metrics = _query(smi, "amdsmi_get_gpu_metrics_info", handle)
    powers = (_number(metrics.get(name)) for name in ("current_socket_power", "average_socket_power"))
    power_w = next((value for value in powers if value), None)
    if power_w is None:
        return None
    reasons = _throttle(metrics)
    return DeviceSample(
        power_w=power_w,
        temperature_c=_temperature_c(metrics),
        clock_mhz=_clock_mhz(metrics),
        throttle=None if reasons is None else SEPARATOR.join(reasons),
    )


def power_limit_w(smi: Any, handle: Any) -> float | None:
    """Return the power limit of a GPU, in watts; None if the GPU does not give it."""
    limit = _number(_query(smi, "amdsmi_get_power_cap_info", handle).get("power_cap"))
    if not limit:
        return None
    return limit if limit < _MAX_LIMIT_W else limit * 1e-6


def driver_of(smi: Any, handle: Any) -> str | None:
    """Return the version of the driver of a GPU."""
    version = _query(smi, "amdsmi_get_gpu_driver_info", handle).get("driver_version")
    return version if isinstance(version, str) and version != "N/A" else None


def _query(smi: Any, name: str, handle: Any) -> dict[str, Any]:
    """Return the answer of a function; empty if the library or the GPU does not support it."""
    function = getattr(smi, name, None)
    if function is None:
        return {}
    try:
        answer: dict[str, Any] = function(handle)
    except smi.AmdSmiException:
        return {}
    return answer


def _temperature_c(metrics: dict[str, Any]) -> float | None:
    """Return the temperature of the hottest point of the chip; if unknown, the temperature of its edge."""
    hottest_c = _number(metrics.get("temperature_hotspot"))
    return _number(metrics.get("temperature_edge")) if hottest_c is None else hottest_c


def _clock_mhz(metrics: dict[str, Any]) -> float | None:
    """Return the present clock of the graphics engine; of several engines, the first known clock."""
    several = metrics.get("current_gfxclks")
    clocks = [metrics.get("current_gfxclk"), *(several if isinstance(several, list) else ())]
    return next((value for clock in clocks if (value := _number(clock)) is not None), None)


def _throttle(metrics: dict[str, Any]) -> list[str] | None:
    """Return those of `GPU_IDLE` and `THROTTLED` that apply; None if unknown. The metrics give no other reason."""
    is_throttled = metrics.get("throttle_status")
    if not isinstance(is_throttled, int):
        return None
    is_idle = _number(metrics.get("average_gfx_activity")) == 0
    return [*([GPU_IDLE] if is_idle else []), *([THROTTLED] if is_throttled else [])]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

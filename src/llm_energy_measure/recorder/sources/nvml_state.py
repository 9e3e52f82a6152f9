"""Temperature, clock, throttle reasons, power limit and persistence mode of a board, through NVML."""

from __future__ import annotations

from typing import Any

from llm_energy_measure.domain.device_state import SEPARATOR, DeviceSample, DeviceState, throttle_names

# Source: NVML API reference, nvmlTemperatureSensors_t and nvmlClockType_t.
_TEMPERATURE_GPU = 0
_CLOCK_SM = 1

# Drivers before release 535 use the second name.
_THROTTLE_QUERIES = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")


def state_of(nvml: Any, board: Any) -> DeviceState:
    """Return the state of a board. A value that the board does not give is None."""
    limit_mw = query(nvml, "nvmlDeviceGetEnforcedPowerLimit", board)
    persistence = query(nvml, "nvmlDeviceGetPersistenceMode", board)
    return DeviceState(
        temperature_c=_float(query(nvml, "nvmlDeviceGetTemperature", board, _TEMPERATURE_GPU)),
        clock_mhz=_float(query(nvml, "nvmlDeviceGetClockInfo", board, _CLOCK_SM)),
        throttle=_throttle(nvml, board),
        power_limit_w=None if limit_mw is None else float(limit_mw) * 1e-3,
        persistence_mode=None if persistence is None else bool(persistence),
    )


def sample_of(nvml: Any, board: Any) -> DeviceSample:
    """Return a sample of a board. Raises an error of NVML if the power cannot be read."""
    reasons = _throttle(nvml, board)
    return DeviceSample(
        power_w=float(nvml.nvmlDeviceGetPowerUsage(board)) * 1e-3,
        temperature_c=_float(query(nvml, "nvmlDeviceGetTemperature", board, _TEMPERATURE_GPU)),
        clock_mhz=_float(query(nvml, "nvmlDeviceGetClockInfo", board, _CLOCK_SM)),
        throttle=None if reasons is None else SEPARATOR.join(reasons),
    )


def driver_of(nvml: Any) -> tuple[str | None, str | None]:
    """Return the version of the driver, and the newest version of CUDA that it supports, such as `12.4`."""
    driver = query(nvml, "nvmlSystemGetDriverVersion")
    number = query(nvml, "nvmlSystemGetCudaDriverVersion")  # 12040 for 12.4
    cuda = None if number is None else f"{int(number) // 1000}.{int(number) % 1000 // 10}"
    return driver.decode() if isinstance(driver, bytes) else driver, cuda


def query(nvml: Any, name: str, *arguments: Any) -> Any:
    """Return the answer of a function of NVML; None if the library or the device does not support it."""
    function = getattr(nvml, name, None)
    if function is None:
        return None
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def _throttle(nvml: Any, board: Any) -> list[str] | None:
    bits = next((found for name in _THROTTLE_QUERIES if (found := query(nvml, name, board)) is not None), None)
    return None if bits is None else throttle_names(int(bits))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)

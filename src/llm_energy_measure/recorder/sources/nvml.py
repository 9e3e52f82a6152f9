"""NVIDIA GPUs through NVML: the counter of total energy, or samples of power where a board has none."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.devices import visible_devices
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.recorder.sources import Setting

_DOING = "cannot read GPUs through NVML"


class Nvml:
    """Each GPU of the process: joules since the driver was loaded, or, before Volta, watts now.

    The counter is the whole board's: of a MIG slice it is that of the board that the slice is a part of, so that of
    several processes on one board one reads it.

    Args:
        library: The module `pynvml`, or what answers as it does; imported when it is needed.

    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption (mJ), nvmlDeviceGetPowerUsage (mW).
    """

    name = "nvml"

    def __init__(self, library: Any = None) -> None:
        """Remember the library; nothing is imported."""
        self._library = library
        self._is_open = False

    def open(self, setting: Setting) -> list[Sensor]:
        """A sensor for each GPU of the process. Raises `RecorderError` where there is none."""
        nvml = self._library = self._library or _import_pynvml()
        try:
            nvml.nvmlInit()
            self._is_open = True
            handles = self._handles(nvml, setting)
            sensors = [self._sensor(nvml, handle) for handle in handles]
        except nvml.NVMLError as error:
            advice = "check that nvidia-smi works here, and that the container was given the GPUs"
            raise RecorderError(_DOING, str(error), advice) from error
        if not sensors:
            found = "CUDA_VISIBLE_DEVICES shows this process none"
            raise RecorderError(_DOING, found, "set it to the GPUs of the process, or unset it")
        return sensors

    def close(self) -> None:
        """Let go of the library, if it was initialised."""
        if self._is_open:
            self._is_open = False
            self._library.nvmlShutdown()

    def _handles(self, nvml: Any, setting: Setting) -> list[Any]:
        visible = visible_devices(setting.environ)
        if visible is None:
            visible = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
        elif setting.gpus is None:
            visible = _up_to_missing(nvml, visible, setting.notes)
        return [_handle(nvml, name) for name in setting.chosen_gpus(visible)]

    def _sensor(self, nvml: Any, handle: Any) -> Sensor:
        device, board = _describe(nvml, handle)
        read: Callable[[], float]
        try:
            nvml.nvmlDeviceGetTotalEnergyConsumption(board)
        except nvml.NVMLError:
            # Before Volta, and on some virtual GPUs, there is no counter. Where no power is told either, nothing is.
            nvml.nvmlDeviceGetPowerUsage(board)

            def read() -> float:
                return float(nvml.nvmlDeviceGetPowerUsage(board)) * 1e-3

            is_counter = False
        else:

            def read() -> float:
                return float(nvml.nvmlDeviceGetTotalEnergyConsumption(board)) * 1e-3

            is_counter = True
        return Sensor(
            source=self.name,
            instance=device.gpu_uuid or str(device.gpu_id),
            component="gpu",
            scope="device",
            provenance="measured" if is_counter else "integrated",
            quantity="energy" if is_counter else "power",
            read=read,
            device=device,
            sees=_text(nvml.nvmlDeviceGetUUID(board)),
        )


def _import_pynvml() -> Any:
    """Return the module `pynvml`. Raises `RecorderError` if its package is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        package = EXTRA_PACKAGES["nvidia"]
        raise RecorderError(_DOING, f"the package {package} is not installed", f"pip install {package}") from error


def _handle(nvml: Any, name: str) -> Any:
    """The handle of a device named as in CUDA_VISIBLE_DEVICES; of a UUID the beginning is enough."""
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    if name.startswith("GPU-"):
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        begin_so = [handle for handle in handles if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name)]
        if len(begin_so) == 1:
            return begin_so[0]
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _up_to_missing(nvml: Any, visible: list[str], notes: list[str]) -> list[str]:
    """The visible devices up to the first that is not there, as CUDA shows them; where that is the first, all."""
    for index, name in enumerate(visible[1:], start=1):
        try:
            _handle(nvml, name)
        except nvml.NVMLError as error:
            notes.append(f"CUDA_VISIBLE_DEVICES is read up to {name}, which is not here ({error})")
            return visible[:index]
    return visible


def _describe(nvml: Any, handle: Any) -> tuple[DeviceEnergy, Any]:
    """What is known of a device, and the handle of its board, which is another one for a MIG slice."""
    board, profile = handle, None
    if _or_none(nvml, nvml.nvmlDeviceIsMigDeviceHandle, handle):
        board = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        # "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
        profile = _text(nvml.nvmlDeviceGetName(handle)).rpartition("MIG ")[2] or "unknown"
    limit_mw = _or_none(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, board)
    device = DeviceEnergy(
        gpu_id=_or_none(nvml, nvml.nvmlDeviceGetIndex, board),
        gpu_uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        gpu_name=_text(nvml.nvmlDeviceGetName(board)),
        gpu_power_limit_w=None if limit_mw is None else float(limit_mw) * 1e-3,
        mig_profile=profile,
    )
    return device, board


def _or_none(nvml: Any, ask: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return ask(handle)
    except nvml.NVMLError:
        return None


def _text(name: str | bytes) -> str:
    """Older versions of the library answer in bytes."""
    return name.decode() if isinstance(name, bytes) else name

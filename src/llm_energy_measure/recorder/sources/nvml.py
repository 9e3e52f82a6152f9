"""NVIDIA GPUs through NVML: the counter of total energy, or power samples on boards without this counter."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.devices import visible_devices
from llm_energy_measure.recorder.sources import Sensor, Settings, import_library
from llm_energy_measure.recorder.sources.nvml_state import driver_of, query, sample_of, state_of

_DOING = "cannot read GPUs through NVML"


class Nvml:
    """One sensor per GPU of the process: joules since the driver was loaded or, before Volta, the present power.

    The counter covers the whole board, also for a MIG slice. If several processes use one board, only one of them
    reads the counter.

    Args:
        library: The module `pynvml` or an object with its functions; by default `open` imports the module.

    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption (mJ), nvmlDeviceGetPowerUsage (mW).
    """

    name = "nvml"
    may_hang = True

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._is_open = False

    def open(self, settings: Settings) -> list[Sensor]:
        """Return one sensor per GPU of the process. A GPU that cannot be read now also gets a sensor.

        Raises:
            RecorderError: There is no GPU, or none can be read.
            ConfigurationError: A GPU that the user selects does not exist.
        """
        nvml = self._library = self._library or import_library("pynvml", "nvidia", _DOING)
        try:
            nvml.nvmlInit()
            self._is_open = True
            sensors = self._sensors(nvml, settings)
        except nvml.NVMLError as error:
            advice = "check that nvidia-smi works here, and that the container has access to the GPUs"
            raise RecorderError(_DOING, str(error), advice) from error
        if not sensors:
            found = "CUDA_VISIBLE_DEVICES shows no GPU to this process"
            raise RecorderError(_DOING, found, "set it to the GPUs of the process, or unset it")
        return sensors

    def close(self) -> None:
        """Shut the library down if `open` initialised it."""
        if self._is_open:
            self._is_open = False
            self._library.nvmlShutdown()

    def driver_versions(self) -> tuple[str | None, str | None] | None:
        """Return the version of the driver and the newest CUDA that it supports; None if the source is not open."""
        if not self._is_open:
            return None
        return driver_of(self._library)

    def _sensors(self, nvml: Any, settings: Settings) -> list[Sensor]:
        visible = visible_devices(settings.environ)
        count = nvml.nvmlDeviceGetCount()
        if visible is None:
            visible = [str(index) for index in range(count)]
        elif settings.gpus is None:
            visible = _until_missing(nvml, visible, settings.notes)
        sensors: list[Sensor] = []
        errors = []
        for name in settings.select_gpus(visible):
            try:
                sensors.append(self._sensor(nvml, _handle(nvml, name)))
            except nvml.NVMLError as error:
                is_index = name.isdecimal() and int(name) < count
                if settings.gpus is not None and not is_index and not _exists(nvml, name):
                    found = f"{error}; this machine has {count} GPUs"
                    raise ConfigurationError(
                        f"cannot measure GPU {name}", found, "correct gpus=[...] (--gpu)"
                    ) from error
                errors.append(error)
                sensors.append(self._lost_sensor(nvml, name))
        if errors and len(errors) == len(sensors):
            raise errors[0]
        return sensors

    def _lost_sensor(self, nvml: Any, name: str) -> Sensor:
        """Return a sensor for a GPU that cannot be read now, so that the record reports its missing energy."""

        def read() -> float:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml, name))) * 1e-3

        is_index = name.isdecimal()
        return Sensor(
            source=self.name,
            instance=name,
            component="gpu",
            scope="device",
            provenance="measured",
            read=read,
            device=DeviceEnergy(gpu_id=int(name) if is_index else None, gpu_uuid=None if is_index else name),
        )

    def _sensor(self, nvml: Any, handle: Any) -> Sensor:
        device, board = _describe(nvml, handle)
        is_counter, ask = True, nvml.nvmlDeviceGetTotalEnergyConsumption
        try:
            ask(board)
        except nvml.NVMLError:
            # Boards before Volta and some virtual GPUs have no counter. If NVML gives no power, the error is raised.
            is_counter, ask = False, nvml.nvmlDeviceGetPowerUsage
            ask(board)
        return Sensor(
            source=self.name,
            instance=device.gpu_uuid or str(device.gpu_id),
            component="gpu",
            scope="device",
            provenance="measured" if is_counter else "integrated",
            quantity="energy" if is_counter else "power",
            read=lambda: float(ask(board)) * 1e-3,  # from mJ or mW
            device=device,
            board=_text(nvml.nvmlDeviceGetUUID(board)),
            state=partial(state_of, nvml, board),
            sample=partial(sample_of, nvml, board),
        )


def _handle(nvml: Any, name: str) -> Any:
    """Return the handle of a device named as in CUDA_VISIBLE_DEVICES. A unique prefix of a GPU's UUID is enough."""
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    if name.startswith("GPU-"):
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        matches = [handle for handle in handles if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name)]
        if len(matches) == 1:
            return matches[0]
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _exists(nvml: Any, name: str) -> bool:
    try:
        _handle(nvml, name)
    except nvml.NVMLError:
        return False
    return True


def _until_missing(nvml: Any, visible: list[str], notes: list[str]) -> list[str]:
    """Return the visible devices before the first missing one, as CUDA does.

    If the first device is missing, return all devices, so that opening the first device raises the error.
    """
    for index, name in enumerate(visible[1:], start=1):
        try:
            _handle(nvml, name)
        except nvml.NVMLError as error:
            notes.append(
                f"CUDA_VISIBLE_DEVICES names {name}, which does not exist here ({error}); only GPUs before it are used"
            )
            return visible[:index]
    return visible


def _describe(nvml: Any, handle: Any) -> tuple[DeviceEnergy, Any]:
    """Return the facts of a device and the handle of its board. For a MIG slice, the board has another handle."""
    board, profile = handle, None
    if query(nvml, "nvmlDeviceIsMigDeviceHandle", handle):
        board = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        # An example of the name of a slice: "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
        profile = _text(nvml.nvmlDeviceGetName(handle)).rpartition("MIG ")[2] or "unknown"
    limit_mw = query(nvml, "nvmlDeviceGetEnforcedPowerLimit", board)
    device = DeviceEnergy(
        gpu_id=query(nvml, "nvmlDeviceGetIndex", board),
        gpu_uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        gpu_name=_text(nvml.nvmlDeviceGetName(board)),
        gpu_power_limit_w=None if limit_mw is None else float(limit_mw) * 1e-3,
        mig_profile=profile,
    )
    return device, board


def _text(name: str | bytes) -> str:
    """Return a name as text: older versions of the library return bytes."""
    return name.decode() if isinstance(name, bytes) else name

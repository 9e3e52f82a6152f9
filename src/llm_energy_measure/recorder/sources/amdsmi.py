"""AMD GPUs through AMD SMI, the library of ROCm."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.devices import ROCM_VARIABLES, visible_devices
from llm_energy_measure.recorder.sources import Sensor, Settings, import_library
from llm_energy_measure.recorder.sources.amdsmi_state import driver_of, power_limit_w, sample_of, state_of

DRIVER = Path("/dev/kfd")
"""Device file of ROCm's kernel driver."""

_DOING = "cannot read GPUs through AMD SMI"


class AmdSmi:
    """One energy counter per AMD GPU of the process, in joules since the driver was loaded.

    Args:
        library: The module `amdsmi` or an object with its functions; by default `open` imports the module.
        driver: Device file of the driver. If this file does not exist, `open` does not import the module.

    Source: AMD SMI Python API, amdsmi_get_energy_count: accumulator times resolution in microjoules.
    """

    name = "amdsmi"
    may_hang = True

    def __init__(self, library: Any = None, driver: Path = DRIVER) -> None:
        self._library = library
        self._driver = driver
        self._is_open = False

    def open(self, settings: Settings) -> list[Sensor]:
        """Return one sensor per GPU of the process. Raises `RecorderError` if there is none."""
        try:
            smi = self._library = self._library or self._import()
        except (OSError, KeyError) as error:  # import errors of amdsmi if ROCm's own library is missing
            advice = "install ROCm's amd-smi-lib, if this machine has an AMD GPU"
            raise RecorderError(_DOING, f"libamd_smi.so can't be loaded ({error})", advice) from error
        try:
            smi.amdsmi_init()
            self._is_open = True
            sensors = self._sensors(smi, settings)
        except smi.AmdSmiException as error:
            raise RecorderError(_DOING, str(error).strip(), "check that the command amd-smi works here") from error
        if not sensors:
            found = "this process sees no AMD GPU"
            raise RecorderError(_DOING, found, f"check {', '.join(ROCM_VARIABLES)}")
        return sensors

    def _import(self) -> Any:
        if not self._driver.exists():
            found = f"this machine shows no AMD GPU ({self._driver} does not exist)"
            raise RecorderError(_DOING, found, "if this machine has an AMD GPU, run 'modprobe amdgpu' as root")
        with stdout_to_stderr():
            return import_library("amdsmi", "amd", _DOING, note=", in the version of the installed ROCm")

    def close(self) -> None:
        """Shut the library down if `open` initialised it."""
        if self._is_open:
            self._is_open = False
            self._library.amdsmi_shut_down()

    def driver_versions(self) -> tuple[str | None, str | None] | None:
        """Return the version of the driver, and None for CUDA; None without a GPU or if the source is not open."""
        handles = self._library.amdsmi_get_processor_handles() if self._is_open else []
        return (driver_of(self._library, handles[0]), None) if handles else None

    def _sensors(self, smi: Any, settings: Settings) -> list[Sensor]:
        handles = dict(enumerate(smi.amdsmi_get_processor_handles()))
        uuids = {index: self._uuid(smi, handle) for index, handle in handles.items()}
        visible = visible_devices(settings.environ, ROCM_VARIABLES)
        known = {*map(str, handles), *(uuid for uuid in uuids.values() if uuid is not None)}
        names = map(str, handles) if visible is None else takewhile(known.__contains__, visible)
        selected = settings.select_gpus(list(names))
        indices = [index for name in selected for index in handles if name in (str(index), uuids[index])]
        sensors: list[Sensor] = []
        errors = []
        for index in indices:
            try:
                sensors.append(self._sensor(smi, index, handles[index], uuids[index]))
            except smi.AmdSmiException as error:
                # An example is the graphics unit of a processor, which has no energy counter.
                errors.append(error)
                settings.notes.append(f"AMD GPU {index} has no readable energy counter and is left out ({error})")
        if errors and not sensors:
            raise errors[0]
        return sensors

    @staticmethod
    def _uuid(smi: Any, handle: Any) -> str | None:
        try:
            return str(smi.amdsmi_get_gpu_device_uuid(handle))
        except smi.AmdSmiException:
            return None

    def _sensor(self, smi: Any, index: int, handle: Any, uuid: str | None) -> Sensor:
        read = partial(_read_joules, smi, handle)
        read()  # raise an error now if the counter cannot be read
        try:
            name = smi.amdsmi_get_gpu_asic_info(handle).get("market_name") or None
        except smi.AmdSmiException:
            name = None
        # If the GPU does not give its present power, samples are computed from the counter.
        has_power = sample_of(smi, handle) is not None
        return Sensor(
            source=self.name,
            instance=uuid or str(index),
            component="gpu",
            scope="device",
            provenance="measured",
            read=read,
            device=DeviceEnergy(
                gpu_id=index, gpu_uuid=uuid, gpu_name=name, gpu_power_limit_w=power_limit_w(smi, handle)
            ),
            state=partial(state_of, smi, handle),
            sample=partial(sample_of, smi, handle) if has_power else None,
        )


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send output on stdout, also of C libraries, to stderr. amdsmi prints when it is imported.

    Another program may read stdout through a pipe, so stdout must not contain the text of amdsmi.
    """
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # a stream is closed or missing
        yield
        return
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _read_joules(smi: Any, handle: Any) -> float:
    counted = smi.amdsmi_get_energy_count(handle)
    # ROCm before version 6 calls this field `power`.
    ticks = counted["energy_accumulator"] if "energy_accumulator" in counted else counted["power"]
    return float(ticks) * float(counted["counter_resolution"]) * 1e-6

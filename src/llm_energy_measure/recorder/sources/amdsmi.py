"""AMD GPUs through AMD SMI, where its library loads."""

from __future__ import annotations

import importlib
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.devices import ROCM_VARIABLES, visible_devices
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from llm_energy_measure.recorder.sources import Setting

_DOING = "cannot read GPUs through AMD SMI"


class AmdSmi:
    """Each AMD GPU of the process: joules since its driver was loaded.

    Args:
        library: The module `amdsmi`, or what answers as it does; imported when it is needed.

    Source: AMD SMI Python API, amdsmi_get_energy_count: accumulator times resolution in microjoules.
    """

    name = "amdsmi"

    def __init__(self, library: Any = None) -> None:
        """Remember the library; nothing is imported."""
        self._library = library
        self._is_open = False

    def open(self, setting: Setting) -> list[Sensor]:
        """A sensor for each GPU of the process. Raises `RecorderError` where there is none."""
        try:
            smi = self._library = self._library or importlib.import_module("amdsmi")
        except ImportError as error:
            advice = f"pip install {EXTRA_PACKAGES['amd']}, in the version of the installed ROCm"
            raise RecorderError(_DOING, f"the package amdsmi can't be imported ({error})", advice) from error
        except (OSError, KeyError) as error:  # what it raises where ROCm's own library is missing
            advice = "install ROCm's amd-smi-lib, where there is an AMD GPU"
            raise RecorderError(_DOING, f"libamd_smi.so can't be loaded ({error})", advice) from error
        try:
            smi.amdsmi_init()
            self._is_open = True
            sensors = self._sensors(smi, setting)
        except smi.AmdSmiException as error:
            raise RecorderError(_DOING, str(error).strip(), "check that amd-smi works here") from error
        if not sensors:
            found = "no AMD GPU is visible to this process"
            raise RecorderError(_DOING, found, f"check {', '.join(ROCM_VARIABLES)}")
        return sensors

    def close(self) -> None:
        """Let go of the library, if it was initialised."""
        if self._is_open:
            self._is_open = False
            self._library.amdsmi_shut_down()

    def _sensors(self, smi: Any, setting: Setting) -> list[Sensor]:
        handles = dict(enumerate(smi.amdsmi_get_processor_handles()))
        uuids = {index: str(smi.amdsmi_get_gpu_device_uuid(handle)) for index, handle in handles.items()}
        visible = visible_devices(setting.environ, ROCM_VARIABLES)
        known = {*map(str, handles), *uuids.values()}
        names = map(str, handles) if visible is None else takewhile(known.__contains__, visible)
        chosen = setting.chosen_gpus(list(names))
        indices = [index for name in chosen for index in handles if name in (str(index), uuids[index])]
        return [self._sensor(smi, index, handles[index], uuids[index]) for index in indices]

    def _sensor(self, smi: Any, index: int, handle: Any, uuid: str) -> Sensor:
        read = partial(_joules, smi, handle)
        read()
        try:
            name = smi.amdsmi_get_gpu_asic_info(handle).get("market_name") or None
        except smi.AmdSmiException:
            name = None
        return Sensor(
            source=self.name,
            instance=uuid,
            component="gpu",
            scope="device",
            provenance="measured",
            read=read,
            device=DeviceEnergy(gpu_id=index, gpu_uuid=uuid, gpu_name=name),
        )


def _joules(smi: Any, handle: Any) -> float:
    counted = smi.amdsmi_get_energy_count(handle)
    # Called `power` before ROCm 6.
    ticks = counted["energy_accumulator"] if "energy_accumulator" in counted else counted["power"]
    return float(ticks) * float(counted["counter_resolution"]) * 1e-6

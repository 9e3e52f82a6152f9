"""The devices that Zeus reads: its GPUs, processors and memory. An adapter; the extra is `zeus`."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.devices import visible_devices
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from llm_energy_measure.recorder.sources import Setting

_DOING = "cannot read devices through Zeus"


class Zeus:
    """What Zeus can read here, in joules; where its daemon runs, also without privileges.

    Zeus numbers the GPUs that CUDA_VISIBLE_DEVICES shows and tells no UUID: the index on the host is told from that
    variable.

    Args:
        library: The module `zeus.device`, or what answers as it does; imported when it is needed.

    Source: zeus.device, get_total_energy_consumption of GPUs and CPUs (mJ), version 0.16.
    """

    name = "zeus"

    def __init__(self, library: Any = None) -> None:
        """Remember the library; nothing is imported."""
        self._library = library

    def open(self, setting: Setting) -> list[Sensor]:
        """A sensor for each device. Raises `RecorderError` where there is none."""
        try:
            zeus = self._library = self._library or importlib.import_module("zeus.device")
        except ImportError as error:
            advice = f"pip install {EXTRA_PACKAGES['zeus']}"
            raise RecorderError(_DOING, f"the package zeus can't be imported ({error})", advice) from error
        sensors: list[Sensor] = []
        problems = []
        for opened in (self._gpus, self._cpus):
            try:
                sensors += opened(zeus, setting)
            except Exception as error:  # noqa: BLE001 - Zeus' errors have no base of their own
                problems.append(f"{type(error).__name__}: {error}")
        if not sensors:
            found = "; ".join(problems) or "it finds no device"
            raise RecorderError(_DOING, found, "see ml.energy/zeus/getting_started")
        return sensors

    def close(self) -> None:
        """Nothing is held."""

    def _gpus(self, zeus: Any, setting: Setting) -> list[Sensor]:
        gpus = zeus.get_gpus()
        visible = visible_devices(setting.environ)
        names = [str(index) for index in range(len(gpus))] if visible is None else visible[: len(gpus)]
        chosen = setting.chosen_gpus(names)
        sensors = []
        for index, name in enumerate(names):
            if name not in chosen or not gpus.supports_get_total_energy_consumption(index):
                continue
            read = partial(_gpu_joules, gpus, index)
            read()
            device = DeviceEnergy(
                gpu_id=int(name) if name.isdecimal() else None,
                gpu_uuid=None if name.isdecimal() else name,
                gpu_name=gpus.get_name(index),
            )
            sensors.append(
                Sensor(
                    source=self.name,
                    instance=f"gpu-{name}",
                    component="gpu",
                    scope="device",
                    provenance="measured",
                    read=read,
                    device=device,
                )
            )
        return sensors

    def _cpus(self, zeus: Any, setting: Setting) -> list[Sensor]:  # noqa: ARG002 - the signature of _gpus
        cpus = zeus.get_cpus()
        sensors = []
        for index in range(len(cpus)):
            parts = ["cpu", "dram"] if cpus.supports_get_dram_energy_consumption(index) else ["cpu"]
            for part in parts:
                read = partial(_cpu_joules, cpus, index, part)
                read()
                sensors.append(
                    Sensor(
                        source=self.name,
                        instance=f"{part}-{index}",
                        component="cpu" if part == "cpu" else "ram",
                        scope="host",
                        provenance="measured",
                        read=read,
                    )
                )
        return sensors


def _gpu_joules(gpus: Any, index: int) -> float:
    return float(gpus.get_total_energy_consumption(index)) * 1e-3


def _cpu_joules(cpus: Any, index: int, part: str) -> float:
    measured = cpus.get_total_energy_consumption(index)
    return float(measured.cpu_mj if part == "cpu" else measured.dram_mj) * 1e-3

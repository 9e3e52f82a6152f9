"""GPUs, processors and memory through the package Zeus."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llm_energy_measure.domain.metrics import Component, DeviceEnergy, Scope
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.devices import visible_devices
from llm_energy_measure.recorder.sources import Sensor, Settings, import_library

_DOING = "cannot read devices through Zeus"


class Zeus:
    """Energy counters that Zeus can read, in joules. If the Zeus daemon runs, Zeus needs no privileges.

    Zeus gives no UUIDs, and numbers only the GPUs that are visible through CUDA_VISIBLE_DEVICES of the process.
    Therefore the index of a GPU on its host comes from this variable, even if the recording gets another environment.

    Args:
        library: The module `zeus.device` or an object with its functions; by default `open` imports the module.
        environ: The environment that Zeus reads.

    Source: zeus.device, get_total_energy_consumption of GPUs and CPUs (mJ), version 0.16.
    """

    name = "zeus"

    def __init__(self, library: Any = None, environ: Mapping[str, str] = os.environ) -> None:
        self._library = library
        self._environ = environ

    def open(self, settings: Settings) -> list[Sensor]:
        """Return one sensor per device. Raises `RecorderError` if there is none."""
        zeus = self._library or import_library("zeus.device", "zeus", _DOING)
        sensors: list[Sensor] = []
        problems = []
        for open_devices in (self._gpus, self._cpus):
            try:
                sensors += open_devices(zeus, settings)
            except Exception as error:  # noqa: BLE001 - the errors of Zeus have no common base class
                problems.append(f"{type(error).__name__}: {error}")
        if not sensors:
            found = "; ".join(problems) or "Zeus finds no device"
            raise RecorderError(_DOING, found, "see ml.energy/zeus/getting_started")
        return sensors

    def close(self) -> None:
        """Do nothing: this source keeps no resource open."""

    def _gpus(self, zeus: Any, settings: Settings) -> list[Sensor]:
        gpus = zeus.get_gpus()
        seen = visible_devices(self._environ)
        names = [str(index) for index in range(len(gpus))] if seen is None else seen[: len(gpus)]
        visible = visible_devices(settings.environ)
        selected = settings.select_gpus(names if visible is None else [name for name in visible if name in names])
        sensors = []
        for index, name in enumerate(names):
            if name not in selected or not gpus.supports_get_total_energy_consumption(index):
                continue
            device = DeviceEnergy(
                gpu_id=int(name) if name.isdecimal() else None,
                gpu_uuid=None if name.isdecimal() else name,
                gpu_name=gpus.get_name(index),
            )
            sensors.append(self._sensor(f"gpu-{name}", "gpu", partial(_read_gpu_joules, gpus, index), device))
        return sensors

    def _cpus(self, zeus: Any, settings: Settings) -> list[Sensor]:  # noqa: ARG002 - the same signature as _gpus
        cpus = zeus.get_cpus()
        sensors = []
        for index in range(len(cpus)):
            sensors.append(self._sensor(f"cpu-{index}", "cpu", partial(_read_cpu_joules, cpus, index, "cpu_mj")))
            if cpus.supports_get_dram_energy_consumption(index):
                sensors.append(self._sensor(f"dram-{index}", "ram", partial(_read_cpu_joules, cpus, index, "dram_mj")))
        return sensors

    def _sensor(
        self, name: str, component: Component, read: Callable[[], float], device: DeviceEnergy | None = None
    ) -> Sensor:
        read()  # raise an error now if the counter cannot be read
        scope: Scope = "device" if component == "gpu" else "host"
        return Sensor(
            source=self.name,
            instance=name,
            component=component,
            scope=scope,
            provenance="measured",
            read=read,
            device=device,
        )


def _read_gpu_joules(gpus: Any, index: int) -> float:
    return float(gpus.get_total_energy_consumption(index)) * 1e-3


def _read_cpu_joules(cpus: Any, index: int, field: str) -> float:
    return float(getattr(cpus.get_total_energy_consumption(index), field)) * 1e-3

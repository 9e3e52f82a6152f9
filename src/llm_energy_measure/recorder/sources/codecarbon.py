"""CPU, GPU and memory energy of the host through the package CodeCarbon."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from llm_energy_measure.domain.metrics import Component, Provenance
from llm_energy_measure.domain.units import kwh_to_j
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.sources import Sensor, Settings, import_library

_DOING = "cannot measure through CodeCarbon"

# A reading less than this time after a measurement uses this measurement.
_FRESH_SEC = 0.05


class CodeCarbon:
    """Energy of the CPU, the GPU and the memory of the host, as CodeCarbon's tracker reports it, in joules.

    One measurement of the tracker takes tens of milliseconds. Therefore it is made only when the energy is needed, for
    example at the start and the end of the block and of each phase. Between measurements, CodeCarbon samples the power
    in its own thread. CodeCarbon writes no file and sends nothing.

    Args:
        make_tracker: Returns a codecarbon.EmissionsTracker or an object with its methods.
        now: A monotonic clock, in seconds.

    Source: codecarbon.EmissionsTracker, start_task and stop_task (kWh per task), version 3.3.
    """

    name = "codecarbon"

    def __init__(
        self,
        make_tracker: Callable[[], Any] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_tracker = make_tracker or _make_tracker
        self._now = now
        self._tracker: Any = None
        self._joules = {"cpu": 0.0, "gpu": 0.0, "ram": 0.0}
        self._tasks = 0
        self._measured_at = 0.0

    def open(self, settings: Settings) -> list[Sensor]:  # noqa: ARG002 - part of the Source protocol
        """Return one sensor per component. Raises `RecorderError` if CodeCarbon cannot start."""
        try:
            self._tracker = self._make_tracker()
            self._start_task()
            hardware = self._tracker.get_detected_hardware()
        except RecorderError:
            raise
        except Exception as error:
            raise RecorderError(_DOING, f"{type(error).__name__}: {error}", "see CodeCarbon's own log") from error
        components: list[Component] = ["cpu", "ram"]
        if hardware.get("gpu_count"):
            components.append("gpu")
        return [self._sensor(component) for component in components]

    def close(self) -> None:
        """Stop the tracker."""
        if self._tracker is not None and self._tasks:
            self._tracker.stop_task(self._task_name)
        self._tracker = None

    def _sensor(self, component: Component) -> Sensor:
        provenance: dict[str, Provenance] = {
            # Without RAPL, CodeCarbon multiplies a rated power by the load.
            "cpu": "measured" if _reads_rapl(self._tracker) else "modelled",
            "gpu": "measured",
            "ram": "modelled",  # a constant power per memory module
        }
        return Sensor(
            source=self.name,
            instance=component,
            component=component,
            scope="host",
            provenance=provenance[component],
            read=partial(self._read, component),
            is_cheap=False,
        )

    @property
    def _task_name(self) -> str:
        return f"llm-energy-measure-{self._tasks}"

    def _start_task(self) -> None:
        self._tasks += 1
        self._tracker.start_task(self._task_name)
        self._measured_at = self._now()

    def _read(self, component: str) -> float:
        if self._now() - self._measured_at >= _FRESH_SEC:
            measured = self._tracker.stop_task(self._task_name)
            for name in self._joules:
                self._joules[name] += kwh_to_j(float(getattr(measured, f"{name}_energy")))
            self._start_task()
        return self._joules[component]


def _make_tracker() -> Any:
    return import_library("codecarbon", "codecarbon", _DOING).EmissionsTracker(
        tracking_mode="machine", save_to_file=False, save_to_api=False, log_level="error", allow_multiple_runs=True
    )


def _reads_rapl(tracker: Any) -> bool:
    hardware = getattr(tracker, "_hardware", [])  # CodeCarbon has no public attribute for its hardware
    return any(getattr(part, "_mode", None) == "intel_rapl" for part in hardware)

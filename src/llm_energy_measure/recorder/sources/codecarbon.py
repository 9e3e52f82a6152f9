"""What CodeCarbon measures or models of the machine. An adapter; the extra is `codecarbon`."""

from __future__ import annotations

import importlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.units import kwh_to_j
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.domain.metrics import Component, Provenance
    from llm_energy_measure.recorder.sources import Setting

_DOING = "cannot measure through CodeCarbon"

# One measurement serves the readings of all components that come that soon after it.
_FRESH_SEC = 0.05


class CodeCarbon:
    """CPU, GPU and memory of the host, as CodeCarbon's tracker has them, in joules.

    Its tracker looks at the hardware in a way that takes tens of milliseconds, so it is read only where a figure is
    needed: at the ends of the block and of phases. In between it samples power by itself. Nothing is written or sent.

    Args:
        tracker: Makes an `EmissionsTracker`, or what answers as it does.
        now: A monotonic clock, in seconds.

    Source: codecarbon.EmissionsTracker, start_task and stop_task (kWh a task), version 3.3.
    """

    name = "codecarbon"

    def __init__(
        self,
        tracker: Callable[[], Any] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember them; nothing is imported."""
        self._make_tracker = tracker or _tracker
        self._now = now
        self._tracker: Any = None
        self._joules = {"cpu": 0.0, "gpu": 0.0, "ram": 0.0}
        self._tasks = 0
        self._measured_at = 0.0

    def open(self, setting: Setting) -> list[Sensor]:  # noqa: ARG002 - the same for every source
        """A sensor for each component. Raises `RecorderError` where CodeCarbon can't be started."""
        try:
            self._tracker = self._make_tracker()
            self._begin()
            hardware = self._tracker.get_detected_hardware()
        except ImportError as error:
            advice = f"pip install {EXTRA_PACKAGES['codecarbon']}"
            raise RecorderError(_DOING, f"the package codecarbon can't be imported ({error})", advice) from error
        except Exception as error:
            raise RecorderError(_DOING, f"{type(error).__name__}: {error}", "see its own log") from error
        components: list[Component] = ["cpu", "ram", *(["gpu"] if hardware.get("gpu_count") else [])]  # type: ignore[list-item]  # literals
        return [self._sensor(component) for component in components]

    def close(self) -> None:
        """End the tracker."""
        if self._tracker is not None and self._tasks:
            self._tracker.stop_task(self._task_name)
        self._tracker = None

    def _sensor(self, component: Component) -> Sensor:
        provenance: dict[str, Provenance] = {
            # Only where it reads RAPL; else it is a rated power times a load.
            "cpu": "measured" if _reads_rapl(self._tracker) else "modelled",
            "gpu": "measured",
            "ram": "modelled",  # a stated power for each memory module
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

    def _begin(self) -> None:
        self._tasks += 1
        self._tracker.start_task(self._task_name)
        self._measured_at = self._now()

    def _read(self, component: str) -> float:
        if self._now() - self._measured_at >= _FRESH_SEC:
            measured = self._tracker.stop_task(self._task_name)
            for name in self._joules:
                self._joules[name] += kwh_to_j(float(getattr(measured, f"{name}_energy")))
            self._begin()
        return self._joules[component]


def _tracker() -> Any:
    module = importlib.import_module("codecarbon")
    return module.EmissionsTracker(
        tracking_mode="machine", save_to_file=False, save_to_api=False, log_level="error", allow_multiple_runs=True
    )


def _reads_rapl(tracker: Any) -> bool:
    hardware = getattr(tracker, "_hardware", [])  # it says so nowhere else
    return any(getattr(part, "_mode", None) == "intel_rapl" for part in hardware)

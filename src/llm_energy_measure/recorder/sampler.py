"""Reads all sensors: at the ends of a window, between them from a thread, and whenever a figure is needed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.recorder.meter import Meter
from llm_energy_measure.recorder.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.domain.metrics import SensorReading
    from llm_energy_measure.recorder.clock import Clock
    from llm_energy_measure.recorder.sources import Sensor

# A reading of power that comes that much later than it should is a gap, but never one below a second: threads get late.
_GAP_INTERVALS = 5
_LEAST_GAP_SEC = 1.0


class Energies(Struct, frozen=True, kw_only=True):
    """Energy of each component up to an instant, in joules; None where nothing measures it."""

    gpu: float | None = None
    cpu: float | None = None
    ram: float | None = None
    total: float | None = None


class Sampler:
    """The readings of some sensors over one window.

    Args:
        sensors: What to read.
        clock: Where the instants come from.
        interval_sec: Time between two readings, in seconds; None for no thread, so that only the caller reads.
    """

    def __init__(self, sensors: Sequence[Sensor], clock: Clock, *, interval_sec: float | None) -> None:
        """Make the meters; nothing is read."""
        gap_sec = max(_LEAST_GAP_SEC, _GAP_INTERVALS * (interval_sec or 0.0))
        self._meters = [Meter(sensor, gap_sec=gap_sec) for sensor in sensors]
        self._clock = clock
        # Reentrant: a signal's handler runs in the main thread, which may be reading.
        self._lock = threading.RLock()
        self._is_reading = False
        self._has_ended = False
        self._ticker = Ticker("sampler", interval_sec, self._take_cheap) if interval_sec and sensors else None

    def begin(self) -> None:
        """Read everything: the window begins."""
        self.take()

    def keep_reading(self) -> None:
        """Go on reading from a thread."""
        if self._ticker is not None:
            self._ticker.start()

    def take(self, *, only_cheap: bool = False) -> None:
        """Read the sensors now, unless the window has ended."""
        with self._lock:
            # The handler of a signal may come here in the middle of a reading of the same thread.
            if self._has_ended or self._is_reading:
                return
            self._is_reading = True
            try:
                for meter in self._meters:
                    if meter.sensor.is_cheap or not only_cheap:
                        meter.take(self._clock.monotonic())
            finally:
                self._is_reading = False

    def _take_cheap(self) -> None:
        self.take(only_cheap=True)

    def end(self) -> None:
        """Read everything a last time: the window ends, and nothing is read after that."""
        with self._lock:
            self.take()
            self._has_ended = True

    def close(self) -> None:
        """End the window, if it has not ended, and the thread."""
        self.end()
        if self._ticker is not None:
            self._ticker.stop()

    def energies(self) -> Energies:
        """Energy of each component up to now, read now."""
        with self._lock:
            self.take()
            known: dict[str, float] = {}
            for meter in self._meters:
                if (energy_j := meter.energy_j) is not None:
                    component = meter.sensor.component
                    known[component] = known.get(component, 0.0) + energy_j
        if known and "total" not in known:
            known["total"] = sum(known.values())
        return Energies(**known)

    def readings(self) -> list[SensorReading]:
        """What each sensor said so far, in the order of the sensors."""
        with self._lock:
            return [meter.reading() for meter in self._meters]

    def failures(self) -> dict[str, str]:
        """Why the last reading of a sensor failed, by its name, for those where it did."""
        with self._lock:
            return {
                f"{meter.sensor.source} {meter.sensor.instance}": meter.failure
                for meter in self._meters
                if meter.failure is not None
            }

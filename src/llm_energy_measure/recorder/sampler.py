"""Reads all sensors: at the ends of a window, between them from a thread, and whenever a figure is needed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.recorder.meter import Meter
from llm_energy_measure.recorder.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm_energy_measure.domain.metrics import SensorReading
    from llm_energy_measure.recorder.clock import Clock
    from llm_energy_measure.recorder.sources import Sensor

# A reading of power that comes that much later than it should is a gap, but never one below a second: threads get late.
_GAP_INTERVALS = 5
_LEAST_GAP_SEC = 1.0

# Who waits longer than that for a sensor goes on without: schedulers kill some 30 s after SIGTERM.
_PATIENCE_SEC = 5.0


class Energies(Struct, frozen=True, kw_only=True):
    """Energy of each component up to an instant, in joules; None where nothing measures it, or a sensor fails."""

    gpu: float | None = None
    cpu: float | None = None
    ram: float | None = None
    total: float | None = None


class Sampler:
    """The readings of some sensors over one window.

    A sensor that doesn't answer holds up the thread that reads it, and no other: who has waited for the reading to end
    goes on with what was read before, and every sensor counts as lost until the reading has ended.

    Args:
        sensors: What to read.
        clock: Where the instants come from.
        interval_sec: Time between two readings, in seconds; None for no thread, so that only the caller reads.
        patience_sec: How long to wait for a reading of another thread, in seconds.
    """

    def __init__(
        self,
        sensors: Sequence[Sensor],
        clock: Clock,
        *,
        interval_sec: float | None,
        patience_sec: float = _PATIENCE_SEC,
    ) -> None:
        """Make the meters; nothing is read."""
        gap_sec = max(_LEAST_GAP_SEC, _GAP_INTERVALS * (interval_sec or 0.0))
        self._meters = [Meter(sensor, gap_sec=gap_sec) for sensor in sensors]
        self._clock = clock
        # Reentrant: a signal's handler runs in the main thread, which may be reading.
        self._lock = threading.RLock()
        self._patience_sec = patience_sec
        self._is_stuck = False
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
        with self._turn() as is_ours:
            if self._has_ended or not is_ours:
                return
            if self._is_reading:
                # The handler of a signal came here in the middle of a reading of the same thread.
                self._is_stuck = True
                return
            self._is_reading = True
            try:
                self._read(only_cheap=only_cheap)
            finally:
                self._is_reading = False

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Wait until no other thread reads; whether that was so in time. Who found it stuck waits no second time."""
        is_ours = self._lock.acquire(timeout=0 if self._is_stuck else self._patience_sec)
        try:
            self._is_stuck = self._is_stuck or not is_ours
            yield is_ours
        finally:
            if is_ours:
                self._lock.release()

    def _read(self, *, only_cheap: bool) -> None:
        for meter in self._meters:
            if meter.sensor.is_cheap or not only_cheap:
                now = self._clock.monotonic()
                answer = meter.ask()
                if self._has_ended:
                    return  # it comes too late: the window has ended without it
                meter.add(now, answer)
        self._is_stuck = False

    def _take_cheap(self) -> None:
        self.take(only_cheap=True)

    def end(self) -> None:
        """Read everything a last time: the window ends, and nothing is read after that."""
        with self._turn():
            self.take()
            self._has_ended = True

    def close(self) -> None:
        """End the window, if it has not ended, and the thread."""
        self.end()
        if self._ticker is not None:
            self._ticker.stop()

    def forget(self) -> None:
        """In a forked child: wait for no lock that a thread of the parent held, and read nothing any more."""
        self._lock = threading.RLock()
        self._has_ended = True

    def energies(self) -> Energies:
        """Energy of each component up to now, read now."""
        sums: dict[str, float | None] = {}
        with self._turn():
            self.take()
            for meter in self._meters:
                component, so_far_j = meter.sensor.component, None if self._is_stuck else meter.so_far_j
                others_j = sums.get(component, 0.0)
                sums[component] = None if so_far_j is None or others_j is None else others_j + so_far_j
        if sums and "total" not in sums:
            sums["total"] = None if None in sums.values() else sum(joules or 0.0 for joules in sums.values())
        return Energies(**sums)

    def readings(self) -> list[SensorReading]:
        """What each sensor said so far, in the order of the sensors."""
        with self._turn():
            return [meter.reading(is_stuck=self._is_stuck) for meter in self._meters]

    def failures(self) -> dict[str, str]:
        """Why energy of a sensor is missing, by its name, for those where some is."""
        with self._turn():
            stuck = "a reading has not ended" if self._is_stuck else None
            return {
                f"{meter.sensor.source} {meter.sensor.instance}": loss
                for meter in self._meters
                if (loss := meter.loss or stuck) is not None
            }

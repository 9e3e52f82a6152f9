"""The energy measurement of one recording: its sensors, its energy window and the clock of its store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, structs

from llm_energy_measure.domain.experiment import ClockEvidence
from llm_energy_measure.domain.metrics import SENSOR_LOCKED, SensorReading, Timestamps
from llm_energy_measure.recorder import metrics
from llm_energy_measure.recorder.clock import Clock, Instant, timestamps
from llm_energy_measure.recorder.device_evidence import EvidenceCollector, can_sample
from llm_energy_measure.recorder.handover import LastReading, last_reading, records_of
from llm_energy_measure.recorder.locks import Locks
from llm_energy_measure.recorder.sampler import Sampler, sample_for
from llm_energy_measure.recorder.sources import OpenSources, Sensor
from llm_energy_measure.recorder.store_clock import StoreClock, StoreTime

# The longest wait at the end of the block for another thread that takes over sensors.
_PATIENCE_SEC = 1.0

# The longest wait for the state of the devices after a signal. Some schedulers kill a process 200 ms after the signal.
_URGENT_SEC = 0.05

_NO_SAMPLES = "this checkpoint has no samples: they are stored at the end of the block"


class Measurement:
    """Reads the sensors of one process over its energy window.

    Args:
        opened: The open sources.
        locks: The locks of this process. Sensors that another process has locked are not read.
        store_clock: The clock of the store.
        clock: The clocks of this machine.
        interval_sec: Time between two readings, in seconds; None to read only at the start and the end.
        idle_sec: How long to measure idle power before the window, in seconds; 0 measures no idle power.
        wants_samples: Whether to record samples of the devices over time.

    Attributes:
        sampler: Reads the sensors.
        evidence: Reads the state of the devices at the start and the end, and samples the devices.
        start: Start of the window; set by `begin`.
    """

    def __init__(
        self,
        opened: OpenSources,
        locks: Locks,
        store_clock: StoreClock,
        clock: Clock,
        *,
        interval_sec: float | None,
        idle_sec: float,
        wants_samples: bool = False,
    ) -> None:
        self._opened = opened
        self._locks = locks
        self._boot_id = locks.owner.boot_id
        self._store_clock = store_clock
        self._clock = clock
        self._interval_sec = interval_sec
        self._own, self._others = locks.acquire_sensors(opened.sensors)
        self._store_start = store_clock.read(clock)
        self._idle_power_w = self._measure_idle(idle_sec) if idle_sec else None
        self._idle_end_w: float | UnsetType | None = UNSET
        self.sampler = Sampler(self._own, clock, interval_sec=interval_sec)
        self.evidence = EvidenceCollector(self._own, clock, interval_sec=interval_sec, wants_samples=wants_samples)
        if wants_samples and not any(map(can_sample, opened.sensors)):
            opened.notes.append("no samples are recorded: no sensor of a device or host can be sampled here")
        self.start: Instant
        self._taking_over = threading.Lock()
        self._taken: list[Sensor] = []
        self._since: dict[str, tuple[datetime, float]] = {}  # start of the own window (wall, monotonic) by label

    def _measure_idle(self, seconds: float, is_stopped: Callable[[], bool] = lambda: False) -> float | None:
        """Return the mean power over this time, in watts; None if unknown or at most half of this time was measured."""
        sampler, took_sec = sample_for(
            seconds, self._own, self._clock, interval_sec=self._interval_sec, is_stopped=is_stopped
        )
        energy_j = None if sampler.failures() else sampler.energies().total
        return energy_j / took_sec if energy_j is not None and took_sec > seconds / 2 else None

    def measure_idle_end(self, seconds: float, is_stopped: Callable[[], bool]) -> None:
        """Measure idle power after the window, for this time or until `is_stopped`."""
        self._idle_end_w = self._measure_idle(seconds, is_stopped)

    def begin(self) -> None:
        """Begin the energy window. The start time is taken directly after the first reading."""
        self.evidence.before()
        self.sampler.begin()
        self.start = Instant.now(self._clock)
        self.sampler.start_thread()
        self.evidence.begin(self.start.monotonic)

    def end(self, *, is_urgent: bool) -> Instant:
        """End the energy window, and return its end: the instant directly after the last reading.

        Args:
            is_urgent: Whether the process may be killed soon. This method then does not wait for slow devices.
        """
        self.sampler.end()
        end = Instant.now(self._clock)
        self.evidence.after(_URGENT_SEC) if is_urgent else self.evidence.after()
        return end

    def close(self) -> None:
        """Stop the threads."""
        self.evidence.close()
        self.sampler.close()

    @property
    def reads_sensors(self) -> bool:
        """True if this process reads a sensor."""
        return bool(self._own or self._taken)

    @property
    def is_waiting(self) -> bool:
        """True if another process reads a sensor that this process can take over."""
        return self._locks.is_waiting

    def take_over(self) -> None:
        """Read the shared sensors of an ended process. The energy counts from the last reading of the ended process."""
        if not self._taking_over.acquire(timeout=_PATIENCE_SEC):
            return  # another thread waits here for the store or for a sensor
        try:
            for sensors, readers in self._locks.take_over():
                records = records_of(self._locks.store, self._locks.folder, readers)
                for sensor in sensors:
                    self._add(sensor, last_reading(records, sensor, self._boot_id))
        finally:
            self._taking_over.release()

    def _add(self, sensor: Sensor, last: LastReading | None) -> None:
        now = Instant.now(self._clock)
        if self.sampler.add(sensor, None if last is None else (last.monotonic, last.counter_j)) and last is not None:
            # Start at the wall time in the record of the previous reader. If a wall clock was set, a time computed from
            # the monotonic clock can be inside the window of that record.
            since = last.end, last.monotonic
        else:
            since = self.start.wall_at(now.monotonic), now.monotonic
        self._since[sensor.label] = since
        self._others = [other for other in self._others if other is not sensor]
        self._taken.append(sensor)
        self.evidence.add(sensor)

    def energy_so_far_j(self) -> float | None:
        """Read the sensors, and return the energy since the start of the window, in joules; None if it is unknown."""
        self.sampler.take()
        return metrics.total_energy_j(self.sampler.readings())

    def record_fields(self, end: Instant, tokens: int | None, *, is_final: bool) -> dict[str, Any]:
        """Return the fields of the raw record that describe energy, time and GPU.

        Args:
            end: End of the window, or the present instant.
            tokens: Tokens of the process; None if none were counted.
            is_final: Whether the window has ended. A checkpoint does not read the clock of the store, because the
                reading creates a file, which would add work to the measured block.
        """
        store_end = self._store_clock.read(self._clock) if is_final else None
        window = timestamps(self.start, end)
        readings = self._readings(window, end)
        sensors = [*self._own, *self._taken, *self._others]
        described = {sensor.instance: self.evidence.describe(sensor, is_final=is_final) for sensor in sensors}
        devices = {name: device for name, device in described.items() if device is not None}
        notes = [*self._opened.notes, *([_NO_SAMPLES] if self.evidence.has_samples and not is_final else [])]
        return {
            **metrics.gpu_fields(list(devices.values())),
            "energy_measurement_warning": metrics.energy_warning(
                readings, self._opened.errors, self.sampler.failures(), notes
            ),
            "timestamps": window,
            "energy_metrics": metrics.energy_metrics(
                readings,
                devices,
                window,
                tokens=tokens,
                idle_power_w=self._idle_power_w,
                idle_power_end_w=self._idle_end_w,
            ),
            "clock": self._clock_evidence(end, store_end),
        }

    def _clock_evidence(self, end: Instant, store_end: StoreTime | None) -> ClockEvidence:
        """Return the readings of all clocks at the start and the end of the window.

        The clock of the store is read shortly before the start and shortly after the end.
        """
        before = self._store_start
        return ClockEvidence(
            boot_id=self._boot_id,
            wall_start_sec=self.start.wall,
            monotonic_start_sec=self.start.monotonic,
            wall_end_sec=end.wall,
            monotonic_end_sec=end.monotonic,
            store_id=self._store_clock.store_id,
            store_start_sec=None if before is None else before.at(self.start.monotonic),
            store_end_sec=None if store_end is None else store_end.at(end.monotonic),
            store_error_sec=max((time.error_sec for time in (before, store_end) if time is not None), default=None),
        )

    def _readings(self, window: Timestamps, end: Instant) -> list[SensorReading] | None:
        """Return the reading of each sensor; empty if the user selected no source, None if no source works."""
        if not self._opened.sensors:
            return None if self._opened.sources else []
        own = [self._with_window(reading, window, end) for reading in self.sampler.readings()]
        return [*own, *(sensor.reading(problems=[SENSOR_LOCKED]) for sensor in self._others)]

    def _with_window(self, reading: SensorReading, window: Timestamps, end: Instant) -> SensorReading:
        """Return the reading with its own time span, if this process took the sensor over."""
        since = self._since.get(f"{reading.source} {reading.instance}")
        if since is None or window.end is None:
            return reading
        start = min(since[0], window.end)
        span = Timestamps(start=start, end=window.end, duration_sec=max(0.0, end.monotonic - since[1]))
        return structs.replace(reading, window=span)

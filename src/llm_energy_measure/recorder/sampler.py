"""Read the sensors at the start and the end of the energy window, at an interval, and when a value is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from llm_energy_measure.domain.metrics import SensorReading
from llm_energy_measure.recorder.accumulator import EnergyAccumulator
from llm_energy_measure.recorder.bounded import call_within
from llm_energy_measure.recorder.clock import Clock
from llm_energy_measure.recorder.periodic_thread import PeriodicThread
from llm_energy_measure.recorder.sources import Sensor

# More than this many intervals between two power readings are a gap. A pause of less than a second is never a gap,
# because the operating system may delay threads.
_GAP_INTERVALS = 5
_MIN_GAP_SEC = 1.0

# Power is read this many times as often as a counter, because a step of the power between two readings makes the energy
# inexact. The thread still uses at most 1 % of a core.
_POWER_FACTOR = 5

# The longest wait for a sensor that hangs. Schedulers kill a process about 30 s after SIGTERM.
_PATIENCE_SEC = 5.0

# `sample_for` notices a signal after at most this time. A remaining time below `_MIN_WAIT_SEC` counts as 0.
_WAIT_SEC = 0.2
_MIN_WAIT_SEC = 1e-6

# The longest wait for a sensor that has hung before.
_RETRY_SEC = 0.1


class ComponentEnergies(Struct, frozen=True, kw_only=True):
    """Energy of each component up to an instant, in joules; None if no sensor measures it or a sensor fails."""

    gpu: float | None = None
    cpu: float | None = None
    ram: float | None = None
    total: float | None = None


class Sampler:
    """Reads a set of sensors over one energy window.

    A sensor that hangs blocks only the thread that reads it. Other threads wait `patience_sec` for this reading and
    then continue with the earlier readings. All sensors count as lost until the reading has ended.

    Args:
        sensors: The sensors to read.
        clock: The clock of the readings.
        interval_sec: Time between two readings of the thread, in seconds; None for no thread.
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
        self._gap_sec = max(_MIN_GAP_SEC, _GAP_INTERVALS * (interval_sec or 0.0))
        self._own = [EnergyAccumulator(sensor, gap_sec=self._gap_sec) for sensor in sensors]
        self._accumulators = self._own.copy()
        self._clock = clock
        # Reentrant: a signal handler runs in the main thread, which may be reading.
        self._lock = threading.RLock()
        self._patience_sec = patience_sec
        self._is_stuck = False
        self._is_reading = False
        self._owner: int | None = None  # the thread that has the lock
        # The driver of a device can hang. Files, such as those of RAPL, do not hang.
        self._may_hang = any(sensor.scope == "device" for sensor in sensors)
        self._has_ended = False
        self._thread: PeriodicThread | None = None
        if interval_sec:
            has_power = any(sensor.quantity == "power" for sensor in sensors)
            self._factor = _POWER_FACTOR if has_power else 1
            self._calls = 0
            self._thread = PeriodicThread("sampler", interval_sec / self._factor, self._take_cheap)

    def start_thread(self) -> None:
        """Start the thread that reads the cheap sensors at the interval."""
        if self._thread is not None and self._own:
            self._thread.start()

    def _take_cheap(self) -> None:
        """Read the power sensors. After each interval, also read the counters."""
        self._calls += 1
        self.take(only_cheap=True, only_power=self._calls % self._factor != 0)

    def begin(self) -> None:
        """Begin the window with the first reading. A sensor that hangs delays this call for a limited time."""
        self._take_within()

    def _take_within(self) -> None:
        """Read the sensors. If a driver may hang, another thread reads, and the caller waits at most `patience_sec`."""
        if not self._may_hang or self._owner == threading.get_ident():
            self.take()
            return

        def take() -> bool:
            self.take()
            return True

        if call_within(_RETRY_SEC if self._is_stuck else self._patience_sec, take) is None:
            self._is_stuck = True

    def add(self, sensor: Sensor, last: tuple[float, float] | None) -> bool:
        """Read one more sensor from now on. `energies` excludes it, because it covers only a part of the window.

        Args:
            sensor: A sensor that another process has read so far.
            last: Instant (s) and value (J) of its last reading by that process; None if unknown.

        Returns:
            Whether the energy counts from `last` on.
        """
        accumulator = EnergyAccumulator(sensor, gap_sec=self._gap_sec)
        with self._exclusive():
            if self._has_ended:
                return False
            now, value = self._clock.monotonic(), accumulator.read()
            is_continued = last is not None and _is_plausible(sensor, last, now, value)
            if last is not None and is_continued:
                accumulator.add(*last)
            accumulator.add(now, value)
            self._accumulators = [*self._accumulators, accumulator]
        if self._thread is not None and not self._thread.is_alive():
            self._thread.start()
        return is_continued

    def take(self, *, only_cheap: bool = False, only_power: bool = False) -> None:
        """Read the sensors now, unless the window has ended. The first call begins the window."""
        with self._exclusive() as is_free:
            if self._has_ended or not is_free:
                return
            if self._is_reading:
                # A signal handler interrupted a reading of the same thread.
                self._is_stuck = True
                return
            self._is_reading = True
            try:
                self._read(only_cheap=only_cheap, only_power=only_power)
            finally:
                self._is_reading = False

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Wait until no other thread reads. Yield False if the wait takes too long. Later calls then do not wait."""
        is_free = self._lock.acquire(timeout=0 if self._is_stuck else self._patience_sec)
        before = self._owner
        if is_free:
            self._owner = threading.get_ident()
        try:
            self._is_stuck = self._is_stuck or not is_free
            yield is_free
        finally:
            if is_free:
                self._owner = before
                self._lock.release()

    def _read(self, *, only_cheap: bool, only_power: bool) -> None:
        for accumulator in self._accumulators:
            sensor = accumulator.sensor
            if (sensor.is_cheap or not only_cheap) and (sensor.quantity == "power" or not only_power):
                now = self._clock.monotonic()
                value = accumulator.read()
                if self._has_ended:
                    return  # the window ended during this reading
                accumulator.add(now, value)
        self._is_stuck = False

    def end(self) -> None:
        """Read all sensors a last time and end the window. Later calls read nothing."""
        if not self._has_ended:
            self._take_within()
        with self._exclusive():
            self._has_ended = True

    def close(self) -> None:
        """End the window and stop the thread."""
        self.end()
        if self._thread is not None:
            self._thread.stop()

    def disable_in_child(self) -> None:
        """Stop reading in a forked child. Replace the lock, because a thread of the parent may hold the old one."""
        self._lock = threading.RLock()
        self._has_ended = True

    def energies(self) -> ComponentEnergies:
        """Read all sensors and return the energy of each component up to now."""
        sums: dict[str, float | None] = {}
        if not self._has_ended:
            self._take_within()
        with self._exclusive():
            for accumulator in self._own:
                component, joules = accumulator.sensor.component, None if self._is_stuck else accumulator.current_j
                others_j = sums.get(component, 0.0)
                sums[component] = None if joules is None or others_j is None else others_j + joules
        if sums and "total" not in sums:
            sums["total"] = None if None in sums.values() else sum(joules or 0.0 for joules in sums.values())
        return ComponentEnergies(**sums)

    def readings(self) -> list[SensorReading]:
        """Return the record of each sensor, in the order of the sensors."""
        with self._exclusive():
            return [accumulator.reading(is_stuck=self._is_stuck) for accumulator in self._accumulators]

    def failures(self) -> dict[str, str]:
        """Return the reason why energy is missing, by label of the sensor."""
        with self._exclusive():
            stuck = "a reading has not ended" if self._is_stuck else None
            return {
                accumulator.sensor.label: loss
                for accumulator in self._accumulators
                if (loss := accumulator.loss or stuck) is not None
            }


def _is_plausible(sensor: Sensor, last: tuple[float, float], now: float, value: float | str) -> bool:
    """Return True if the counter can have gone from the last reading to `value`.

    False for a power sensor and for a failed reading. Also False if a counter that does not wrap has decreased, or if
    the increase needs more power than `max_power_w`.
    """
    if isinstance(value, str) or sensor.quantity != "energy":
        return False
    counted_j = value - last[1] + ((sensor.range_j or 0.0) if value < last[1] else 0.0)
    return 0 <= counted_j <= sensor.max_power_w * (now - last[0] + 1.0)


def sample_for(
    seconds: float,
    sensors: Sequence[Sensor],
    clock: Clock,
    *,
    interval_sec: float | None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[Sampler, float]:
    """Measure for this time or until `is_stopped`, and return the closed sampler and the length of its window (s)."""
    sampler = Sampler(sensors, clock, interval_sec=interval_sec)
    sampler.take()
    start = clock.monotonic()
    sampler.start_thread()
    while (left_sec := start + seconds - clock.monotonic()) > _MIN_WAIT_SEC and not is_stopped():
        clock.sleep(min(left_sec, _WAIT_SEC))
    sampler.end()
    took_sec = clock.monotonic() - start
    sampler.close()
    return sampler, took_sec

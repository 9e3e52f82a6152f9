"""State of the devices at the start and the end of a run, and samples over time in bounded memory."""

from __future__ import annotations

import math
import threading
from array import array
from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET, structs

from llm_energy_measure.domain.device_state import (
    GPU_IDLE,
    SEPARATOR,
    DeviceEvidence,
    DeviceSample,
    DeviceState,
    DeviceSummary,
)
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.recorder.bounded import call_within
from llm_energy_measure.recorder.clock import Clock
from llm_energy_measure.recorder.periodic_thread import PeriodicThread
from llm_energy_measure.recorder.sources import Sensor

MAX_SAMPLES = 36_000
"""Largest number of samples of one device: one hour at 10 Hz. Then pairs of samples are merged."""

_PATIENCE_SEC = 2.0


class DeviceSamples:
    """Samples of one sensor. If there are `most` samples, the mean of each pair of neighbours replaces the pair.

    Args:
        sensor: The sensor. If its `sample` is None, the power is computed from its readings.
        most: Largest number of samples, an even number.
    """

    def __init__(self, sensor: Sensor, most: int = MAX_SAMPLES) -> None:
        self.sensor = sensor
        self._most = most
        self._step = 1  # readings per sample
        self._skipped = 0
        self._last: tuple[float, float] | None = None  # last reading of a counter: instant (s) and value (J)
        self._columns = [array("d") for _ in range(4)]  # time, power, temperature, clock
        self._throttles: list[str | None] = []

    def take(self, clock: Clock) -> None:
        """Read the sensor and add a sample. A failed reading adds no sample."""
        try:
            sample = self.sensor.sample() if self.sensor.sample is not None else self._from_reading(clock)
        except Exception:  # noqa: BLE001 - third-party code; the energy reading of the sensor records failures
            return
        now = clock.monotonic()
        times = self._columns[0]
        if sample is None or not 0 <= sample.power_w < math.inf or (times and now <= times[-1]):
            return
        self._skipped += 1
        if self._skipped < self._step:
            return
        self._skipped = 0
        values = now, sample.power_w, sample.temperature_c, sample.clock_mhz
        for column, value in zip(self._columns, values, strict=True):
            column.append(math.nan if value is None else float(value))
        self._throttles.append(sample.throttle)
        if len(times) >= self._most:
            self._merge_pairs()

    def _from_reading(self, clock: Clock) -> DeviceSample | None:
        value, now = float(self.sensor.read()), clock.monotonic()
        if self.sensor.quantity == "power":
            return DeviceSample(value)
        before, self._last = self._last, (now, value)
        if before is None or now <= before[0] or value < before[1]:  # the first reading, a wrap or a reset
            return None
        return DeviceSample((value - before[1]) / (now - before[0]))

    def _merge_pairs(self) -> None:
        self._step *= 2
        self._columns = [
            array("d", (_mean(column[place : place + 2]) for place in range(0, len(column), 2)))
            for column in self._columns
        ]
        texts = self._throttles
        self._throttles = [_union(texts[place : place + 2]) for place in range(0, len(texts), 2)]

    def trace(self, start: float) -> PowerTrace | None:
        """Return the samples so far, with times in seconds after the instant `start`; None if there are no samples."""
        times, powers, temperatures, clocks = self._columns
        if not times:
            return None
        known = [text for text in self._throttles if text is not None]
        return PowerTrace(
            device=self.sensor.board or self.sensor.instance,
            times=array("d", (round(moment - start, 6) for moment in times)),
            powers=array("d", (round(power_w, 3) for power_w in powers)),
            temperatures=None if all(map(math.isnan, temperatures)) else temperatures,
            clocks=None if all(map(math.isnan, clocks)) else clocks,
            throttles=[text or "" for text in self._throttles] if known else None,
        )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _union(texts: Sequence[str | None]) -> str | None:
    """Return the throttle reasons of several samples; None if all are unknown."""
    known = [text for text in texts if text is not None]
    return SEPARATOR.join(dict.fromkeys(SEPARATOR.join(known).split())) if known else None


def summary_of(trace: PowerTrace) -> DeviceSummary:
    """Return the summary of the samples of a device."""
    count = len(trace.times)
    temperatures = [value for value in trace.temperatures or () if not math.isnan(value)]
    clocks = [value for value in trace.clocks or () if not math.isnan(value)]
    reasons = [set(text.split()) for text in trace.throttles] if trace.throttles is not None else None
    # First and last values are means under load, because an idle device lowers its clock.
    busy = [place for place in range(count) if reasons is None or GPU_IDLE not in reasons[place]]
    quarter = max(1, len(busy) // 4)
    first, last = busy[:quarter], busy[-quarter:]
    throttled = None
    if reasons is not None:
        counts = Counter(reason for one in reasons for reason in one)
        throttled = {reason: number / count for reason, number in sorted(counts.items())}
    return DeviceSummary(
        samples=count,
        interval_sec=(trace.times[-1] - trace.times[0]) / (count - 1) if count > 1 else None,
        power_min_w=min(trace.powers),
        power_max_w=max(trace.powers),
        temperature_max_c=max(temperatures, default=None),
        clock_min_mhz=min(clocks, default=None),
        clock_max_mhz=max(clocks, default=None),
        clock_first_mhz=_mean_at(trace.clocks, first),
        clock_last_mhz=_mean_at(trace.clocks, last),
        temperature_first_c=_mean_at(trace.temperatures, first),
        temperature_last_c=_mean_at(trace.temperatures, last),
        throttled=throttled,
    )


def _mean_at(values: Sequence[float] | None, places: Sequence[int]) -> float | None:
    found = math.nan if values is None else _mean([values[place] for place in places])
    return None if math.isnan(found) else round(found, 3)


def can_sample(sensor: Sensor) -> bool:
    """Return True if a sensor can be sampled over time."""
    return sensor.is_cheap and sensor.scope != "process"


class EvidenceCollector:
    """Collects the states and the samples of the devices of one process.

    A device that hangs delays `before` and `after` by at most 5 s each.

    Args:
        sensors: The sensors that this process reads.
        clock: The clock of the samples.
        interval_sec: Time between two samples, in seconds; None to sample only at the start and the end.
        wants_samples: Whether to record samples.
    """

    def __init__(
        self, sensors: Sequence[Sensor], clock: Clock, *, interval_sec: float | None, wants_samples: bool
    ) -> None:
        self._clock = clock
        self._wants_samples = wants_samples
        self._sensors: list[Sensor] = []
        self._samples: list[DeviceSamples] = []
        self._keep(sensors)
        self._start = 0.0
        self._states: list[dict[str, DeviceState]] = [{}, {}]
        self._lock = threading.Lock()
        self._has_ended = False
        self._thread = PeriodicThread("samples", interval_sec, self._take) if interval_sec and wants_samples else None

    def _keep(self, sensors: Sequence[Sensor]) -> None:
        """Add sensors. New lists replace the old lists, because other threads iterate over the old lists."""
        self._sensors = [*self._sensors, *(sensor for sensor in sensors if sensor.state is not None)]
        if self._wants_samples:
            self._samples = [*self._samples, *map(DeviceSamples, filter(can_sample, sensors))]

    @property
    def has_samples(self) -> bool:
        """True if at least one sensor is sampled."""
        return bool(self._samples)

    def add(self, sensor: Sensor) -> None:
        """Also collect the state and the samples of a sensor that this process takes over from another process."""
        if self._has_ended:
            return
        self._keep([sensor])
        self._start_thread()

    def before(self) -> None:
        """Read the states and take the first samples, before the energy window begins."""
        self._states[0] = self._read_states(_PATIENCE_SEC)
        if self._samples:
            call_within(_PATIENCE_SEC, self._take)

    def begin(self, start: float) -> None:
        """Take samples from now on. `start` is the start of the window on the monotonic clock, in seconds."""
        self._start = start
        self._start_thread()

    def _start_thread(self) -> None:
        if self._thread is not None and self._samples and not self._thread.is_alive():
            self._thread.start()

    def after(self, patience_sec: float = _PATIENCE_SEC) -> None:
        """Take the last samples and read the states, after the energy window has ended.

        Args:
            patience_sec: The longest wait for the samples, and also for the states, in seconds.
        """
        if self._has_ended:
            return
        if self._thread is not None:
            self._thread.stop()
        if self._samples:
            call_within(patience_sec, self._take)
        self._has_ended = True
        self._states[1] = self._read_states(patience_sec)

    def close(self) -> None:
        """Stop the thread."""
        self._has_ended = True
        if self._thread is not None:
            self._thread.stop()

    def _read_states(self, patience_sec: float) -> dict[str, DeviceState]:
        found: dict[str, DeviceState] = {}

        def read() -> None:
            for sensor in self._sensors:
                if sensor.state is not None:
                    found[sensor.label] = sensor.state()

        if self._sensors:
            call_within(patience_sec, read)
        return dict(found)

    def _take(self) -> None:
        # A reading that hangs holds the lock. Other threads then take no samples instead of waiting.
        if not self._lock.acquire(blocking=False):
            return
        try:
            for samples in self._samples:
                if not self._has_ended:
                    samples.take(self._clock)
        finally:
            self._lock.release()

    def describe(self, sensor: Sensor, *, is_final: bool) -> DeviceEnergy | None:
        """Return the device of a sensor with its states and its samples; None if the sensor belongs to no device.

        Args:
            sensor: The sensor.
            is_final: Whether the window has ended. A checkpoint has no summary of the samples, to save time.
        """
        if sensor.device is None:
            return None
        start, end = (states.get(sensor.label) for states in self._states)
        own = (one.trace(self._start) for one in self._samples if one.sensor is sensor and is_final)
        trace = next(own, None)
        if start is None and end is None and trace is None:
            return sensor.device
        samples = UNSET if trace is None else summary_of(trace)
        return structs.replace(sensor.device, evidence=DeviceEvidence(start=start, end=end, samples=samples))

    def traces(self) -> list[PowerTrace]:
        """Return the samples of each device."""
        return [trace for samples in self._samples if (trace := samples.trace(self._start)) is not None]

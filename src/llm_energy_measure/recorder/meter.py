"""The energy that one sensor saw, reading by reading: wraps, resets, gaps and losses are told, and raise nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_energy_measure.domain.metrics import COUNTER_RESET, SAMPLING_GAP, SENSOR_LOCKED, SENSOR_LOST, SensorReading

if TYPE_CHECKING:
    from llm_energy_measure.recorder.sources import Sensor


class Meter:
    """Adds up what a sensor reads.

    A counter that went backwards has wrapped, where its range is known and the joules that this implies could have been
    drawn; else it was reset, and counts from 0 again: what it counted between the last reading and the reset is lost
    (the rule of Prometheus' `increase()`). Power is integrated by the trapezoidal rule, also over a gap.

    Args:
        sensor: What is read.
        gap_sec: Time between two readings of power from which on the figure between them is called a guess.
    """

    def __init__(self, sensor: Sensor, *, gap_sec: float) -> None:
        """Remember the sensor; nothing is read."""
        self.sensor = sensor
        self.failure: str | None = None
        self._gap_sec = gap_sec
        self._late: str | None = None  # why its first reading failed: what it saw until then is missing
        self._problems: dict[str, None] = {}
        self._samples = 0
        self._first: tuple[float, float] | None = None  # instant, reading
        self._last: tuple[float, float] | None = None
        self._base = 0.0  # reading from which the counter counts on
        self._before_base = 0.0  # joules counted before that; for power, all of them
        self._wraps = 0

    @property
    def energy_j(self) -> float | None:
        """Energy from the first reading that succeeded to the last, in joules; None without two of them."""
        return self._counted_j if self._samples > 1 else None

    @property
    def so_far_j(self) -> float | None:
        """Energy from the first reading that succeeded to now, in joules; None if that is unknown, or may come back."""
        return self._counted_j if self._samples and self.failure is None else None

    @property
    def _counted_j(self) -> float:
        if self._last is None or self.sensor.quantity == "power":
            return self._before_base
        return self._before_base + (self._last[1] - self._base)

    def take(self, now: float) -> None:
        """Read the sensor, and add what it saw since the last reading.

        Args:
            now: The instant, on a monotonic clock, in seconds.
        """
        self.add(now, self.ask())

    def ask(self) -> float | str:
        """What the sensor reads, or why that failed. Nothing is added up."""
        try:
            value = float(self.sensor.read())
        except Exception as error:  # noqa: BLE001 - anybody's sensor: whatever it raises is a finding, not a crash
            return f"{type(error).__name__}: {error}"
        return value if 0 <= value < math.inf else f"it read {value!r}"

    def add(self, now: float, value: float | str) -> None:
        """Add what the sensor saw since the last reading.

        Args:
            now: The instant, on a monotonic clock, in seconds.
            value: What it read, or why that failed.
        """
        if isinstance(value, str):
            self.failure = value
            if self._last is None:
                self._late = f"at first: {value}"
            return
        self.failure = None
        self._samples += 1
        if self._last is None:
            self._first = (now, value)
            self._base = value if self.sensor.quantity == "energy" else 0.0
        elif self.sensor.quantity == "power":
            self._integrate(now, value, *self._last)
        else:
            self._count(now, value, *self._last)
        self._last = (now, value)

    def _integrate(self, now: float, watts: float, last: float, last_watts: float) -> None:
        self._before_base += (watts + last_watts) / 2 * (now - last)
        if now - last > self._gap_sec:
            self._problems[SAMPLING_GAP] = None

    def _count(self, now: float, joules: float, last: float, last_joules: float) -> None:
        range_j = self.sensor.range_j
        could_draw_j = self.sensor.most_power_w * (now - last)
        if range_j is not None and could_draw_j > range_j:
            self._problems[SAMPLING_GAP] = None  # it may have wrapped more often than can be seen
        if joules >= last_joules:
            return
        if range_j is not None and joules - last_joules + range_j <= could_draw_j:
            self._wraps += 1
            self._before_base += range_j
        else:
            self._problems[COUNTER_RESET] = None
            self._before_base += last_joules - self._base
            self._base = 0.0

    @property
    def loss(self) -> str | None:
        """Why energy at the start or at the end is missing; None if none is."""
        return self.failure or self._late

    def reading(self, *, is_stuck: bool = False) -> SensorReading:
        """What the sensor said so far, for the record.

        Args:
            is_stuck: Whether it is being read since long ago, without an end.
        """
        sensor, is_counter = self.sensor, self.sensor.quantity == "energy"
        span = self._last[0] - self._first[0] if self._first and self._last else 0.0
        lost = [SENSOR_LOST] if is_stuck or self.loss is not None else []
        return SensorReading(
            source=sensor.source,
            instance=sensor.instance,
            component=sensor.component,
            scope=sensor.scope,
            provenance=sensor.provenance,
            energy_j=self.energy_j,
            counter_start_j=self._first[1] if self._first and is_counter else None,
            counter_end_j=self._last[1] if self._last and is_counter else None,
            counter_range_j=sensor.range_j,
            wraps=self._wraps if sensor.range_j is not None else None,
            samples=self._samples,
            sampling_rate_hz=(self._samples - 1) / span if span > 0 else None,
            problems=[*self._problems, *lost],
        )


def claimed_reading(sensor: Sensor) -> SensorReading:
    """The reading of a sensor that another process reads: no energy, and why."""
    return SensorReading(
        source=sensor.source,
        instance=sensor.instance,
        component=sensor.component,
        scope=sensor.scope,
        provenance=sensor.provenance,
        problems=[SENSOR_LOCKED],
    )

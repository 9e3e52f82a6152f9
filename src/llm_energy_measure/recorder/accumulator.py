"""Compute the energy of one sensor. Detect counter wraps, counter resets, sampling gaps and failed readings."""

from __future__ import annotations

import math

from msgspec import UNSET

from llm_energy_measure.domain.metrics import COUNTER_RESET, SAMPLING_GAP, SENSOR_LOST, SensorReading
from llm_energy_measure.recorder.sources import Sensor


class EnergyAccumulator:
    """Adds up the energy of one sensor. A failed reading raises no error; the record contains the problem.

    If the value of a counter decreases, the counter wrapped or was reset. A decrease is a wrap if the range of the
    counter is known and the mean power with a wrap is at most `max_power_w`. Any other decrease is a reset to 0. The
    energy between the last reading and a reset is lost (the rule of Prometheus' `increase()`). Power readings are
    integrated by the trapezoidal rule, also over a sampling gap.

    Args:
        sensor: The sensor to read.
        gap_sec: Longest time between two power readings, in seconds. A longer time is the problem `sampling_gap`.

    Attributes:
        failure: Why the last reading failed; None if it succeeded.
    """

    def __init__(self, sensor: Sensor, *, gap_sec: float) -> None:
        self.sensor = sensor
        self.failure: str | None = None
        self._gap_sec = gap_sec
        self._first_failure: str | None = None  # the last failure before the first successful reading
        self._problems: dict[str, None] = {}
        self._samples = 0
        self._first: tuple[float, float] | None = None  # instant (s) and value
        self._last: tuple[float, float] | None = None
        self._base = 0.0  # counter value at the first reading; 0 after a reset
        self._before_base = 0.0  # joules of wraps, and joules before the last reset; for a power sensor, all joules
        self._wraps = 0
        self._uncertainty_j = 0.0

    @property
    def energy_j(self) -> float | None:
        """Energy from the first successful reading to the last, in joules; None with fewer than two readings."""
        return self._counted_j if self._samples > 1 else None

    @property
    def current_j(self) -> float | None:
        """Energy from the first successful reading to the last, in joules; None if the last reading failed."""
        return self._counted_j if self._samples and self.failure is None else None

    @property
    def _counted_j(self) -> float:
        if self._last is None or self.sensor.quantity == "power":
            return self._before_base
        return self._before_base + (self._last[1] - self._base)

    def read(self) -> float | str:
        """Return the value of the sensor, or the reason why the reading failed. Call `add` to count its energy."""
        try:
            value = float(self.sensor.read())
        except Exception as error:  # noqa: BLE001 - third-party code: a failing sensor must not end the run
            return f"{type(error).__name__}: {error}"
        return value if 0 <= value < math.inf else f"the sensor returned {value!r}"

    def add(self, now: float, value: float | str) -> None:
        """Add the energy since the last reading.

        Args:
            now: Instant of the reading on a monotonic clock, in seconds.
            value: Result of `read`: a value in joules or watts, or the reason of a failure.
        """
        if isinstance(value, str):
            self.failure = value
            if self._last is None:
                self._first_failure = f"at the start: {value}"
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
        # The power may have changed directly after the last reading or directly before this reading.
        self._uncertainty_j += abs(watts - last_watts) / 2 * (now - last)
        if now - last > self._gap_sec:
            self._problems[SAMPLING_GAP] = None

    def _count(self, now: float, joules: float, last: float, last_joules: float) -> None:
        range_j = self.sensor.range_j
        max_drawn_j = self.sensor.max_power_w * (now - last)
        if range_j is not None and max_drawn_j > range_j:
            self._problems[SAMPLING_GAP] = None  # the counter may have wrapped more than once
        if joules >= last_joules:
            return
        if range_j is not None and joules - last_joules + range_j <= max_drawn_j:
            self._wraps += 1
            self._before_base += range_j
        else:
            self._problems[COUNTER_RESET] = None
            self._before_base += last_joules - self._base
            self._base = 0.0

    @property
    def loss(self) -> str | None:
        """Reason why energy at the start or at the end is missing; None if the first and the last reading succeeded."""
        return self.failure or self._first_failure

    def reading(self, *, is_stuck: bool = False) -> SensorReading:
        """Return the record of the readings so far.

        Args:
            is_stuck: Whether a reading of the sensor hangs.
        """
        sensor, is_counter = self.sensor, self.sensor.quantity == "energy"
        span_sec = self._last[0] - self._first[0] if self._first and self._last else 0.0
        lost = [SENSOR_LOST] if is_stuck or self.loss is not None else []
        return sensor.reading(
            energy_j=self.energy_j,
            counter_start_j=self._first[1] if self._first and is_counter else None,
            counter_end_j=self._last[1] if self._last and is_counter else None,
            counter_range_j=sensor.range_j,
            wraps=self._wraps if sensor.range_j is not None else None,
            samples=self._samples,
            sampling_rate_hz=(self._samples - 1) / span_sec if span_sec > 0 else None,
            problems=[*self._problems, *lost],
            uncertainty_j=UNSET if is_counter else self._uncertainty_j,
        )

"""Sensors and clocks that replay a trace: a reading depends only on the instant."""

from __future__ import annotations

import bisect
import time
from typing import TYPE_CHECKING, Any

from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.clock import SystemClock
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_energy_measure.recorder.clock import Clock
    from llm_energy_measure.recorder.sources import Settings

START_WALL = 1_768_592_398.25


class ManualClock:
    """A clock whose time changes only when a test sleeps or sets `now`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_offset = START_WALL
        self.boot: str | None = "8cb83392-fc0a-40f4-b649-77d192ce3fb3"

    def wall(self) -> float:
        return self.wall_offset + self.now

    def monotonic(self) -> float:
        return self.now

    def boot_id(self) -> str | None:
        return self.boot

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class OtherMachineClock(SystemClock):
    """The clocks of this machine with another boot id, and with a wall clock that is ahead."""

    def __init__(self, machine: str, ahead_sec: float = 0.0) -> None:
        self.machine = machine
        self.wall = lambda: time.time() + ahead_sec

    def boot_id(self) -> str | None:
        return f"{self.machine}-{super().boot_id()}"


class Trace:
    """A sensor that reads the last point at or before the present instant; None there is a failed reading."""

    def __init__(self, clock: Clock, points: Sequence[tuple[float, float | None]]) -> None:
        self.clock = clock
        self.instants = [instant for instant, _ in points]
        self.values = [value for _, value in points]

    def __call__(self) -> float:
        value = self.values[max(0, bisect.bisect_right(self.instants, self.clock.monotonic()) - 1)]
        if value is None:
            raise OSError(5, "Input/output error")
        return value


def sensor(read: Callable[[], float], **changes: Any) -> Sensor:
    """Return an energy counter of a host's processors; `changes` are other fields of the sensor."""
    fields: dict[str, Any] = {
        "source": "replay",
        "instance": "package-0",
        "component": "cpu",
        "scope": "host",
        "provenance": "measured",
        "read": read,
    }
    return Sensor(**{**fields, **changes})


class ReplaySource:
    """A source of given sensors, or one that cannot be opened."""

    name = "replay"

    def __init__(self, *sensors: Sensor, fails: bool = False) -> None:
        self.sensors = list(sensors)
        self.fails = fails
        self.is_open = False

    def open(self, settings: Settings) -> list[Sensor]:
        assert settings.environ is not None
        if self.fails:
            raise RecorderError("cannot read replay", "there is no trace", "record a trace first")
        self.is_open = True
        return self.sensors

    def close(self) -> None:
        self.is_open = False


def steady_watts(watts: float, clock: Clock | None = None, **changes: Any) -> ReplaySource:
    """Return a source whose counter rises by `watts` joules per second."""
    used = SystemClock() if clock is None else clock
    return ReplaySource(sensor(lambda: used.monotonic() * watts, **changes))

"""Sensors and clocks that replay a trace: what is read depends on nothing but the instant."""

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
    from llm_energy_measure.recorder.sources import Setting

START_WALL = 1_768_592_398.25


class ManualClock:
    """Time passes when somebody sleeps, and only then.

    Args:
        between: Called after each step of at most `step_sec`, as a sampler's thread would be.
        step_sec: Length of a step, in seconds.
    """

    def __init__(self, between: Callable[[], None] | None = None, step_sec: float = 0.1) -> None:
        self.now = 0.0
        self.wall_offset = START_WALL
        self.boot: str | None = "8cb83392-fc0a-40f4-b649-77d192ce3fb3"
        self.between = between
        self.step_sec = step_sec

    def wall(self) -> float:
        return self.wall_offset + self.now

    def monotonic(self) -> float:
        return self.now

    def boot_id(self) -> str | None:
        return self.boot

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + self.step_sec)
            if self.between is not None:
                self.between()


class OtherMachineClock(SystemClock):
    """This machine's clocks, said to be those of a machine of another name, and its wall clock ahead."""

    def __init__(self, machine: str, ahead_sec: float = 0.0) -> None:
        self.machine = machine
        self.wall = lambda: time.time() + ahead_sec

    def boot_id(self) -> str | None:
        return f"{self.machine}-{super().boot_id()}"


class Trace:
    """A recorded reading: the value of the last point at or before an instant; None there means that it failed."""

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
    """A counter of a host's processors, unless told otherwise."""
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
    """A source of given sensors, or one that refuses."""

    name = "replay"

    def __init__(self, *sensors: Sensor, refuses: bool = False) -> None:
        self.sensors = list(sensors)
        self.refuses = refuses
        self.is_open = False

    def open(self, setting: Setting) -> list[Sensor]:
        assert setting.environ is not None
        if self.refuses:
            raise RecorderError("cannot read replay", "there is nothing to replay", "record something first")
        self.is_open = True
        return self.sensors

    def close(self) -> None:
        self.is_open = False


def steady_watts(watts: float, clock: Clock | None = None, **changes: Any) -> ReplaySource:
    """A counter that counts that many joules a second."""
    ticking = SystemClock() if clock is None else clock
    return ReplaySource(sensor(lambda: ticking.monotonic() * watts, **changes))

"""The clocks of this machine, and the timestamps of a record."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from llm_energy_measure.domain.metrics import Timestamps

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """The clocks that a recording reads. Tests replace them."""

    def wall(self) -> float:
        """Return the wall clock, in seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Return a clock that never goes backwards, in seconds since a fixed instant."""

    def sleep(self, seconds: float) -> None:
        """Wait for this number of seconds."""

    def boot_id(self) -> str | None:
        """Return the id of the boot at which the monotonic clock started; None if unknown."""


class SystemClock:
    """The clocks of this machine."""

    # The attributes are functions of the standard library, because each token reads the clock: a method that calls
    # the function takes twice as long.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def boot_id(self) -> str | None:
        """Return the id of this boot, equal in all containers of the machine; None if the system has none."""
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None


class Instant(NamedTuple):
    """Wall clock and monotonic clock, read one directly after the other, in seconds."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls, clock: Clock) -> Instant:
        """Return the present instant."""
        return cls(clock.wall(), clock.monotonic())

    def wall_at(self, monotonic: float) -> datetime:
        """Return the wall-clock time at a monotonic time. Later changes of the wall clock have no effect."""
        return datetime.fromtimestamp(self.wall, UTC) + timedelta(seconds=monotonic - self.monotonic)


def timestamps(start: Instant, end: Instant) -> Timestamps:
    """Return start, end and duration. The end is the wall clock at the start plus the monotonic duration.

    So the end is never before the start, even if the wall clock is set back during the run. The field `clock` of the
    record shows a change of the wall clock.
    """
    duration_sec = end.monotonic - start.monotonic
    begin, finish = start.wall_at(start.monotonic), start.wall_at(end.monotonic)
    return Timestamps(start=begin, end=finish, duration_sec=duration_sec)

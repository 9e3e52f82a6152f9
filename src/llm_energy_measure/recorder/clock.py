"""The clocks that a recording reads, and the boot that the monotonic one counts from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What a recording asks for the time."""

    def wall(self) -> float:
        """Wall clock, in seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """A clock that never goes back, in seconds since some instant."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""

    def boot_id(self) -> str | None:
        """Identity of the boot that the monotonic clock counts from; None if unknown."""


class SystemClock:
    """The clocks of this machine."""

    # The functions themselves, not methods around them: a token's stamp costs half as much so.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def boot_id(self) -> str | None:
        """Identity of this boot of this machine, the same in all its containers; None where the system tells none."""
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

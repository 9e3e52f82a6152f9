"""A thread that calls a function at an interval and limits its own CPU time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

# The pause after a call is at least this multiple of its CPU time, so the thread uses at most 1 % of a core.
_PAUSE_PER_CPU_TIME = 99

_JOIN_TIMEOUT_SEC = 1.0


class PeriodicThread(threading.Thread):
    """Calls a function at an interval. If the calls would use more than 1 % of a core, the pauses become longer.

    Args:
        name: Name of the thread.
        interval_sec: Time between two calls, in seconds, above 0.
        call: The function. It must not raise.
    """

    def __init__(self, name: str, interval_sec: float, call: Callable[[], None]) -> None:
        super().__init__(name=f"llm-energy-measure-{name}", daemon=True)
        self._interval_sec = interval_sec
        self._call = call
        self._stop_event = threading.Event()

    def start(self) -> None:
        """Start the thread. While Python exits, no thread can start, and the function is not called."""
        with contextlib.suppress(RuntimeError):
            super().start()

    def run(self) -> None:
        """Call the function until `stop`. The first call follows after one interval."""
        pause_sec = self._interval_sec
        while not self._stop_event.wait(pause_sec):
            before = time.thread_time()
            self._call()
            pause_sec = max(self._interval_sec, _PAUSE_PER_CPU_TIME * (time.thread_time() - before))

    def stop(self) -> None:
        """Make no further call, and wait at most `_JOIN_TIMEOUT_SEC` for a call in progress."""
        self._stop_event.set()
        if self.is_alive() and self is not threading.current_thread():
            # The wait has a limit because a signal handler may call this: the code that the signal interrupted may
            # hold a lock for which the thread waits.
            self.join(timeout=_JOIN_TIMEOUT_SEC)

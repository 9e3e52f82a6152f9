"""Something done again and again from a thread that leaves the rest of the machine alone."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A call is followed by a pause of that many times the CPU time it took: a thread costs 1 % of a core at most.
_PAUSE_PER_CPU_TIME = 99

_PATIENCE_SEC = 1.0


class Ticker:
    """A thread that calls something at an interval, and less often where that would cost more than 1 % of a core.

    Args:
        name: Name of the thread.
        interval_sec: Time between two calls, in seconds, above 0.
        call: What to do. It must not raise.
    """

    def __init__(self, name: str, interval_sec: float, call: Callable[[], None]) -> None:
        """Prepare the thread."""
        self._interval_sec = interval_sec
        self._call = call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"llm-energy-measure-{name}", daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Make no further call."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            # Not for ever: what the handler of a signal interrupted may hold what the thread waits for.
            self._thread.join(timeout=_PATIENCE_SEC)

    def _run(self) -> None:
        pause_sec = self._interval_sec
        while not self._ended.wait(pause_sec):
            before = time.thread_time()
            self._call()
            pause_sec = max(self._interval_sec, _PAUSE_PER_CPU_TIME * (time.thread_time() - before))

"""SIGTERM while a recording runs: what was measured is saved, then the signal does what it would have done."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_LOG = logging.getLogger(__name__)


class Interruption:
    """Watches for SIGTERM, which schedulers send before they kill.

    A program that has a handler of its own keeps it: it is called after `on_notice`, and decides whether the run goes
    on. Where SIGTERM would end the process, `on_end` runs first. Only the main thread can watch; in any other nothing
    happens.

    Args:
        on_end: Saves everything, because the process is about to end.
        on_notice: Saves what there is, because the process may be about to end.
    """

    def __init__(self, on_end: Callable[[str], None], on_notice: Callable[[], None]) -> None:
        """Remember them; no signal is watched."""
        self.received: str | None = None
        self._on_end = on_end
        self._on_notice = on_notice
        self._before: Any = None
        self._is_watching = False
        self._pid = os.getpid()

    def watch(self) -> None:
        """Watch from now on, unless somebody chose to ignore the signal."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before not in (None, signal.SIG_IGN):
            self._before = before
            self._is_watching = True
            signal.signal(signal.SIGTERM, self._handle)

    def unwatch(self) -> None:
        """Give the signal back to whoever had it, unless somebody else has taken it meanwhile."""
        self._is_watching = False
        if (
            self._before is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == self._handle
        ):
            signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Watch no longer; SIGTERM and Ctrl-C that come while this block runs do their work when it has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        held: dict[int, FrameType | None] = {}
        before: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                before[number] = handler
                signal.signal(number, held.__setitem__)
        try:
            yield
        finally:
            for caught, handler in before.items():
                signal.signal(caught, handler)
            self.unwatch()
            for caught, frame in held.items():
                handler = signal.getsignal(caught)
                if callable(handler):
                    handler(caught, frame)
                else:
                    signal.raise_signal(caught)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A child that was forked inside the block has inherited this handler, and measured nothing. Where recordings
        # overlap, the one that began later gives the signal back to one that has ended.
        is_ours = self._is_watching and os.getpid() == self._pid
        self.unwatch()
        if self._before != signal.SIG_DFL:
            if is_ours:
                self.received = signal.Signals(number).name
                self._on_notice()
            self._before(number, frame)
            return
        try:
            if is_ours:
                self._on_end(signal.Signals(number).name)
        except Exception as refused:  # noqa: BLE001 - the process ends here, whatever it was
            _LOG.error("the result could not be saved before the end: %s", refused)
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

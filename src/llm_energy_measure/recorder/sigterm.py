"""Handle SIGTERM during a recording: save the result first. The signal then has its usual effect."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_LOG = logging.getLogger(__name__)


class SigtermHandler:
    """Handles SIGTERM, which schedulers send before they kill a process.

    If the program has its own handler, that handler still decides whether the run continues: this class calls
    `on_notice` first and then the handler. If SIGTERM would end the process, this class calls `on_end` first. Python
    delivers signals only to the main thread; in other threads this class does nothing.

    Args:
        on_end: Saves the result, because the process ends. It receives the name of the signal.
        on_notice: Saves a checkpoint, because the process may end.

    Attributes:
        received: Name of the signal for which `on_notice` was called; None before a signal.
    """

    def __init__(self, on_end: Callable[[str], None], on_notice: Callable[[], None]) -> None:
        self.received: str | None = None
        self._on_end = on_end
        self._on_notice = on_notice
        self._previous: Any = None
        self._is_active = False
        self._pid = os.getpid()

    def install(self) -> None:
        """Handle the signal from now on, unless the process ignores it."""
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        if previous not in (None, signal.SIG_IGN):
            self._previous = previous
            self._is_active = True
            signal.signal(signal.SIGTERM, self._handle)

    def restore(self) -> None:
        """Restore the previous handler, unless other code has replaced the handler of this class."""
        self._is_active = False
        if (
            self._previous is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == self._handle
        ):
            signal.signal(signal.SIGTERM, self._previous)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Delay SIGTERM and Ctrl-C until this block has ended, then restore the previous handler and deliver them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        deferred: dict[int, FrameType | None] = {}
        handlers: dict[int, Any] = {}
        for watched in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(watched)
            if handler not in (None, signal.SIG_IGN):
                handlers[watched] = handler
                signal.signal(watched, deferred.__setitem__)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.restore()
            for number, frame in deferred.items():
                handler = signal.getsignal(number)
                if callable(handler):
                    handler(number, frame)
                else:
                    signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The recording may not be running: a child that was forked inside the block inherits this handler but measures
        # nothing. Also, if two recordings overlap and the earlier one ends first, the later one restores the
        # handler of the earlier one.
        is_ours = self._is_active and os.getpid() == self._pid
        self.restore()
        if self._previous != signal.SIG_DFL:
            if is_ours:
                self.received = signal.Signals(number).name
                self._on_notice()
            self._previous(number, frame)
            return
        try:
            if is_ours:
                self._on_end(signal.Signals(number).name)
        except Exception as error:  # noqa: BLE001 - the process ends here after any error
            _LOG.error("cannot save the result before the process ends: %s", error)
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

"""Call third-party code that may hang, and wait only a limited time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, call: Callable[[], T]) -> T | None:
    """Return the result of a call; None if it raises, or if it takes longer. The call then continues in its thread.

    Args:
        seconds: The longest wait, in seconds.
        call: The function.
    """
    results: list[T] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # third-party code: a failing sensor must not end the run
            results.append(call())

    thread = threading.Thread(target=run, name="llm-energy-measure-call", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # Python is shutting down and starts no thread
        run()
    else:
        thread.join(seconds)
    return results[0] if results else None

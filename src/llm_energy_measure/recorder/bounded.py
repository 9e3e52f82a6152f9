"""Call code that may hang, such as a driver or a network request, and wait only a limited time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from llm_energy_measure.storage.base import Store

T = TypeVar("T")

# The longest wait for a store on a network at the end of a recording. No result depends on these requests.
_STORE_PATIENCE_SEC = 10.0


def call_within(seconds: float, call: Callable[[], T]) -> T | None:
    """Return the result of `call`; None if `call` raises an error or takes longer. A late call continues in its thread.

    Args:
        seconds: The longest wait, in seconds.
        call: The function.
    """
    with contextlib.suppress(Exception):  # third-party code: a failing sensor must not end the run
        return result_within(seconds, call)
    return None


def result_within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, or raise its exception. Raise `TimeoutError` if `call` takes longer.

    Args:
        seconds: The longest wait, in seconds.
        call: The function.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread of the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="llm-energy-measure-call", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # while Python exits, no thread can start
        run()
    else:
        thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def call_store(store: Store, call: Callable[[], object]) -> None:
    """Call a function that uses a store. For a store on a network, wait a limited time and ignore errors."""
    if store.parallel_requests > 1:
        call_within(_STORE_PATIENCE_SEC, call)
    else:
        call()

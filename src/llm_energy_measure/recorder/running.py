"""The recordings of this process that have begun and not ended. Save them at exit; disable them in forked children."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import Protocol

_LOG = logging.getLogger(__name__)


class Running(Protocol):
    """A recording that has begun."""

    def end_at_exit(self, error: BaseException | None) -> None:
        """Save the result at the end of the process."""

    def disable_in_child(self) -> None:
        """Stop measuring in a forked child."""


RUNNING: set[Running] = set()
"""The recordings that have begun and not ended."""


def _disable_in_child() -> None:
    for recording in RUNNING:
        recording.disable_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_disable_in_child)


@atexit.register
def _save_at_exit() -> None:
    """Save the recordings that the program did not stop, for example in a notebook."""
    # Python sets last_value before it prints the exception that ends the program.
    error = getattr(sys, "last_value", None)
    for recording in list(RUNNING):
        try:
            recording.end_at_exit(error)
        except Exception as unsaved:  # noqa: BLE001 - the other recordings must be saved too
            _LOG.error("cannot save the result at exit: %s", unsaved)

"""The recordings of this process that have begun and not ended. Save them at exit; disable them in forked children.

A recording inside another recording counts joules that the other recording counts too.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping
from typing import Protocol

from llm_energy_measure.recorder.procfs import stat_fields

OUTER_ENV = "LLM_ENERGY_MEASURE_OUTER"
"""Variable that `record -- COMMAND` sets for the command: its process id, a space and the id of the experiment."""

_LOG = logging.getLogger(__name__)


class Running(Protocol):
    """A recording that has begun.

    Attributes:
        experiment_id: Id of the experiment.
    """

    experiment_id: str

    @property
    def measures_energy(self) -> bool:
        """True if the recording reads a sensor."""

    def end_at_exit(self, error: BaseException | None) -> None:
        """Save the result at the end of the process."""

    def disable_in_child(self) -> None:
        """Stop measuring in a forked child."""


RUNNING: set[Running] = set()
"""The recordings that have begun and not ended."""


def outer_experiments(experiment_id: str, environ: Mapping[str, str]) -> list[str]:
    """Return the ids of experiments that measure this process while `experiment_id` measures it.

    They are the other experiments that this process records, and the experiment of `record -- COMMAND` if this process
    is part of the command. A process that outlived its parent is not found.
    """
    running = {one.experiment_id for one in list(RUNNING) if one.measures_energy} - {experiment_id}
    pid, _, outer = environ.get(OUTER_ENV, "").partition(" ")
    return sorted({*running, outer} if pid.isdecimal() and int(pid) and _is_ancestor(int(pid)) else running)


def _is_ancestor(pid: int) -> bool:
    """Return True if this process descends from the process `pid`. Without /proc, only the parent is known."""
    current = os.getppid()
    try:
        while current not in (0, pid):
            current = int(stat_fields(current)[1])  # ppid
    except (OSError, ValueError, IndexError):
        return False
    return current == pid


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

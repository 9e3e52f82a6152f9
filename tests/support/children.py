"""Run functions in child processes: without privileges, with a file size limit, or many at the same time."""

from __future__ import annotations

import codecs
import importlib
import multiprocessing
import os
import pkgutil
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import llm_energy_measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

UNPRIVILEGED_ID = 65534
PATIENCE_SEC = 120


def _import_everything() -> None:
    """Import all modules of the package. The unprivileged child may not be able to read the files of Python."""
    for encoding in ("ascii", "utf-8", "utf-8-sig"):
        codecs.lookup(encoding)
    for module in pkgutil.walk_packages(llm_energy_measure.__path__, f"{llm_energy_measure.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def outcome_in_child(
    work: Callable[[], object], *, unprivileged: bool = False, file_size_limit: int | None = None
) -> object:
    """Run `work` in a child process; return its value, or the exception that it raises.

    Args:
        work: The function. Its value must be picklable.
        unprivileged: Run as a user to whom the file system can refuse access.
        file_size_limit: Largest size of a file in bytes. A longer write fails, as on a full disk.
    """
    return outcomes_in_children([work], unprivileged=unprivileged, file_size_limit=file_size_limit)[0]


def outcomes_in_children(
    works: Sequence[Callable[[], object]], *, unprivileged: bool = False, file_size_limit: int | None = None
) -> list[object]:
    """Run all functions at the same time; return their values or exceptions."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(len(works))

    def child(work: Callable[[], object], sender: Any) -> None:
        if unprivileged and os.geteuid() == 0:
            _import_everything()
            os.setgroups([])
            os.setgid(UNPRIVILEGED_ID)
            os.setuid(UNPRIVILEGED_ID)
        if file_size_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
        ready.wait(PATIENCE_SEC)
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001 - the parent process checks the exception
            outcome = error
        sender.send(outcome)

    receivers, children = [], []
    for work in works:
        receiver, sender = context.Pipe(duplex=False)
        started = context.Process(target=child, args=(work, sender))
        started.start()
        sender.close()
        receivers.append(receiver)
        children.append(started)
    outcomes = [receiver.recv() for receiver in receivers]
    for started, receiver in zip(children, receivers, strict=True):
        started.join(PATIENCE_SEC)
        receiver.close()
    return outcomes


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can reach and write. Only the owner can reach pytest's `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "open"
        Path(name).chmod(0o755)
        folder.mkdir()
        folder.chmod(0o777)
        yield folder

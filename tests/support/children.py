"""Work in child processes: without privileges, with little disk, or all at once."""

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

NOBODY = 65534


def _load_what_is_loaded_late() -> None:
    """Import what the package imports at its first use: Python itself may lie where only its owner can read."""
    for encoding in ("ascii", "utf-8", "utf-8-sig"):
        codecs.lookup(encoding)
    for module in pkgutil.walk_packages(llm_energy_measure.__path__, f"{llm_energy_measure.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def outcome_in_child(
    work: Callable[[], object], *, unprivileged: bool = False, file_size_limit: int | None = None
) -> object:
    """What `work` returns in a child process, or the error that it raises.

    Args:
        work: What to do; what it returns is sent back pickled.
        unprivileged: Do it as a user whom the file system can refuse something.
        file_size_limit: Bytes after which any file is full, as on a full disk.
    """
    return outcomes_in_children([work], unprivileged=unprivileged, file_size_limit=file_size_limit)[0]


def outcomes_in_children(
    works: Sequence[Callable[[], object]], *, unprivileged: bool = False, file_size_limit: int | None = None
) -> list[object]:
    """What each of `works` returns or raises, all started together."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(len(works))

    def child(work: Callable[[], object], sender: Any) -> None:
        if unprivileged and os.geteuid() == 0:
            _load_what_is_loaded_late()
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        if file_size_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
        ready.wait(30)
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent looks at it
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
        started.join(30)
        receiver.close()
    return outcomes


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach and write, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "open"
        Path(name).chmod(0o755)
        folder.mkdir()
        folder.chmod(0o777)
        yield folder

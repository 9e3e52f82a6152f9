"""Faults during `bundle create`: a killed process, a full disk and Ctrl-C leave no file under the final name."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.creation import BundleOptions, create_bundle
from llm_energy_measure.exceptions import ExportError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.storage.temporary import target_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

REPEATS = ["llama_c0", "llama_c1", "llama_c2"]


def create(results: Path, target: Path, **arguments: Any) -> None:
    create_bundle(FileSystemRepository(results), target, Selection(found=REPEATS), **arguments)


def killed_at(call: str, event: str, passing: int) -> Callable[[FrameType, str, Any], None]:
    """Return a profile function that kills the process at a call of a C function of this name."""
    left = passing

    def profile(_frame: FrameType, found: str, subject: Any) -> None:
        nonlocal left
        if found == event and getattr(subject, "__name__", "") == call:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


@pytest.mark.parametrize(
    ("call", "event", "passing"),
    [
        *(("write", "c_call", passing) for passing in (1, 2, 5, 20, 40)),
        ("fsync", "c_call", 1),
        ("fsync", "c_return", 1),
        ("replace", "c_call", 1),
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_create_leaves_no_file_under_the_final_name(
    results: Path, tmp_path: Path, call: str, event: str, passing: int
) -> None:
    target = tmp_path / "a.zip"
    child = os.fork()
    if child == 0:
        sys.setprofile(killed_at(call, event, passing))
        try:
            create(results, target)
        finally:
            os._exit(1)  # the process was not killed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir() if path != results]
    assert target.name not in left
    assert [target_name(name) for name in left] == [target.name], "readers ignore the name of the unfinished file"
    create(results, target)
    assert target.exists()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_create_removes_its_temporary_file(results: Path, tmp_path: Path, after: int) -> None:
    def interrupting(items: Iterator[str], _total: int) -> Iterator[str]:
        for number, item in enumerate(items):
            if number == after:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        create(results, tmp_path / "a.zip", with_progress=interrupting)
    assert list(tmp_path.iterdir()) == [results]


def test_interrupt_at_the_end_removes_the_temporary_file(results: Path, tmp_path: Path) -> None:
    def interrupting(_repository: FileSystemRepository) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(results, tmp_path / "a.zip", options=BundleOptions(report=interrupting))
    assert list(tmp_path.iterdir()) == [results]


def test_full_disk_is_reported_and_leaves_no_file(results: Path, tmp_path: Path) -> None:
    def full(_repository: FileSystemRepository) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ExportError, match="No space left on device; choose a folder that exists and has free space"):
        create(results, tmp_path / "a.zip", options=BundleOptions(report=full))
    assert list(tmp_path.iterdir()) == [results]

"""Record the system calls of the store with Python's profiler and audit hooks, without replacing any function."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_energy_measure.storage import atomic
from tests.support.children import outcome_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

STORAGE = str(Path(atomic.__file__).parent)

CALLS: dict[object, str] = {
    getattr(os, name): name
    for name in ("open", "write", "fsync", "close", "link", "rename", "replace", "unlink", "mkdir", "rmdir")
}


def storage_function(frame: FrameType | None) -> str | None:
    """Return the function of `storage/` that a frame runs in, directly or through the standard library, else None."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(STORAGE):
            return frame.f_code.co_name
        if not frame.f_code.co_filename.startswith(_LIBRARY):
            return None
        frame = frame.f_back
    return None


_LIBRARY = (str(Path(os.__file__).parent), "<frozen ")


def point(frame: FrameType, event: str, subject: object) -> tuple[str, str] | None:
    """Return (`before` or `after`, `function.call`) if the profiler event is a call of the store, else None.

    The profiler does not report calls through ctypes (exchange of two files, sync of a file system). For these, the
    Python function counts as the call.
    """
    if event in ("c_call", "c_return"):
        name = CALLS.get(subject)
        function = storage_function(frame) if name else None
        return None if function is None else ("before" if event == "c_call" else "after", f"{function}.{name}")
    for wrapper in (atomic._renameat2, atomic._sync_file_system):
        if frame.f_code is wrapper.__code__:
            return "before" if event == "call" else "after", wrapper.__name__
    return None


class Call(NamedTuple):
    """One system call.

    Attributes:
        name: `open`, `write`, `fsync`, `syncfs`, `close`, `link`, `rename`, `remove`, `mkdir` or `rmdir`.
        path: The path, or the file of the descriptor.
        new_path: The new name, for `link` and `rename`.
    """

    name: str
    path: str
    new_path: str = ""


def recorded(work: Callable[[], object]) -> list[Call]:
    """Return the system calls of the store while `work` runs in a child process. Linux only."""
    calls: list[Call] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        name = _AUDITED.get(event)
        if name is not None and storage_function(sys._getframe(1)):
            paths = [os.fspath(path) for path in arguments[: 2 if name in ("link", "rename") else 1]]
            flags = arguments[2] if name == "open" else 0
            if name != "open" or flags & os.O_WRONLY or Path(paths[0]).is_dir():
                calls.append(Call(name, *paths))

    def profile(frame: FrameType, event: str, subject: object) -> None:
        name = CALLS.get(subject) if event == "c_call" else None
        if event == "call" and frame.f_code is atomic._sync_file_system.__code__:
            calls.append(Call("syncfs", frame.f_locals["path"]))
        if name in ("write", "fsync", "close") and storage_function(frame):
            path = str(Path(f"/proc/self/fd/{frame.f_locals['descriptor']}").readlink())
            if path in {call.path for call in calls}:  # without files that were only read
                calls.append(Call(name, path))

    def run() -> list[Call]:
        sys.addaudithook(audit)  # Python cannot remove an audit hook, so a child process runs this
        sys.setprofile(profile)
        work()
        sys.setprofile(None)
        return calls

    outcome = outcome_in_child(run)
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, list)
    return outcome


_AUDITED = {
    "open": "open",
    "os.link": "link",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
}


def problems(calls: Sequence[Call], path: str) -> list[str]:
    """Return why a file that these calls wrote could be torn or absent after a crash of the machine."""
    names = {path, *(call.path for call in calls if call.new_path == path)}
    writes = [at for at, call in enumerate(calls) if call.name == "write" and call.path in names]
    syncs = [
        at for at, call in enumerate(calls) if (call.name == "fsync" and call.path in names) or call.name == "syncfs"
    ]
    publishes = [at for at, call in enumerate(calls) if call.new_path == path]
    folder = str(Path(path).parent)
    found = []
    if any(calls[at].path == path for at in writes):
        found.append("written in place")
    if len(publishes) != 1:
        return [*found, f"published {len(publishes)} times"]
    if not writes or max(writes) > publishes[0]:
        found.append("written after it was published")
    if not any(max(writes, default=0) < at < publishes[0] for at in syncs):
        found.append("not synced between the last write and its publication")
    if not any(call.name == "fsync" and call.path == folder for call in calls[publishes[0] :]):
        found.append("its folder not synced after its publication")
    for at, call in enumerate(calls):
        parent = str(Path(call.path).parent)
        if call.name == "mkdir" and Call("fsync", parent) not in calls[at:]:
            found.append(f"a new folder not synced in {Path(parent).name}")
    return found

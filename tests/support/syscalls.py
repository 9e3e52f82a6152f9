"""The system calls that the store makes, as Python's profiler tells them: nothing of ours is replaced for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.storage import atomic

if TYPE_CHECKING:
    from types import FrameType

STORAGE = str(Path(atomic.__file__).parent)

CALLS: dict[object, str] = {
    getattr(os, name): name
    for name in ("open", "write", "fsync", "close", "link", "rename", "replace", "unlink", "mkdir", "rmdir")
}


def storage_function(frame: FrameType | None) -> str | None:
    """Name of the function of `storage/` in which a frame runs, directly or through the standard library."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(STORAGE):
            return frame.f_code.co_name
        if not frame.f_code.co_filename.startswith(_LIBRARY):
            return None
        frame = frame.f_back
    return None


_LIBRARY = (str(Path(os.__file__).parent), "<frozen ")


def point(frame: FrameType, event: str, subject: object) -> tuple[str, str] | None:
    """Where the profiler stands: (`before` or `after`, `function.call`) of a call of the store, or None.

    The exchange of two files goes through ctypes, which the profiler does not see; the function around it stands for it.
    """
    if event in ("c_call", "c_return"):
        name = CALLS.get(subject)
        function = storage_function(frame) if name else None
        return None if function is None else ("before" if event == "c_call" else "after", f"{function}.{name}")
    if frame.f_code is atomic._renameat2.__code__:
        return "before" if event == "call" else "after", "_renameat2"
    return None

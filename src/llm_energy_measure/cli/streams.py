"""Standard streams for commands that finish their work after the reader has exited, as in `aggregate --all | head`.

`_Output` replaces the raw stream below the buffer, so `_Output` gets the output of click, rich and `print`.
"""

from __future__ import annotations

import errno
import functools
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from llm_energy_measure.cli import encoding

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ResultT = TypeVar("ResultT")

SIGNALLED = 128
"""If a signal ends a process, a shell reports this number plus the number of the signal as exit status."""

FINISHES_WORK = "finishes_work"
"""Name of the attribute that `finish_work` sets to True on the function of a command."""

_CLOSED_PIPE = SIGNALLED + getattr(signal, "SIGPIPE", 13)


class _Output(io.RawIOBase):
    """A file descriptor that ignores all output after the first error.

    Attributes:
        error: The first error; None if all output was written.
        raises_error: Whether `write` raises the first error. A command that only prints then ends early.
    """

    def __init__(self, raw: io.FileIO, *, raises_error: bool) -> None:
        self.error: OSError | None = None
        self.raises_error = raises_error
        self._raw = raw

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Write data. After an error, write nothing and return the size of the data."""
        if self.error is None:
            try:
                return self._raw.write(data)
            except OSError as error:
                self.error = error
                if self.raises_error:
                    raise
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Return True if the descriptor is connected to a terminal."""
        return self._raw.isatty()


@contextmanager
def durable_streams() -> Iterator[None]:
    """Replace stdout and stderr by streams over `_Output` in this block.

    Errors of stderr are always ignored, because no other stream could show these errors. Streams without a file
    descriptor, as in tests, are not replaced.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _replaced(sys.stdout, raises_error=True)
    sys.stderr = _replaced(sys.stderr, raises_error=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _replaced(stream: Any, *, raises_error: bool) -> Any:
    """Return a stream over `_Output` with the settings of `stream`. Return `stream` if it has no file descriptor."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        encoding.escape_unencodable(stream)
        return stream
    stream.flush()
    output = io.BufferedWriter(_Output(raw, raises_error=raises_error))
    replaced = io.TextIOWrapper(output, stream.encoding, line_buffering=stream.line_buffering, newline=None)
    if stream.write_through:
        replaced.reconfigure(write_through=True)
    encoding.escape_unencodable(replaced)
    return replaced


def _output() -> _Output | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Output) else None


def finish_work(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Make a command finish its work after stdout is closed. `main` then reports the lost output; see `lost_output`.

    Commands without this decorator only print. If stdout is closed, these commands end silently, as POSIX tools do.
    """

    @functools.wraps(function)
    def finishing(*args: Any, **kwargs: Any) -> ResultT:
        if (output := _output()) is not None:
            output.raises_error = False
        return function(*args, **kwargs)

    finishing.__dict__[FINISHES_WORK] = True
    return finishing


def has_stopped_command() -> bool:
    """Return True if a closed pipe has ended a command that only prints."""
    output = _output()
    return output is not None and output.raises_error and isinstance(output.error, BrokenPipeError)


def lost_output() -> tuple[str, int] | None:
    """Return why output of a finished command is lost, and the exit status. None if all output was written."""
    if sys.stdout is None:
        return None
    sys.stdout.flush()
    output = _output()
    if output is None or output.error is None or output.raises_error:
        return None
    if output.error.errno == errno.EPIPE:
        return "the program that read the pipe has exited", _CLOSED_PIPE
    return output.error.strerror or str(output.error), 1

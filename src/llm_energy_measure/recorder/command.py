"""Measuring a command that knows nothing of it, with everything that it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import resource

from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from llm_energy_measure.recorder.recording import Recording

# Passed on to the command. What a terminal sends (SIGINT, SIGQUIT), it sends to the command as well.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PROC = Path("/proc")

_SIGNALLED = 128


class CannotRunError(ConfigurationError):
    """A command that can't be started.

    Attributes:
        status: What a shell exits with then.
    """

    status = 126


class NoSuchProgramError(CannotRunError):
    """A command that is nowhere."""

    status = 127


def find_program(name: str) -> str:
    """The program that a command names. Raises `CannotRunError` if it can't be run."""
    found = shutil.which(name)
    if found is None:
        doing, advice = f"cannot run {name!r}", "check the command behind --"
        if Path(name).exists():
            raise CannotRunError(doing, "it is not executable", advice)
        raise NoSuchProgramError(doing, "there is no such program", advice)
    return found


def run_command(recording: Recording, command: Sequence[str], cpu_time: TreeTime) -> int:
    """Measure a command from its start to its end.

    It has the terminal, the environment and the signals as if it ran alone. The result is `failed` where its status is
    not 0, and `interrupted` where a signal ended it.

    Args:
        recording: What measures it.
        command: The program and its arguments.
        cpu_time: Told which process the command is.

    Returns:
        Its status as a shell has it: 128 + n where signal n ended it, or came before it was started.

    Raises:
        LLMEnergyMeasureError: It can't be recorded; unless that shows at the end, the command was not started.
        CannotRunError: The system refused to start it.
    """
    relay = _Relay()
    try:
        with relay, recording:
            child = relay.start(command)
            cpu_time.pid = child.pid
            status = child.wait()
            cpu_time.pid = None
            if status < 0:
                recording.mark("interrupted", signal.Signals(-status).name)
            elif status:
                recording.mark("failed", f"exit status {status}")
    except KeyboardInterrupt as ended:
        (number,) = ended.args
        return _SIGNALLED + int(number)
    return status if status >= 0 else _SIGNALLED - status


class TreeTime:
    """CPU seconds of a command and all it started; never decreasing.

    While it runs, what its processes say under `/proc` (in hundredths of a second); once it has ended, what the kernel
    accounts for it, which is exact. What a process does that outlives its parent is missing.

    Attributes:
        pid: The command's process, while it runs.
    """

    def __init__(self) -> None:
        """Begin before the command starts."""
        self.pid: int | None = None
        self._before = _waited_for()
        self._last = 0.0

    def __call__(self) -> float:
        """CPU seconds so far."""
        running = 0.0 if self.pid is None else _of_tree(self.pid)
        self._last = max(self._last, _waited_for() - self._before + running)
        return self._last


def _waited_for() -> float:
    """CPU seconds of all ended children of this process, and of theirs."""
    if sys.platform == "win32":
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_tree(pid: int) -> float:
    """CPU seconds of a process, its ended children, and its living ones. Source: proc_pid_stat(5)."""
    try:
        said = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # Behind the name, in parentheses: utime, stime, cutime and cstime are fields 14 to 17.
        ticks = sum(map(int, said.rpartition(")")[2].split()[11:15]))
        children = [
            int(child)
            for task in (_PROC / str(pid) / "task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except (OSError, ValueError):
        return 0.0  # it has ended meanwhile
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(_of_tree, children))


class _Relay:
    """Passes signals on to the command; it decides what to do, and its end ends the recording.

    As long as there is no command, the signals that would end this process end the recording: `KeyboardInterrupt`, with
    the number of the signal. Once it has ended they do nothing: all that is left is to save its result.
    """

    def __init__(self) -> None:
        """Relay nothing yet."""
        self._child: subprocess.Popen[bytes] | None = None
        self._is_before = True
        self._missed: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        """Take the signals over. Not by SIG_IGN, which the command would inherit."""
        for number in (*_FORWARDED, *_OF_TERMINAL):
            self._handlers[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start the command; what came while it was being started goes to it. Raises `CannotRunError`."""
        self._is_before = False
        try:
            self._child = subprocess.Popen(list(command))
        except OSError as error:
            found = error.strerror or str(error)
            raise CannotRunError(f"cannot run {command[0]!r}", found, "check the command behind --") from error
        for number in self._missed:
            self._child.send_signal(number)
        return self._child

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._is_before:
            raise KeyboardInterrupt(number)
        if self._child is None:
            self._missed.append(number)
        elif number in _FORWARDED:
            self._child.send_signal(number)

"""Measures a command and all processes that it starts, without a change to the command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from llm_energy_measure.recorder.recording import Recording

if sys.platform != "win32":
    import resource

from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.recorder.procfs import stat_fields
from llm_energy_measure.recorder.running import OUTER_ENV

# Signals that this process forwards to the command. A terminal sends SIGINT and SIGQUIT to the command directly.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)

_SIGNALLED = 128


class CannotRunError(ConfigurationError):
    """The command cannot be started.

    Attributes:
        status: Exit status that a shell returns in this case: 127 if the program does not exist, else 126.
    """

    status = 126


def find_program(name: str) -> str:
    """Return the path of the program. Raises `CannotRunError` if it does not exist or is not executable."""
    if (path := shutil.which(name)) is not None:
        return path
    exists = Path(name).exists()
    found = "it is not executable" if exists else "there is no such program"
    error = CannotRunError(f"cannot run {name!r}", found, "check the command after --")
    error.status = 126 if exists else 127
    raise error


def run_command(
    recording: Recording,
    command: Sequence[str],
    cpu_time: TreeTime,
    on_unsaved: Callable[[LLMEnergyMeasureError], None],
) -> int:
    """Run a command and measure it from its start to its end.

    The command has the same terminal, environment and signals as without this program; only the variable `OUTER_ENV` is
    added. The status of the result is `failed` if the command ends with another exit status than 0, and `interrupted`
    if a signal ended the command.

    Args:
        recording: The recording.
        command: The program and its arguments.
        cpu_time: CPU time of the command. `cpu_time.pid` is set while the command runs.
        on_unsaved: Function that is called with the error if the command has ended and the result cannot be saved.

    Returns:
        The exit status as a shell reports it: 128 + n if signal n ended the command or arrived before its start.

    Raises:
        LLMEnergyMeasureError: The recording cannot start. The command is then not started.
        CannotRunError: The system cannot start the command.
    """
    signals, status = _SignalForwarder(), None
    try:
        with signals, recording:
            # A recording inside the command then finds out that this recording counts the same joules.
            outer = {OUTER_ENV: f"{os.getpid()} {recording.experiment_id}"} if recording.measures_energy else {}
            child = signals.start(command, {**os.environ, **outer})
            cpu_time.pid = child.pid
            status = child.wait()
            cpu_time.pid = None
            if status < 0:
                recording.mark("interrupted", signal.Signals(-status).name)
            elif status:
                recording.mark("failed", f"exit status {status}")
    except KeyboardInterrupt as interrupt:
        (number,) = interrupt.args
        return _SIGNALLED + int(number)
    except LLMEnergyMeasureError as error:
        if status is None:
            raise
        on_unsaved(error)
    return status if status >= 0 else _SIGNALLED - status


class TreeTime:
    """CPU seconds of a command and all processes that it started. The value never decreases.

    While the command runs, the value comes from /proc, in hundredths of a second. After its end, the value comes from
    the kernel's accounting and is exact. A process that outlives its parent is not included.

    Attributes:
        pid: Process id of the command while it runs, else None.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self._before = _ended_children_sec()
        self._last = 0.0

    def __call__(self) -> float:
        """Return the CPU seconds so far."""
        running = 0.0 if self.pid is None else _tree_sec(self.pid)
        self._last = max(self._last, _ended_children_sec() - self._before + running)
        return self._last


def _ended_children_sec() -> float:
    """Return the CPU seconds of all ended children of this process and of their ended children."""
    if sys.platform == "win32":
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree_sec(pid: int) -> float:
    """Return the CPU seconds of a process, its ended children and its running children; 0 if it has ended."""
    try:
        # utime, stime, cutime and cstime are the fields 14 to 17 of proc_pid_stat(5).
        ticks = sum(map(int, stat_fields(pid)[11:15]))
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except (OSError, ValueError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(_tree_sec, children))


class _SignalForwarder:
    """Forwards signals to the command. The command may ignore a signal. The recording ends when the command ends.

    Before the command starts, a signal raises `KeyboardInterrupt` with the number of the signal. After the command has
    ended, signals do nothing: this process only saves the result.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._is_before_start = True
        self._received: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        # Handlers, not SIG_IGN, because the command would inherit SIG_IGN.
        for number in (*_FORWARDED, *_FROM_TERMINAL):
            self._handlers[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the command, and send it the signals that arrived during the start. Raises `CannotRunError`."""
        self._is_before_start = False
        try:
            self._child = subprocess.Popen(list(command), env=environ)
        except OSError as error:
            found = error.strerror or str(error)
            raise CannotRunError(f"cannot run {command[0]!r}", found, "check the command after --") from error
        for number in self._received:
            self._child.send_signal(number)
        return self._child

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._is_before_start:
            raise KeyboardInterrupt(number)
        if self._child is None:
            self._received.append(number)
        elif number in _FORWARDED:
            self._child.send_signal(number)

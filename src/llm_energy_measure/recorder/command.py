"""Measuring a command that knows nothing of it, with everything that it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import resource

from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from llm_energy_measure.recorder.recording import Recording

# Passed on to the command. What a terminal sends (SIGINT, SIGQUIT), it sends to the command as well.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PROC = Path("/proc")


class CannotRunError(ConfigurationError):
    """A command that can't be started.

    Attributes:
        status: What a shell exits with then.
    """

    status = 126


class NoSuchProgramError(CannotRunError):
    """A command that is nowhere."""

    status = 127


class StoppedError(KeyboardInterrupt):
    """A signal came before the command was started.

    Attributes:
        number: Which.
    """

    def __init__(self, number: int) -> None:
        """Remember it."""
        super().__init__(number)
        self.number = number


def require_program(name: str) -> None:
    """Find the program that a command names. Raises `CannotRunError` if it can't be run."""
    if shutil.which(name) is None:
        doing, advice = f"cannot run {name!r}", "check the command behind --"
        if Path(name).exists():
            raise CannotRunError(doing, "it is not executable", advice)
        raise NoSuchProgramError(doing, "there is no such program", advice)


def run_command(recording: Recording, command: Sequence[str], cpu_time: TreeTime) -> int:
    """Measure a command from its start to its end.

    It has the terminal, the environment and the signals as if it ran alone. The result is `failed` where its status is
    not 0, and `interrupted` where a signal ended it. A signal that comes before it is started ends the recording.

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
        with relay.listening(), recording:
            relay.is_starting = True
            try:
                child = subprocess.Popen(list(command))  # noqa: S603 - running what it is given is its work
            except OSError as error:
                found = error.strerror or str(error)
                raise CannotRunError(f"cannot run {command[0]!r}", found, "check the command behind --") from error
            cpu_time.pid = child.pid
            relay.pass_on_to(child.pid)
            status = child.wait()
            relay.pid = cpu_time.pid = None
            if status < 0:
                recording.mark("interrupted", signal.Signals(-status).name)
            elif status:
                recording.mark("failed", f"exit status {status}")
    except StoppedError as stopped:
        return 128 + stopped.number
    return status if status >= 0 else 128 - status


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

    Attributes:
        is_starting: Whether the command is about to start, or was started. Before that a signal raises `StoppedError`.
        pid: The command's process, while it runs.
    """

    def __init__(self) -> None:
        """Begin before the command starts."""
        self.is_starting = False
        self.pid: int | None = None
        self._waiting: list[int] = []

    def pass_on_to(self, pid: int) -> None:
        """The command runs: it gets what came while it was started, too."""
        self.pid = pid
        while self._waiting:
            os.kill(pid, self._waiting.pop(0))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A block in which signals come here."""
        handlers = {**dict.fromkeys(_FORWARDED, self._forward), **dict.fromkeys(_OF_TERMINAL, self._leave)}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if not self.is_starting:
            raise StoppedError(number)
        if self.pid is None:
            self._waiting.append(number)
        else:
            os.kill(self.pid, number)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Not SIG_IGN, which the command would inherit."""
        if not self.is_starting:
            raise StoppedError(number)

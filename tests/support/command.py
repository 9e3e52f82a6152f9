"""Run the command under test: in this process, in a child process, or on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_energy_measure.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODULE = [sys.executable, "-m", "llm_energy_measure"]
PATIENCE_SEC = 120
_ROOT = Path(__file__).resolve().parents[2]

_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_ERASED = re.compile("\x1b\\[\\?25[lh]|\x1b\\[[0-9]*[AK]|\r")


class Done(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Return stdout, decoded as JSON."""
        return json.loads(self.out)

    @property
    def shown(self) -> str:
        """Return the output without the escape codes of colours and of the progress bar."""
        return _ERASED.sub("", _COLOURS.sub("", self.out + self.err))


def run(*arguments: object, stdin: str = "") -> Done:
    """Run the command in this process. This is fast, and skips only the start of the interpreter."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["llm-energy-measure", *map(str, arguments)], io.StringIO(stdin)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            warnings.simplefilter("default")
            try:
                main()
            except SystemExit as done:
                status = done.code
    finally:
        sys.argv, sys.stdin = before
    assert isinstance(status, int)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    return Done(status, out, err)


def as_process(*arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """Run the command in a child process with pipes."""
    done = subprocess.run(
        [*MODULE, *map(str, arguments)],
        cwd=cwd,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def in_one_process(*commands: Sequence[object]) -> list[Done]:
    """Run commands one after the other in one child process, in which no other test has imported a library."""
    script = (
        "import json, sys\n"
        "from tests.support.command import run\n"
        "json.dump([run(*words) for words in json.loads(sys.argv[1])], sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([[*map(str, words)] for words in commands])],
        cwd=_ROOT,
        env=_environment(None),
        capture_output=True,
        timeout=PATIENCE_SEC,
        check=True,
    )
    return [Done(*one) for one in json.loads(done.stdout)]


def on_terminal(
    *arguments: object,
    columns: int = 80,
    typed: str = "",
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Done:
    """Run the command on a terminal. `out` has all bytes that the command sent to the terminal.

    Args:
        arguments: Arguments of the command.
        columns: Width of the terminal.
        typed: Text that a user types after the first output.
        env: Changes to the environment.
        stdout: File descriptor for stdout. By default stdout is the terminal.
    """
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        stdin=follower,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
        env=_environment({"COLUMNS": str(columns), **(env or {})}),
    )
    os.close(follower)
    screen = b""
    while chunk := _read(leader):
        screen += chunk
        if typed:
            os.write(leader, typed.encode())
            typed = ""
    os.close(leader)
    return Done(process.wait(PATIENCE_SEC), screen.decode().replace("\r\n", "\n"), "")


def _read(descriptor: int) -> bytes:
    """Return the next bytes; nothing after the last writer has closed the terminal, or after `PATIENCE_SEC`."""
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_SEC)
    try:
        return os.read(descriptor, 65536) if ready else b""
    except OSError:  # Linux raises EIO at the end
        return b""


def _environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of this process without variables that change the output, and with these changes."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONWARNINGS", "LLM_ENERGY_MEASURE_RESULTS_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **(changes or {})}

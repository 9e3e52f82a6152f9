"""Every command on a folder with about 40 hostile files: limits of time and memory, and nothing outside changes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.cli import terminal
from tests.support.command import PATIENCE_SEC
from tests.support.hostile_folder import GOOD, SPY, HostileFolder

LIMIT_CPU_SEC = 10
LIMIT_BYTES = 500 * 2**20

COMMANDS = [
    "results list --all",
    "results list --all --rehash",
    f"results show {GOOD}",
    "results show links --raw",
    "results show special",
    "results show content --raw",
    "results show linked_aggregate",
    "results show fifo_aggregate --json",
    "aggregate --all --no-strict",
    "aggregate links special content --force",
    "results verify --all",
    "results check",
    "results check --clean --salvage",
    "results export --to -",
    "results export --to - --raw",
    "results export --to {results}/table.csv",
    "results export --to {results}/dataset --format parquet",
    "results sql 'select count(*) from processes'",
    "results repeats",
    "results report --to -",
    "results plot --x energy --y tokens_per_s",
    "results configs",
    "results compare {results} {results}",
    "record --experiment recorded --w-per-core 10 -- true",
    f"record --experiment {GOOD} --attempt next --w-per-core 10 -- true",
    "record --experiment linked --w-per-core 10 -- true",
    f"results tag {GOOD} paper=fig3",
    "results merge {results} -o {merged}",
    "results merge {merged} -o {results}",
    f"results delete {GOOD} --yes",
    "results delete links --yes",
    "results delete special --yes",
    "results delete linked_aggregate --yes",
    "results delete linked --yes",
    "results delete deep --yes",
    "import {results} --dry-run",
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the limits and special files of Linux")


# The child limits its own CPU time, and writes its peak memory in kB to the file `peak`.
CHILD = f"""
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, ({LIMIT_CPU_SEC}, {LIMIT_CPU_SEC}))
from llm_energy_measure.cli.main import main
peak = Path(sys.argv.pop(1))
sys.argv[0] = "llm-energy-measure"
try:
    main()
finally:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak.write_text(line.split()[1])
"""


def run_limited(command: str, folder: HostileFolder) -> tuple[int, str]:
    """Run a command with a limit of CPU time, and require that its memory is below the limit. Return status, output."""
    base = folder.results.parent
    (base / "merged").mkdir()
    words = shlex.split(command.format(results=folder.results, merged=base / "merged"))
    if "-o" not in words:
        words = ["-o", str(folder.results), *words]
    changes = {"XDG_CACHE_HOME": str(base / "cache"), "PYTHONIOENCODING": "utf-8", "COLUMNS": "1000"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(base / "peak"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **changes},
        timeout=PATIENCE_SEC,
        check=False,
    )
    output = done.stdout.decode()
    assert done.returncode in (0, 1), output
    assert int((base / "peak").read_text()) * 1024 < LIMIT_BYTES
    return done.returncode, output


@pytest.fixture
def hostile(tmp_path: Path) -> HostileFolder:
    return HostileFolder(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_reads_or_changes_anything_outside(hostile: HostileFolder, command: str) -> None:
    before = hostile.digest()
    _, output = run_limited(command, hostile)
    assert hostile.digest() == before
    assert "Traceback" not in output
    assert "this is a bug" not in output
    assert SPY not in output
    assert "secret outside" not in output
    assert "\x1b" not in output
    assert "\u202e" not in output


def test_check_names_every_hostile_file(hostile: HostileFolder) -> None:
    status, output = run_limited("results check", hostile)
    assert status == 1
    assert len(hostile.reported) > 35
    shown = [line.split("  ", 1)[1].split(": ", 1)[0] for line in output.splitlines() if "  " in line]
    assert [key for key in hostile.reported if terminal.escape(key) not in shown] == []

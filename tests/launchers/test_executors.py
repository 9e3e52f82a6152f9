"""Aggregation by the workers of MPI and of executorlib. `make test-launchers` installs both and runs these tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories

PAGE = Path(__file__).parents[2] / "docs/how-to/keep-results-on-a-cluster.md"
MPIEXEC = Path(sys.executable).with_name("mpiexec")
EXPERIMENTS = 120
EXECUTORLIB_SCRIPT = """
import sys

from executorlib import SingleNodeExecutor

from llm_energy_measure.results import FileSystemRepository, aggregate_all, verify_all

if __name__ == "__main__":
    repository = FileSystemRepository(sys.argv[1])
    with SingleNodeExecutor(max_workers=2) as executor:
        outcomes = list(aggregate_all(repository, executor=executor, jobs=2))
        verdicts = list(verify_all(repository, executor=executor, jobs=2))
    assert verdicts == list(verify_all(repository))
    print(len(outcomes))
"""


def require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "mpi4py" and not MPIEXEC.exists():
        pytest.skip(f"{MPIEXEC} does not exist: the package mpich is not installed")


def aggregates(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "aggregated").glob("*.json")}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    """Return the aggregates that one process writes of the results in `tmp_path / "many"`."""
    one = FileSystemRepository(tmp_path / "one")
    for number in range(EXPERIMENTS):
        for process in range(2):
            one.save_raw(f"exp_{number:03}", factories.raw(f"exp_{number:03}", process))
    shutil.copytree(tmp_path / "one", tmp_path / "many")
    assert [outcome.result for outcome in aggregate_all(one)] == ["aggregated"] * EXPERIMENTS
    return aggregates(tmp_path / "one")


def mpi_command(folder: Path) -> list[str]:
    """Return the command that runs the script of the documentation on the results in a folder, with two workers."""
    text = PAGE.read_text(encoding="utf-8")
    script = text[text.index("from mpi4py.futures import") :].partition("```")[0]
    (folder / "aggregate.py").write_text(script.replace("/shared/results", str(folder / "many")), encoding="utf-8")
    return [str(MPIEXEC), "-n", "3", sys.executable, "-m", "mpi4py.futures", str(folder / "aggregate.py")]


def test_mpi_processes_write_the_same_aggregates(tmp_path: Path, expected: dict[str, bytes]) -> None:
    require("mpi4py")
    done = subprocess.run(mpi_command(tmp_path), capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count(" aggregated\n") == EXPERIMENTS
    assert aggregates(tmp_path / "many") == expected


def test_mpi_aggregation_continues_after_a_kill(tmp_path: Path, expected: dict[str, bytes]) -> None:
    require("mpi4py")
    command = mpi_command(tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "many").glob("aggregated/*.json")):
        time.sleep(0.001)
    workers = processes_of(command[-1])
    assert len(workers) == 3
    os.kill(workers[-1], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    stored = aggregates(tmp_path / "many")
    assert 0 < len(stored) < EXPERIMENTS
    assert stored.items() <= expected.items()
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert aggregates(tmp_path / "many") == expected


def processes_of(script: str) -> list[int]:
    """Return the sorted ids of the Python processes that run a script."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            arguments = (folder / "cmdline").read_text().split("\0")
            if arguments[0] == sys.executable and script in arguments:
                found.append(int(folder.name))
    return sorted(found)


def test_executorlib_gives_the_same_aggregates_and_verdicts(tmp_path: Path, expected: dict[str, bytes]) -> None:
    require("executorlib")
    (tmp_path / "script.py").write_text(EXECUTORLIB_SCRIPT, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "many")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    assert done.stdout == f"{EXPERIMENTS}\n"
    assert aggregates(tmp_path / "many") == expected

"""The launchers: the command that starts N processes, and why a launcher cannot be used here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.launchers import slurm

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests/launchers/worker.py"

# MPI refuses more processes than cores, or to run as root, unless these are set.
MPI_ENVIRON = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


class Launcher(NamedTuple):
    """A launcher.

    Attributes:
        name: Its name in the table.
        command: Returns the words that start N processes of the worker; the arguments of the worker follow.
        missing: Returns why the launcher cannot be used here; None if it can.
        names: Names of launchers that the records may have.
        terminate: Ends the run as a user or a scheduler does.
    """

    name: str
    command: Callable[[int], list[str]]
    missing: Callable[[], str | None]
    names: frozenset[str | None]
    terminate: Callable[[subprocess.Popen[bytes]], None] = lambda started: started.send_signal(signal.SIGTERM)


def _module(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) is not None else f"the package {name} is not installed"


def program(variable: str, name: str) -> str | None:
    """Return the path of a program: from an environment variable, next to this Python, or from PATH."""
    given = os.environ.get(variable)
    neighbour = Path(sys.executable).with_name(name)
    return given or (str(neighbour) if neighbour.exists() else shutil.which(name))


def _mpi(variable: str, name: str, kind: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        path = program(variable, name)
        if path is None:
            return f"{name} is not installed, and {variable} does not name it"
        is_open_mpi = (Path(path).parent / "ompi_info").exists()
        if is_open_mpi != (kind == "Open MPI"):
            return f"{path} is not of {kind}"
        return None

    return missing


def _python(*words: str) -> list[str]:
    return [sys.executable, *words]


LAUNCHERS = (
    Launcher(
        "torchrun",
        lambda count: _python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), str(WORKER))
        ),
        _module("torch"),
        frozenset({"torchrun"}),
    ),
    Launcher(
        "accelerate",
        lambda count: _python(
            # accelerate starts several processes only for GPUs; the worker needs none.
            *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count), "--num_machines", "1"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "29533", str(WORKER)),
        ),
        _module("accelerate"),
        frozenset({"torchrun", "environment"}),
    ),
    Launcher(
        "mpiexec (MPICH)",
        lambda count: [program("MPICH_MPIEXEC", "mpiexec") or "", "-n", str(count), *_python(str(WORKER))],
        _mpi("MPICH_MPIEXEC", "mpiexec", "MPICH"),
        frozenset({"mpi"}),
    ),
    Launcher(
        "mpiexec (Open MPI)",
        lambda count: [program("OPENMPI_MPIEXEC", "mpiexec") or "", "-n", str(count), *_python(str(WORKER))],
        _mpi("OPENMPI_MPIEXEC", "mpiexec", "Open MPI"),
        frozenset({"mpi"}),
    ),
    Launcher(
        "Ray",
        lambda count: _python(str(ROOT / "tests/launchers/ray_driver.py"), str(count)),
        _module("ray"),
        frozenset({None, "ray"}),
    ),
    Launcher(
        "srun (SLURM)",
        lambda count: [slurm.find("srun") or "", "-n", str(count), "--overcommit", *_python(str(WORKER))],
        lambda: None if "SLURM_CONF" in os.environ else slurm.reason_against() or "no cluster was started",
        frozenset({"slurm"}),
        lambda _: slurm.cancel_all(),
    ),
    Launcher(
        "multiprocessing",
        lambda count: _python(str(ROOT / "tests/launchers/spawn_driver.py"), str(count)),
        lambda: None,
        frozenset({None}),
    ),
)
"""All launchers. The last one needs no installation."""

"""A SLURM cluster of one node in a folder, without a service and without munge, for the time of a test. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "SLURM_PREFIX"
"""Variable with the folder of an unpacked package (`dpkg -x`), if the package is not installed."""

_CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
{plugins}
SlurmctldPort=16837
SlurmdPort=16838
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES
"""


def find(name: str) -> str | None:
    """Return the path of a program of SLURM."""
    prefix = Path(os.environ.get(PREFIX, "/"))
    places = [prefix / folder / found for folder in ("usr/sbin", "usr/bin") for found in (f"{name}-wlm", name)]
    return next((str(place) for place in places if place.exists()), shutil.which(name))


def reason_against() -> str | None:
    """Return why no cluster can be started here; None if it can."""
    missing = [name for name in ("slurmctld", "slurmd", "srun") if find(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt install slurm-wlm)"
    return None if os.name == "posix" and os.geteuid() == 0 else "a SLURM cluster in a folder needs root"


def cancel_all() -> None:
    """Cancel all jobs of the cluster, as `scancel` does: SIGTERM, then SIGKILL after `KillWait` seconds."""
    found = subprocess.run([find("squeue") or "", "-h", "-o", "%i"], check=True, capture_output=True, text=True)
    for job in found.stdout.split():
        subprocess.run([find("scancel") or "", job], check=True)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start the controller and one node; `srun` and `sbatch` of this process use them. Stop both at the end."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    prefix = os.environ.get(PREFIX)
    libraries = f"{prefix}/usr/lib/x86_64-linux-gnu"
    plugins = f"PluginDir={libraries}/slurm-wlm" if prefix else ""
    config = folder / "slurm.conf"
    cpus = len(os.sched_getaffinity(0))
    config.write_text(_CONFIG.format(host=os.uname().nodename.split(".")[0], folder=folder, plugins=plugins, cpus=cpus))
    before = dict(os.environ)
    os.environ["SLURM_CONF"] = str(config)
    if prefix:
        os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{libraries}/slurm-wlm"
    try:
        subprocess.run([find("slurmctld") or "", "-c"], check=True, capture_output=True)
        subprocess.run([find("slurmd") or "", "-d", find("slurmstepd") or ""], check=True, capture_output=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            state = subprocess.run([find("sinfo") or "", "-h", "-o", "%t"], check=False, capture_output=True, text=True)
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        yield
    finally:
        for name in ("slurmd", "slurmctld"):
            file = folder / f"{name}.pid"
            if file.exists():
                _stop(int(file.read_text()))
        os.environ.clear()
        os.environ.update(before)


def _stop(pid: int) -> None:
    """End a daemon, and wait until it has ended: it writes to its folder until then."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.1)

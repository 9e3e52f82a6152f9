"""The software and the machine of a process, from files, variables and energy sources. A missing fact is None."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_energy_measure._version import __version__
from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.recorder.sources import Source

_MAX_GOVERNORS = 4


def environment_of(environ: Mapping[str, str], sources: Sequence[Source], root: Path = Path("/")) -> Environment:
    """Return the environment of this process.

    Args:
        environ: Environment variables.
        sources: The energy sources that were tried. If a source has the method `driver_versions`, this method returns
            the versions of the GPU driver and of CUDA.
        root: Root folder of the files that are read.
    """
    queries = [query for source in sources if callable(query := getattr(source, "driver_versions", None))]
    driver, cuda = next((found for query in queries if (found := query()) is not None), (None, None))
    return Environment(
        recorder_version=__version__,
        python_version=platform.python_version(),
        system=" ".join(part for part in (platform.system(), platform.release(), platform.machine()) if part) or None,
        cpu_model=_cpu_model(root),
        cpu_count=_cpu_count(),
        cpu_governor=_governors(root),
        container=_container(environ, root),
        gpu_driver=driver,
        cuda_version=cuda,
    )


def _cpu_count() -> int | None:
    try:
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    except OSError:
        return os.cpu_count()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _cpu_model(root: Path) -> str | None:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip() or None
    return platform.processor() or None


def _governors(root: Path) -> str | None:
    """Return the frequency governors of all processors, each once. Source: Linux, Documentation/admin-guide/pm."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    names = sorted({name for file in files if (name := _text(file)) is not None})
    return ",".join(names[:_MAX_GOVERNORS]) or None


def _container(environ: Mapping[str, str], root: Path) -> str | None:
    """Return the container runtime, from files and variables that runtimes create; None outside of a container."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return "apptainer"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    return environ.get("container") or None  # systemd-nspawn, LXC and podman set this variable

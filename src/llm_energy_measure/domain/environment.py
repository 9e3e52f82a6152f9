"""The software and the machine of a run."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_energy_measure.domain.units import Count


class Environment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The software and the machine of a process. None means unknown. The job is in the field `launcher` of the record.

    Attributes:
        recorder_version: Version of llm-energy-measure.
        python_version: Version of Python.
        system: Operating system, release of the kernel, and architecture.
        cpu_model: Model name of the processor.
        cpu_count: Number of logical processors that the process may use.
        cpu_governor: Frequency governor of the processors; several are separated by commas.
        container: Kind of the container: `docker`, `podman`, `apptainer`, `kubernetes` or another name. None if there
            is none, or if it is unknown.
        gpu_driver: Version of the GPU driver.
        cuda_version: Newest version of CUDA that the driver supports.
        engine: Name of the serving engine, such as `vllm`.
        engine_config: Values of the configuration of the serving engine, by dotted key.
    """

    recorder_version: str | None = None
    python_version: str | None = None
    system: str | None = None
    cpu_model: str | None = None
    cpu_count: Count | None = None
    cpu_governor: str | None = None
    container: str | None = None
    gpu_driver: str | None = None
    cuda_version: str | None = None
    engine: str | None = None
    engine_config: dict[str, Any] | None = None

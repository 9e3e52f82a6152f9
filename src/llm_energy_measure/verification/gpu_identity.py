"""Identity of GPUs: each process names its GPU, and processes that overlap in time name different GPUs.

These checks compare only names, as the tool that defined the file format does. They do not check which hardware the
readings cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import listed, not_checked, passed
from llm_energy_measure.verification.gpus import Gpu
from llm_energy_measure.verification.processes import Evidence, Process, comparable, read_elsewhere
from llm_energy_measure.verification.readings import parts_of


def check_gpu_identity(evidence: Evidence) -> Iterator[Finding]:
    """Check that each process names its GPU, that GPUs of overlapping processes differ, and that no GPU is a MIG slice.

    Yields one finding per repeated GPU. Records without a host count as records of one host.
    """
    code = "identity.repeated_gpu"
    repeated = [
        (name, processes) for of_host in evidence.hosts.values() for name, processes in _repeated(of_host).items()
    ]
    for name, processes in repeated:
        message = f"GPU {name} appears in multiple processes"
        yield not_checked(code, "each process may have read its own part of the GPU", message, processes=processes)
    if not repeated:
        yield passed(code)
    yield _unnamed(evidence)
    yield _slices(evidence)


def _slices(evidence: Evidence) -> Finding:
    code = "identity.mig_slice"
    slices = [process.index for process in evidence.processes if _is_on_slice(process)]
    if not slices:
        return passed(code)
    ran = (
        f"process {slices[0]} ran on a MIG slice"
        if len(slices) == 1
        else f"processes {listed(slices)} ran on MIG slices"
    )
    message = f"{ran}; the sensor covers the whole GPU, not one slice"
    return not_checked(code, "NVML has no energy of a slice", message, processes=slices)


def _is_on_slice(process: Process) -> bool:
    record = process.record
    if record.gpu_is_mig or record.gpu_mig_profile:
        return True
    if any(gpu.uuid is not None and gpu.uuid.startswith("MIG-") for gpu in process.gpus):
        return True
    return any(device.mig_profile for device in process.energy.devices or ())


def _repeated(processes: Sequence[Process]) -> dict[str, set[int]]:
    """Return, by GPU name, the indices of the processes of one host that overlap in time and name the same GPU."""
    repeated: dict[str, set[int]] = {}
    if len(processes) == 1:
        return repeated
    have_uuids = all(gpu.uuid is not None for process in processes for gpu in process.gpus)
    by_id: dict[str | int, list[Process]] = {}
    for process in processes:
        for gpu in process.gpus:
            # If all GPUs have a UUID, the index is ignored: some tools number the GPUs of each process from 0.
            for name in {gpu.uuid} if have_uuids else {gpu.uuid, gpu.index}:
                if name is not None:
                    by_id.setdefault(name, []).append(process)
    for name, own in by_id.items():
        if len(own) == 1:
            continue  # most GPUs
        together = [one for one in own if any(other is not one and _overlap(one, other) for other in own)]
        if together:
            repeated.setdefault(_shown(name, together), set()).update(process.index for process in together)
    return repeated


def _shown(name: str | int, processes: Sequence[Process]) -> str:
    """Return the index of a GPU if all processes give the same index, else its UUID."""
    indices = {gpu.index for process in processes for gpu in process.gpus if name in (gpu.uuid, gpu.index)}
    index = next(iter(indices)) if len(indices) == 1 else None
    return str(name if index is None else index)


def _overlap(one: Process, other: Process) -> bool:
    """Return whether two processes measured at the same time; True if their times are unknown."""
    if one.span is None or other.span is None or not comparable([one.span, other.span]):
        return True
    return one.span[0] < other.span[1] and other.span[0] < one.span[1]


def _unnamed(evidence: Evidence) -> Finding:
    code = "identity.unnamed_gpu"
    unnamed = sorted(
        process.index
        for processes in evidence.hosts.values()
        for process in processes
        if _lacks_name(process, processes)
    )
    if unnamed:
        does_not = "process {} does not name its GPU" if len(unnamed) == 1 else "processes {} do not name their GPUs"
        return not_checked(
            code, "GPUs without a name can't be compared", does_not.format(listed(unnamed)), processes=unnamed
        )
    mixed = [
        process.index
        for processes in evidence.hosts.values()
        if _is_incomparable([gpu for peer in processes for gpu in peer.gpus])
        for process in processes
    ]
    if mixed:
        message = f"processes {listed(sorted(mixed))} name their GPUs in different ways: by UUID, and by index only"
        return not_checked(code, "a UUID and an index can't be compared", message, processes=mixed)
    return passed(code)


def _is_incomparable(gpus: Sequence[Gpu]) -> bool:
    """Return True if some GPUs are known by UUID only, and others by index only."""
    kinds = {(gpu.uuid is None, gpu.index is None) for gpu in gpus}
    return kinds >= {(False, True), (True, False)}


def _lacks_name(process: Process, processes: Sequence[Process]) -> bool:
    """Return True if a process read GPUs and does not name them."""
    if all(gpu.name is not None for gpu in process.gpus):
        return False
    energy = process.energy
    if energy.total_energy_j is not None:
        gpu_j, cpu_j, ram_j, rest_j = parts_of(energy)
        # A process that read no GPU needs no name of a GPU. Some tools write 0 J for an unknown GPU energy.
        has_others = energy.gpu_energy_j is None and (
            energy.cpu_energy_j is not None or energy.ram_energy_j is not None
        )
        if not gpu_j and not rest_j and (cpu_j or ram_j or has_others):
            return False
    return not read_elsewhere(process.record, [peer.record for peer in processes])

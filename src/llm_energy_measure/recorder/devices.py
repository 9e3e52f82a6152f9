"""The GPUs that belong to a process, from its environment variables. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_energy_measure.recorder.ranks import ProcessRank

CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
ROCM_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def visible_devices(environ: Mapping[str, str], variables: Sequence[str] = CUDA_VARIABLES) -> list[str] | None:
    """Return the devices that are visible to a process, as indices or UUIDs; None if all devices are visible.

    Like CUDA, this function stops at the first entry that is not a device: with `0,1,-1,2`, two devices are visible.

    Args:
        environ: The environment variables.
        variables: Names of the variables that list devices. The first variable that is set is used.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; NVIDIA MIG User Guide, "CUDA Device Enumeration".

    Example:
        >>> (
        ...     visible_devices({"CUDA_VISIBLE_DEVICES": "2,MIG-3f,-1,0"}),
        ...     visible_devices({}),
        ...     visible_devices({"CUDA_VISIBLE_DEVICES": ""}),
        ... )
        (['2', 'MIG-3f'], None, [])
    """
    text = next((environ[name] for name in variables if name in environ), None)
    if text is None:
        return None
    devices: list[str] = []
    for entry in text.split(","):
        name = entry.strip()
        if not name or name in devices or not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        devices.append(name)
    return devices


def own_devices(visible: Sequence[str], rank: ProcessRank) -> list[str]:
    """Return the visible devices that belong to this process.

    torchrun shows all devices of a host to each of its processes, and the process of local rank r works on `cuda:r`. In
    this case device r belongs to the process. If fewer devices than processes are visible, or the number of processes
    on the host is unknown, all visible devices belong to the process.

    Example:
        >>> from llm_energy_measure.recorder.ranks import find_rank
        >>> rank = find_rank({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"})
        >>> own_devices(["0", "1", "2", "3"], rank), own_devices(["3"], rank)
        (['1'], ['3'])
    """
    index = _own_index(visible, rank)
    return list(visible) if index is None else [visible[index]]


def unused_devices(visible: Sequence[str], rank: ProcessRank) -> list[str]:
    """Return the visible devices that belong to no process, if the host has more devices than processes."""
    return [] if _own_index(visible, rank) is None else list(visible[rank.local_world_size :])


def _own_index(visible: Sequence[str], rank: ProcessRank) -> int | None:
    """Return the local rank if the host has several processes, and at least one visible device for each; else None."""
    local_rank = rank.launcher.local_rank if rank.launcher is not None else None
    local_size = rank.local_world_size
    if local_rank is None or local_size is None or not local_rank < local_size:
        return None
    return local_rank if 1 < local_size <= len(visible) else None

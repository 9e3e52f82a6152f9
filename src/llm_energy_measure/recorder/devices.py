"""Which GPUs are a process's own, as its environment says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_energy_measure.recorder.place import Place

CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
ROCM_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def visible_devices(environ: Mapping[str, str], variables: Sequence[str] = CUDA_VARIABLES) -> list[str] | None:
    """The devices that the environment shows a process: indices or UUIDs as it names them; None for all.

    As CUDA does, the list is read up to the first entry that names no device: `0,1,-1,2` shows two.

    Args:
        environ: The environment variables.
        variables: The names to look under; the first that is set counts.

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
    found: list[str] = []
    for entry in text.split(","):
        name = entry.strip()
        if not name or name in found or not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        found.append(name)
    return found


def own_devices(visible: Sequence[str], place: Place) -> list[str]:
    """Those of the visible devices that are this process's.

    Where the processes of a host all see the same devices, as torchrun leaves it, the process of local rank r works on
    `cuda:r`, and device r is its own. Where fewer are visible than processes, or nobody says how many processes the
    host has, what is visible is the process's.

    Args:
        visible: Names of the visible devices.
        place: Where the process stands.

    Example:
        >>> from llm_energy_measure.recorder.place import find_place
        >>> torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
        >>> own_devices(["0", "1", "2", "3"], find_place(torchrun)), own_devices(["3"], find_place(torchrun))
        (['1'], ['3'])
    """
    local_rank = _rank_among_sharers(visible, place)
    return list(visible) if local_rank is None else [visible[local_rank]]


def spare_devices(visible: Sequence[str], place: Place) -> list[str]:
    """Those of the visible devices that are no process's: there are more of them than processes on the host."""
    return [] if _rank_among_sharers(visible, place) is None else list(visible[place.local_world_size :])


def _rank_among_sharers(visible: Sequence[str], place: Place) -> int | None:
    """The local rank, where each process of the host has one of the visible devices; else None."""
    local_rank = place.launcher.local_rank if place.launcher is not None else None
    local_size = place.local_world_size
    if local_rank is None or local_size is None or not local_rank < local_size:
        return None
    return local_rank if 1 < local_size <= len(visible) else None

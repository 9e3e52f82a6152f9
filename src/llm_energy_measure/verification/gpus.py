"""The GPUs and the boards of a process: their identity, their sensor, and the power that they can draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, Scope
from llm_energy_measure.verification.boards import BoardModel, boards_named, parent_of_slice
from llm_energy_measure.verification.tools import tool_scope

UNCERTAIN = "the configuration does not show whether each process uses all GPUs of the LLM, or only some of these GPUs"
"""Reason why the number of boards of a process is only an upper limit."""

# Settings whose product is the number of GPUs that run one model.
_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "num_shards")
_TWO = 2
_HINTS = frozenset({"gpu_list", "vllm", "sharding_config", *_SIZES})


class OwnBoards(Struct, frozen=True, gc=False):
    """The boards of one process.

    Attributes:
        sensor: Text that identifies the sensors of all these boards; None if unknown.
        number: Number of boards.
        limit_w: Greatest power of the boards together, in watts; None if unknown.
        is_certain: Whether the number is exact. If not, it is the largest possible number.
    """

    sensor: str | None
    number: int
    limit_w: float | None
    is_certain: bool = True


class Gpu(Struct, frozen=True, gc=False):
    """One GPU or MIG slice, as a record names it.

    Attributes:
        sensor: Identity of its power sensor, unique within the host; None if the record does not identify the GPU.
        name: Identity of the GPU: its UUID, else its index; None if both are unknown.
        is_shared: Whether other GPUs or slices have the same sensor.
        knows_sensor: Whether the record shows which GPUs share the sensor. False for a slice or die whose board is not
            named.
        uuid: UUID of the GPU; None if unknown.
        index: Index of the GPU on the host; None if unknown.
        is_by_index: Whether the sensor is identified by an index alone.
        limit_w: Greatest power of its board, in watts: from the record, else from the table; None if unknown.
        board: Name of its board; None if unknown.
        alone: Value of `OwnBoards` for a process that uses only this GPU.
    """

    sensor: str | int | None
    name: str | int | None
    is_shared: bool
    knows_sensor: bool
    uuid: str | None
    index: int | None
    is_by_index: bool
    limit_w: float | None
    board: str | None
    alone: OwnBoards


def gpus_of(record: RawProcessResult) -> list[Gpu]:
    """Return the GPUs that a process measured: the listed devices, else the GPU of the record.

    If no listed device has an index, a UUID or an energy, the devices are the boards of the host. They are then not the
    GPUs that the process measured. With the scope `host`, devices with an energy but without index and UUID are also
    the boards of the host. With the scope `device`, listed devices are always those that the process measured.
    """
    devices = record.energy_metrics.devices
    if devices and not _are_of_host(record, devices):
        return [_listed(record, device) for device in devices]
    is_slice = bool(record.gpu_is_mig or record.gpu_mig_profile)
    return [_gpu(record.gpu_id, record.gpu_uuid, record.gpu_name, record.gpu_power_limit_w, is_slice)]


def _listed(record: RawProcessResult, device: DeviceEnergy) -> Gpu:
    name = device.gpu_name or record.gpu_name
    return _gpu(device.gpu_id, device.gpu_uuid, name, device.gpu_power_limit_w, bool(device.mig_profile))


@lru_cache(maxsize=4096)
def _gpu(index: int | None, uuid: str | None, board: str | None, limit_w: float | None, is_slice: bool) -> Gpu:  # noqa: FBT001 - lru_cache is faster with positional arguments
    model = model_of(board)
    limit = limit_w or (model.proven_limit_w if model is not None else None)
    sensor: str | int | None = uuid or index
    is_shared, knows_sensor, is_by_index = False, True, not uuid
    # NVML gives no power and no energy of a MIG slice, so tools read the whole GPU.
    if is_slice or (uuid is not None and uuid.startswith("MIG-")):
        parent = parent_of_slice(uuid) if uuid else None
        # The index is either that of the GPU, or that of the slice on the GPU.
        sensor, is_shared = (parent or (f"GPU {index}" if index is not None else uuid)), True
        knows_sensor = parent is not None
        is_by_index = parent is None and index is not None
    elif model is not None and model.gpus_per_sensor > 1:
        sensor = uuid if index is None else f"module {index // model.gpus_per_sensor}"
        is_shared, knows_sensor, is_by_index = True, index is not None, index is not None
    alone = OwnBoards(None if sensor is None else str(sensor), 1, limit)
    name = uuid or index
    return Gpu(
        sensor,
        name,
        is_shared,
        knows_sensor,
        uuid or None,
        index,
        is_by_index and index is not None,
        limit,
        board,
        alone,
    )


def gpu_scope(record: RawProcessResult) -> Scope | None:
    """Return the scope of the GPU energy of a process; None if the record does not state it."""
    energy = record.energy_metrics
    return energy.gpu_scope or energy.total_scope


def names_gpu(record: RawProcessResult) -> bool:
    """Return True if a record names a GPU. A process that reads only a CPU or a whole host names none."""
    facts = (record.gpu_id, record.gpu_uuid, record.gpu_name, record.energy_metrics.devices or None)
    return any(fact is not None for fact in facts)


class StatedBoards(Struct, frozen=True, gc=False):
    """All boards of a host, as a record states them.

    Attributes:
        number: Number of boards, more than one.
        name: Names of the boards.
        limit_w: Power that they can draw together, in watts; None if it is unknown.
        least_w: Power that the smallest of them can draw, in watts; None if it is unknown.
    """

    number: int
    name: str
    limit_w: float | None
    least_w: float | None


def host_boards(record: RawProcessResult) -> StatedBoards | None:
    """Return all boards of the host of a process; None if the record doesn't state them.

    A record states all boards by a name such as `4 x A40`. A record also states them by listed devices without index
    and UUID, if the tool is documented to list all boards of the host. The name `1 x A40` states only the board that
    the process used, and not the number of boards of the host.
    """
    devices = record.energy_metrics.devices
    tool = tool_scope(record.origin)
    if (
        devices
        and len(devices) > 1
        and tool is not None
        and tool.lists_boards_of_host
        and _are_of_host(record, devices)
    ):
        gpus = [_listed(record, device) for device in devices]
        known = [gpu.limit_w for gpu in gpus if gpu.limit_w is not None]
        name = ", ".join(sorted({gpu.board or "" for gpu in gpus}))
        limit_w = math.fsum(known) if len(known) == len(gpus) else None
        return StatedBoards(len(gpus), name, limit_w, min(known, default=None))
    named = boards_named(record.gpu_name) if record.gpu_name else None
    if named is None or not named.is_stated or named.count < _TWO:
        return None
    if named.is_mixed:
        return StatedBoards(named.count, named.model_name, named.limit_w, named.least_w)
    [gpu] = gpus_of(record)[:1]
    limit_w = None if gpu.limit_w is None else gpu.limit_w * named.count
    return StatedBoards(named.count, named.model_name, limit_w, gpu.limit_w)


def own_boards(record: RawProcessResult, gpus: Sequence[Gpu]) -> OwnBoards:
    """Return the boards of a process: its listed GPUs, or one GPU times the number in its configuration."""
    if len(gpus) == 1:
        [gpu] = gpus
        count, is_least = configured_gpus(record)
        if count == 1 and is_least:
            return gpu.alone
        limit_w = None if gpu.limit_w is None else gpu.limit_w * count
        return OwnBoards(None if gpu.sensor is None else str(gpu.sensor), count, limit_w, is_least)
    limits = {("listed", place) if gpu.sensor is None else gpu.sensor: gpu.limit_w for place, gpu in enumerate(gpus)}
    known = [limit for limit in limits.values() if limit is not None]
    sensor = None if any(gpu.sensor is None for gpu in gpus) else " + ".join(sorted(map(str, limits)))
    return OwnBoards(sensor, len(limits), math.fsum(known) if len(known) == len(limits) else None)


def configured_gpus(record: RawProcessResult) -> tuple[int, bool]:
    """Return the number of GPUs of one process from its configuration, and whether this number is exact.

    The number is 1 if the configuration states no number. The setting `gpu_list` has the GPUs of all processes. If the
    configuration states the number of GPUs of a model, a process may run the whole model or a part of the model. The
    returned number is then the largest possible number.
    """
    config = record.effective_config
    if config.keys().isdisjoint(_HINTS):
        return 1, True
    listed = config.get("gpu_list")
    processes = record.world_size or config.get("num_processes")
    processes = processes if type(processes) is int and processes > 0 else 1
    of_list = -(-len(listed) // processes) if isinstance(listed, list) else 1
    of_model = 1
    for part in (config, config.get("vllm"), config.get("sharding_config")):
        if isinstance(part, dict) and not part.keys().isdisjoint(_SIZES):
            sizes = [part.get(name) for name in _SIZES]
            of_model = max(of_model, math.prod([size for size in sizes if type(size) is int and 0 < size <= 4096]))
    return max(of_list, of_model), processes == 1 or of_model <= of_list


def _are_of_host(record: RawProcessResult, devices: Sequence[DeviceEnergy]) -> bool:
    scope = gpu_scope(record)
    return scope != "device" and all(
        device.gpu_id is None and device.gpu_uuid is None and (device.energy_j is None or scope == "host")
        for device in devices
    )


def model_of(board: str | None) -> BoardModel | None:
    """Return the model of a board; None if unknown."""
    return boards_named(board).model if board else None

"""Which GPU a reading is of, and which sensor saw it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.results.verification.boards import BoardModel, boards_named, parent_of_slice

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import DeviceEnergy


class Gpu(Struct, frozen=True):
    """One GPU, or slice of one, as a record names it.

    Attributes:
        sensor: The sensor that sees it, to be compared within its host; None if nothing identifies the GPU.
        name: The GPU itself: its UUID, else its index.
        is_shared: Whether other GPUs or slices have the same sensor.
        limit_w: What its board can draw, in watts: the record's own limit, else the table's; None if unknown.
        board: Name of its board; None if unknown.
    """

    sensor: str | int | None
    name: str | int | None
    is_shared: bool
    limit_w: float | None
    board: str | None


def gpus_of(record: RawProcessResult) -> list[Gpu]:
    """The GPUs that a process measured: those it lists, else its own."""
    devices = record.energy_metrics.devices
    if devices:
        return [_listed(record, device) for device in devices]
    is_slice = bool(record.gpu_is_mig or record.gpu_mig_profile)
    return [_gpu(record.gpu_id, record.gpu_uuid, record.gpu_name, record.gpu_power_limit_w, is_slice)]


def _listed(record: RawProcessResult, device: DeviceEnergy) -> Gpu:
    name = device.gpu_name or record.gpu_name
    return _gpu(device.gpu_id, device.gpu_uuid, name, device.gpu_power_limit_w, bool(device.mig_profile))


@lru_cache(maxsize=4096)
def _gpu(index: int | None, uuid: str | None, board: str | None, limit_w: float | None, is_slice: bool) -> Gpu:  # noqa: FBT001 - the cache hashes positions faster
    model = model_of(board)
    limit = limit_w or (model.limit_w if model is not None else None)
    sensor: str | int | None = uuid or index
    is_shared = False
    if is_slice or (uuid is not None and uuid.startswith("MIG-")):
        parent = parent_of_slice(uuid) if uuid else None
        sensor, is_shared = (parent or (f"GPU {index}" if index is not None else uuid)), True
    elif model is not None and model.gpus_per_sensor > 1 and index is not None:
        sensor, is_shared = f"module {index // model.gpus_per_sensor}", True
    return Gpu(sensor, uuid or index, is_shared, limit, board)


def model_of(board: str | None) -> BoardModel | None:
    """What the table knows of a board's name."""
    return boards_named(board).model if board else None

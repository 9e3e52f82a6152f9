"""Find the last reading of a shared sensor, so that the next process continues from exactly this counter value."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from llm_energy_measure.domain.experiment import RawProcessResult, UnreadableFile
from llm_energy_measure.domain.metrics import SensorReading
from llm_energy_measure.recorder.sources import Sensor
from llm_energy_measure.results.store.raw_folder import RawFolder
from llm_energy_measure.storage.base import Store


class LastReading(NamedTuple):
    """The last reading of an energy counter by another process of this machine.

    Attributes:
        monotonic: Instant of the reading, in seconds on the monotonic clock of this boot.
        end: The same instant on the wall clock of the other process.
        counter_j: Value of the counter, in joules.
    """

    monotonic: float
    end: datetime
    counter_j: float


def records_of(store: Store, folder: str, indices: Iterable[int]) -> list[RawProcessResult]:
    """Return the result of each process; for a process without a result, its last checkpoint."""
    raw = RawFolder(store, folder)
    found: list[RawProcessResult] = []
    for index in indices:
        record = raw.read(index)
        if isinstance(record, UnreadableFile):
            record = raw.read(index, partial=True)
        if not isinstance(record, UnreadableFile):
            found.append(record)
    return found


def last_reading(records: Iterable[RawProcessResult], sensor: Sensor, boot_id: str | None) -> LastReading | None:
    """Return the latest reading of a counter in these records; None if the sensor is no counter or has no reading."""
    readings = [
        LastReading(clock.monotonic_end_sec, window.end, reading.counter_end_j)
        for record in records
        if (clock := record.clock) is not None
        and clock.monotonic_end_sec is not None
        and boot_id is not None
        and clock.boot_id == boot_id
        and (window := record.energy_metrics.window) is not None
        and window.end is not None
        for reading in record.energy_metrics.sensors or ()
        if reading.counter_end_j is not None and _is_same(record, reading, sensor)
    ]
    return max(readings, default=None)


def _is_same(record: RawProcessResult, reading: SensorReading, sensor: Sensor) -> bool:
    """Return True if a reading is of this sensor, or of another MIG slice of the same board."""
    if reading.source != sensor.source:
        return False
    if reading.instance == sensor.instance:
        return True
    own = sensor.device
    if own is None or own.mig_profile is None or own.gpu_id is None:
        return False
    devices = record.energy_metrics.devices or ()
    board = (own.gpu_id, own.gpu_name)
    return any(
        device.gpu_uuid == reading.instance
        and device.mig_profile is not None
        and (device.gpu_id, device.gpu_name) == board
        for device in devices
    )

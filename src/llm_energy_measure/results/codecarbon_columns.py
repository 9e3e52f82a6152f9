"""Raw records as rows of CodeCarbon's `emissions.csv`, in the columns of its version 3.3.0, for tools that read those.

Energy is in kWh, the time stamp is the end, unknown is blank. What a record does not hold and CodeCarbon does (place,
machine, utilisation) comes from the record's configuration where it was imported from there.

Source: CodeCarbon's file output, version 3.3.0.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import CODECARBON_COLUMN_NAMES
from llm_energy_measure.domain.units import JOULES_PER_KWH, j_to_kwh, ratio
from llm_energy_measure.results.columns import Column

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from llm_energy_measure.domain.experiment import RawProcessResult

TOOL = "codecarbon"


def kwh_of(energy_j: float | None) -> float | None:
    """Energy in kWh that gives the very same joules again, where there is such a number.

    Example:
        >>> kwh_of(1800000.0), kwh_of(None)
        (0.5, None)
    """
    if energy_j is None:
        return None
    kwh = j_to_kwh(energy_j)
    near = (kwh, math.nextafter(kwh, math.inf), math.nextafter(kwh, 0.0))
    return next((value for value in near if value * JOULES_PER_KWH == energy_j), kwh)


def _imported(record: RawProcessResult) -> dict[str, Any]:
    """What CodeCarbon said of an imported record beside its figures."""
    found = record.effective_config.get(TOOL)
    return found if isinstance(found, dict) else {}


def _duration(record: RawProcessResult) -> float | None:
    """Length of the energy window, else of the run, in seconds."""
    window = record.energy_metrics.duration_sec
    return record.timestamps.duration_sec if window is None else window


def _end(record: RawProcessResult) -> datetime | None:
    """End of the energy window, else of the run; the start of the one says nothing of the end of the other."""
    window, run = record.energy_metrics.window, record.timestamps
    start, end, duration = (
        (run.start, run.end, run.duration_sec)
        if window is None
        else (window.start, window.end, record.energy_metrics.duration_sec)
    )
    if end is None and start is not None and duration is not None:
        return start + timedelta(seconds=duration)
    return end


def has_codecarbon_row(record: RawProcessResult) -> bool:
    """True if the end and the duration of a record are known, without which no row of CodeCarbon can be read."""
    return _end(record) is not None and _duration(record) is not None


def _mode(record: RawProcessResult) -> str | None:
    energy = record.energy_metrics
    if energy.total_scope == "host":
        return "machine"
    return "process" if energy.ram_scope == "process" else None


def _boards(record: RawProcessResult) -> str | None:
    devices = record.energy_metrics.devices
    if not devices or record.gpu_name is None:
        return record.gpu_name
    return f"{len(devices)} x {record.gpu_name}"


def _count(record: RawProcessResult) -> int | None:
    devices = record.energy_metrics.devices
    return len(devices) if devices else None


def _version(record: RawProcessResult) -> str | None:
    return record.origin.version if record.origin is not None and record.origin.tool == TOOL else None


_GETTERS: dict[str, Callable[[RawProcessResult], object]] = {
    "timestamp": _end,
    "project_name": lambda record: record.config_name,
    "duration": _duration,
    "emissions": lambda record: record.energy_metrics.emissions_kg_co2,
    "cpu_power": lambda record: record.energy_metrics.cpu_power_w,
    "gpu_power": lambda record: record.energy_metrics.gpu_power_w,
    "cpu_energy": lambda record: kwh_of(record.energy_metrics.cpu_energy_j),
    "gpu_energy": lambda record: kwh_of(record.energy_metrics.gpu_energy_j),
    "ram_energy": lambda record: kwh_of(record.energy_metrics.ram_energy_j),
    "energy_consumed": lambda record: kwh_of(record.energy_metrics.total_energy_j),
    "codecarbon_version": _version,
    "gpu_model": _boards,
    # CodeCarbon's word for a cloud that it did not find, known or not; it leaves it blank in no row.
    "on_cloud": lambda record: _imported(record).get("on_cloud") or "N",
}
# What an imported record kept as it was, and any other has to be asked for.
_ELSE: dict[str, Callable[[RawProcessResult], object]] = {
    # Each process is a run: rows of one run would be cumulative.
    "run_id": lambda record: f"{record.experiment_id}-process_{record.process_index}",
    "experiment_id": lambda record: record.experiment_id,
    "emissions_rate": lambda record: ratio(record.energy_metrics.emissions_kg_co2, _duration(record)),
    "gpu_count": _count,
    "tracking_mode": _mode,
}


def _column(name: str) -> Column[RawProcessResult]:
    def kept(record: RawProcessResult) -> object:
        imported = _imported(record)
        return imported.get(name) if imported or name not in _ELSE else _ELSE[name](record)

    return Column(name, "text", "", _GETTERS.get(name, kept))


CODECARBON_COLUMNS: tuple[Column[RawProcessResult], ...] = tuple(_column(name) for name in CODECARBON_COLUMN_NAMES)

"""Import power logs: samples of the power of each GPU, as `nvidia-smi --query-gpu --format=csv` writes them.

A log contains no energy. The energy of each GPU is the integral of its power by the trapezoidal rule, between the first
and the last sample or in a window that the user states. A missing sample is never 0. A long gap is bridged, and the
record says so.

Source: nvidia-smi, `--query-gpu=timestamp,index,power.draw --format=csv[,nounits] -l 1`; tables with one power column,
or with one column per GPU (`timestamp,GPU0,GPU1`).
"""

from __future__ import annotations

import itertools
import re
import statistics
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import SAMPLING_GAP, DeviceEnergy, EnergyMetrics, SensorReading, Timestamps
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import component, imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource, split_row
from llm_energy_measure.importers.values import from_epoch, identifier, parse_number, parse_time

TOOL = "power-log"

_TIMES = ("timestamp", "timestamp_s", "timestamp_unix", "time")
_DEVICES = ("uuid", "gpu_uuid", "index", "gpu_index", "gpu")
_DRAW = re.compile(r"power\.draw(?:\.instant|\.average)?(?: \[W\])?")
_POWER = re.compile(r"(?!.*(?:limit|cap|max|min|avg_total)).*power.*(?:_w|_watts| \[w\])", re.IGNORECASE)
_WIDE = re.compile(r"GPU ?([0-9]{1,3})", re.IGNORECASE)
_MISSING = ("", "n/a", "[n/a]", "[not supported]", "[unknown error]", "nan", "-")
_GAP_SEC, _GAP_FACTOR = 3.0, 3.0
"""A gap is longer than 3 s and than 3 intervals. Source: InferenceX `aggregate_power.py`, which uses 3 s."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a local time without zone is counted from a local epoch


class _Columns(NamedTuple):
    """Positions of the columns; `powers` has the GPU index of each power column, if the columns state one."""

    time: int
    device: int | None
    powers: dict[int, str | None]


class _Trace(msgspec.Struct):
    """The samples of one GPU, in file order: seconds since an epoch, and watts."""

    times: array[float]
    powers: array[float]


class _Integral(NamedTuple):
    """Energy of one GPU in joules, its window in seconds since the epoch, number of samples, and gaps in seconds."""

    energy_j: float
    start: float
    end: float
    samples: int
    gaps: list[float]


def _columns(header: Sequence[str]) -> _Columns | None:
    """Return the columns of a power log; None if the header is of another table."""
    time = next((header.index(name) for name in _TIMES if name in header), None)
    if time is None or "energy_consumed" in header:
        return None
    wide = {position: match[1] for position, name in enumerate(header) if (match := _WIDE.fullmatch(name))}
    if wide and len(wide) == len(header) - 1:
        return _Columns(time, None, dict(wide))
    draws = sorted(name for name in header if _DRAW.fullmatch(name)) or [
        name for name in header if _POWER.fullmatch(name)
    ]
    if not draws:
        return None
    device = next((header.index(name) for name in _DEVICES if name in header), None)
    # Two columns of power.draw are the same power twice. The shortest name is the plain one.
    return _Columns(time, device, {header.index(min(draws, key=len)): None})


def _recognises(source: ImportSource) -> bool:
    if _columns(source.header) is not None:
        return True
    return _is_without_header(source.header)


def _is_without_header(header: Sequence[str]) -> bool:
    """True if the first line is a row of `nvidia-smi --format=csv,noheader`."""
    return len(header) > 1 and any(cell.endswith(" W") for cell in header) and any(map(parse_time, header))


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for the log."""
    [source] = sources
    columns = _columns(source.header)
    if columns is None:
        found = "the log has no header, so its columns are unknown"
        raise RefusedInputError("missing_field", f"{found}; add the names of --query-gpu as the first line")
    notes = Notes()
    traces, is_utc = _traces(source, columns, notes)
    known = {device: trace for device, trace in traces.items() if trace.times}
    if not known:
        raise RefusedInputError("no_measurement", "no row has a time and a power; check the columns of the query")
    integrals = {device: _integral(device, trace, options, is_utc=is_utc) for device, trace in known.items()}
    for device in traces.keys() - known.keys():
        notes.warn("partial_total", f"GPU {device} has no power, so the total is without it", is_repair=True)
    yield report.record(source.path, _record(source, columns, integrals, notes, is_utc=is_utc), notes)


def _traces(source: ImportSource, columns: _Columns, notes: Notes) -> tuple[dict[str, _Trace], bool]:
    """Return the samples of each GPU, and whether the times are in UTC."""
    traces: dict[str, _Trace] = {}
    ignored, zones, header = 0, set(), source.header
    for _, text in source.rows():
        cells = [cell.strip() for cell in split_row(text) or []]
        if cells == header:  # a restarted log repeats its header
            continue
        moment = _moment(cells[columns.time]) if len(cells) == len(header) else None
        if moment is None:
            ignored += 1
            continue
        zones.add(moment[1])
        for position, index in columns.powers.items():
            device = index or (cells[columns.device] if columns.device is not None else "")
            trace = traces.setdefault(device, _Trace(array("d"), array("d")))
            cell = cells[position].removesuffix("W").strip()
            power_w = parse_number(cell)
            if power_w is not None and power_w >= 0:
                trace.times.append(moment[0])
                trace.powers.append(power_w)
            elif cell.casefold() not in _MISSING:
                ignored += 1
    if len(zones) > 1:
        raise RefusedInputError("impossible_value", "some times have a UTC offset and others do not; use one form")
    if ignored:
        notes.repair("damaged_cells", f"{ignored} rows without a valid time or power were left out")
    return traces, zones == {True}


def _moment(cell: str) -> tuple[float, bool] | None:
    """Return a time in seconds since its epoch, and whether it is in UTC; None if the cell is no time."""
    number = parse_number(cell)
    moment = parse_time(cell) if number is None else from_epoch(number)
    if moment is None:
        return None
    if moment.tzinfo is None:
        return (moment - _EPOCH).total_seconds(), False
    return moment.timestamp(), True


def _integral(device: str, trace: _Trace, options: Options, *, is_utc: bool) -> _Integral:
    """Return the energy of one GPU by the trapezoidal rule; equal times are averaged.

    Raises:
        RefusedInputError: The samples do not cover the window, the clock went back, or several GPUs have no index.
    """
    samples: dict[float, list[float]] = {}
    for moment, power_w in zip(trace.times, trace.powers, strict=True):
        samples.setdefault(moment, []).append(power_w)
    if not device and len(samples) < 0.9 * len(trace.times):
        found = "several rows have the same time, but no column names the GPU"
        raise RefusedInputError("missing_field", f"{found}; log index or uuid too (--query-gpu=timestamp,index,...)")
    back_sec = max((one - other for one, other in itertools.pairwise(trace.times)), default=0.0)
    if back_sec > _GAP_SEC:
        found = f"the clock of GPU {device or '0'} went back by {back_sec:.0f} s"
        raise RefusedInputError("impossible_value", f"{found}; split the log there, and import both parts")
    points = sorted((moment, statistics.fmean(powers)) for moment, powers in samples.items())
    steps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(points)]
    limit_sec = max(_GAP_SEC, _GAP_FACTOR * statistics.median(steps)) if steps else _GAP_SEC
    points = _in_window(device, points, options, is_utc=is_utc)
    energy_j, gaps = 0.0, []
    for (start, power_w), (end, next_w) in itertools.pairwise(points):
        energy_j += (end - start) * (power_w + next_w) / 2
        if end - start > limit_sec:
            gaps.append(end - start)
    if len(points) < 2:
        raise RefusedInputError("no_measurement", f"GPU {device or '0'} has one sample; an energy needs two")
    return _Integral(energy_j, points[0][0], points[-1][0], len(points), gaps)


def _in_window(
    device: str, points: list[tuple[float, float]], options: Options, *, is_utc: bool
) -> list[tuple[float, float]]:
    """Return the samples in the stated window, with the power at its edges by linear interpolation."""
    low, high = (_edge(moment, is_utc=is_utc) for moment in (options.window_start, options.window_end))
    low, high = points[0][0] if low is None else low, points[-1][0] if high is None else high
    if not points[0][0] <= low < high <= points[-1][0] and (options.window_start or options.window_end):
        found = f"the samples of GPU {device or '0'} do not cover the window from --from to --to"
        raise RefusedInputError("impossible_value", f"{found}; use a window inside the log")
    inside = [point for point in points if low < point[0] < high]
    return [(low, _power_at(points, low)), *inside, (high, _power_at(points, high))] if high > low else points


def _edge(moment: datetime | None, *, is_utc: bool) -> float | None:
    """Return an edge of the window in seconds since the epoch of the log."""
    if moment is None:
        return None
    if (moment.tzinfo is not None) != is_utc:
        form = "with" if is_utc else "without"
        raise RefusedInputError(
            "impossible_value", f"write --from and --to {form} a UTC offset, as the times of the log"
        )
    return moment.timestamp() if is_utc else (moment - _EPOCH).total_seconds()


def _power_at(points: list[tuple[float, float]], moment: float) -> float:
    """Return the power at a moment between the first and the last sample."""
    for (start, power_w), (end, next_w) in itertools.pairwise(points):
        if start <= moment <= end:
            return power_w + (next_w - power_w) * (moment - start) / (end - start)
    return points[-1][1]


def _record(
    source: ImportSource, columns: _Columns, integrals: dict[str, _Integral], notes: Notes, *, is_utc: bool
) -> RawProcessResult:
    devices, sensors = [], []
    for device, found in integrals.items():
        index = int(device) if device.isdecimal() else None
        uuid = device if device.startswith(("GPU-", "MIG-")) else None
        devices.append(DeviceEnergy(gpu_id=index, gpu_uuid=uuid, energy_j=found.energy_j, provenance="integrated"))
        if found.gaps:
            what = f"GPU {device or '0'} has {len(found.gaps)} gaps of up to {max(found.gaps):.1f} s"
            notes.warn("sampling_gap", f"{what}, in which the power is interpolated")
        sensors.append(
            SensorReading(
                source=TOOL,
                instance=device or None,
                component="gpu",
                scope="device",
                provenance="integrated",
                energy_j=found.energy_j,
                samples=found.samples,
                sampling_rate_hz=(found.samples - 1) / (found.end - found.start),
                problems=[SAMPLING_GAP] if found.gaps else [],
            )
        )
    start, end = min(found.start for found in integrals.values()), max(found.end for found in integrals.values())
    total_j = sum(found.energy_j for found in integrals.values())
    epoch = _EPOCH.replace(tzinfo=UTC) if is_utc else _EPOCH
    span = Timestamps(
        start=epoch + timedelta(seconds=start), end=epoch + timedelta(seconds=end), duration_sec=end - start
    )
    column = ", ".join(source.header[position] for position in columns.powers)
    return imported_record(
        identifier(TOOL, source.sha256[:12], f"{span.start:%Y%m%dT%H%M%S}", f"{end - start:.3f}s"),
        gpu_id=devices[0].gpu_id if len(devices) == 1 else None,
        gpu_uuid=devices[0].gpu_uuid if len(devices) == 1 else None,
        energy_measurement_warning=notes.warning,
        timestamps=span,
        energy_metrics=EnergyMetrics(
            **component("total", total_j, "device", "integrated"),
            **component("gpu", total_j, "device", "integrated"),
            duration_sec=end - start,
            gpu_power_w=total_j / (end - start),
            devices=devices,
            sensors=sensors,
        ),
        effective_config={TOOL: {"power_column": column}},
        origin=source.origin(TOOL),
    )


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header with timestamp and power.draw [W], another power in W, or GPU0, GPU1",
    recognises=_recognises,
    read=_read,
)

"""Import power logs: samples of the power of each GPU, or of a server.

Most logs contain no energy. The energy of each device is the integral of its power by the trapezoidal rule, between the
first and the last sample or in a window. If the log has an energy counter, the energy is the difference of its values.
A missing sample is never 0. A long gap is bridged, and the record says so.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics, Timestamps
from llm_energy_measure.domain.power_trace import GAP_SEC, CounterTrace, PowerLog, PowerTrace, mean_of_equal_times
from llm_energy_measure.importers.aiperf_telemetry import is_telemetry, read_telemetry
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.power_energy import energy_in_window, window_of
from llm_energy_measure.importers.power_rows import (
    EPOCH,
    Columns,
    Sample,
    find_columns,
    is_without_header,
    read_samples,
    stated_columns,
)
from llm_energy_measure.importers.record_parts import imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import identifier

TOOL = "power-log"
_COUNTER, _TEMPERATURE, _CLOCK = range(3)
_MOST_RESOLUTION = 6
"""Decimals of a second that are kept. A double has no more for the time since 1970."""


class _Device(msgspec.Struct):
    """Samples of one device in file order: `nan` is unknown."""

    moments: array[float] = msgspec.field(default_factory=lambda: array("d"))
    powers: array[float] = msgspec.field(default_factory=lambda: array("d"))
    others: list[array[float]] = msgspec.field(default_factory=lambda: [array("d"), array("d"), array("d")])
    throttles: list[str] = []
    has_throttle: bool = False
    uuid: str = ""

    def add(self, sample: Sample) -> None:
        """Append a sample; equal texts share their memory."""
        self.moments.append(math.nan if sample.moment is None else sample.moment)
        self.powers.append(math.nan if sample.power_w is None else sample.power_w)
        for column, value in zip(self.others, (sample.counter_j, sample.temperature_c, sample.clock_mhz), strict=True):
            column.append(math.nan if value is None else value)
        self.uuid = self.uuid or sample.uuid
        self.has_throttle = self.has_throttle or bool(sample.throttle)
        same = self.throttles and self.throttles[-1] == sample.throttle
        self.throttles.append(self.throttles[-1] if same else sample.throttle)


class _Log(msgspec.Struct):
    """The devices by host and name, whether the times are in UTC, and whether the rows have times."""

    devices: dict[str | None, dict[str, _Device]]
    is_utc: bool
    has_times: bool


def _recognises(source: ImportSource) -> bool:
    return is_without_header(source) or find_columns(source) is not None or is_telemetry(source)


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each host in the log."""
    [source] = sources
    columns = stated_columns(options.columns) if options.columns else find_columns(source)
    if is_telemetry(source):
        columns = Columns(names=("telemetry_data",), powers={0: None})
    if columns is None:
        found = "the log has no header, so its columns are unknown"
        raise RefusedInputError(
            "missing_field", f"{found}; pass the names of --query-gpu, such as --columns timestamp,index,power.draw"
        )
    ignored: list[int] = []
    log = _read_log(source, columns, ignored, is_stated=bool(options.columns))
    experiment_id = identifier(TOOL, source.sha256[:12], *_window_words(options))
    config = {TOOL: {"power_column": ", ".join(columns.names[position] for position in columns.powers)}}
    for index, (host, devices) in enumerate(log.devices.items()):
        notes = Notes()
        if ignored:
            lines = f"line {ignored[0]}" if len(ignored) == 1 else f"{len(ignored)} lines from {ignored[0]}"
            notes.repair("damaged_cells", f"rows without a valid time or power were left out ({lines})")
        span, energy = _measured(log, devices, options, notes, is_host=columns.is_host)
        known = energy.devices or []
        record = imported_record(
            experiment_id,
            process_index=index,
            host=host or None,
            gpu_id=known[0].gpu_id if len(known) == 1 else None,
            gpu_uuid=known[0].gpu_uuid if len(known) == 1 else None,
            energy_measurement_warning=notes.warning,
            timestamps=span,
            energy_metrics=energy,
            effective_config=config,
            origin=source.origin(TOOL),
        )
        yield report.record(source.path, record, notes)


def _window_words(options: Options) -> list[str]:
    """Return the window that the user stated, as parts of the experiment id."""
    edges = (("from", options.window_start), ("to", options.window_end))
    return [f"{name}-{edge:%Y%m%dT%H%M%S}" for name, edge in edges if edge is not None]


def _read_log(source: ImportSource, columns: Columns, ignored: list[int], *, is_stated: bool) -> _Log:
    """Return the samples of a log by host and device."""
    devices: dict[str | None, dict[str, _Device]] = {}
    zones: set[bool] = set()
    timed = untimed = 0
    samples = read_telemetry(source, ignored) if is_telemetry(source) else None
    for sample in samples or read_samples(source, columns if is_stated else None, ignored):
        if sample.moment is not None:
            zones.add(sample.is_utc)
            timed += 1
        else:
            untimed += 1
        # Each power column of a table of servers is a host.
        host = sample.device if columns.is_host else sample.host
        devices.setdefault(host, {}).setdefault(sample.device, _Device(throttles=[])).add(sample)
    if len(zones) > 1:
        raise RefusedInputError("impossible_value", "some times have a UTC offset and others do not; use one form")
    if timed and untimed:
        raise RefusedInputError("impossible_value", f"{untimed} rows have no time, and {timed} have one; split the log")
    for found in devices.values():
        # DCGM lists the instances of a GPU next to the GPU, which includes their energy.
        if any(name.isdecimal() for name in found):
            for name in [name for name in found if name.startswith("GPU-") and " " in name]:
                del found[name]
    return _Log(devices=devices, is_utc=zones == {True}, has_times=timed > 0)


def _measured(
    log: _Log, devices: dict[str, _Device], options: Options, notes: Notes, *, is_host: bool
) -> tuple[Timestamps, EnergyMetrics]:
    """Return the window of one host and its energy, and put the samples of the window into the notes."""
    low, high = (_edge(moment, log) for moment in (options.window_start, options.window_end))
    if not log.has_times:
        for name, device in devices.items():
            _set_times(name, device, low, high)
    if low is not None and high is not None:
        devices = {name: _segment(device, low, high) for name, device in devices.items()}
    first = min((min(device.moments) for device in devices.values() if device.moments), default=0.0)
    origin = first if low is None else low
    power_log = PowerLog(
        traces=[trace for name, device in devices.items() if (trace := _trace(name, device, origin))],
        counters=[counter for name, device in devices.items() if (counter := _counter(name, device, origin))],
        uuids={name: device.uuid for name, device in devices.items() if device.uuid.startswith(("GPU-", "MIG-"))},
        is_host=is_host,
    )
    for name in devices.keys() - {trace.device for trace in power_log.series}:
        notes.warn("partial_total", f"GPU {name} has no power, so the total is without it", is_repair=True)
    start, end = window_of(power_log)
    start, end = (start if low is None else 0.0), (end if high is None else high - origin)
    is_stated = low is not None or high is not None
    energy, power_log = energy_in_window(power_log, (start, end) if is_stated else None, notes)
    if not log.has_times and not is_stated:  # only the difference of a counter is known
        energy = msgspec.structs.replace(energy, duration_sec=None, gpu_power_w=None)
        return Timestamps(start=None, end=None, duration_sec=None), energy
    notes.power_log = power_log
    epoch = EPOCH.replace(tzinfo=UTC) if log.is_utc else EPOCH
    edges = [epoch + timedelta(seconds=origin + edge) for edge in (start, end)]
    return Timestamps(start=edges[0], end=edges[1], duration_sec=end - start), energy


def _edge(moment: datetime | None, log: _Log) -> float | None:
    """Return an edge of the window in seconds since the epoch of the log."""
    if moment is None:
        return None
    if (moment.tzinfo is not None) != log.is_utc and log.has_times:
        form = "with" if log.is_utc else "without"
        found = f"write --from and --to {form} a UTC offset, as the times of the log"
        raise RefusedInputError("impossible_value", found)
    return (moment.replace(tzinfo=None) - EPOCH).total_seconds() if moment.tzinfo is None else moment.timestamp()


def _set_times(name: str, device: _Device, low: float | None, high: float | None) -> None:
    """Give equal intervals to the rows of a device in a log without times, from the first to the last row.

    If the window is unknown, the times are the numbers of the rows; only a counter can be read then.
    """
    number = len(device.moments)
    if low is None or high is None:
        if all(math.isnan(value) for value in device.others[_COUNTER]):
            found = "the rows have no time"
            advice = "pass --from and --to with the times of the first and the last row, or log the time (dmon -o DT)"
            raise RefusedInputError("missing_field", f"{found}; {advice}")
        low, high = 0.0, float(number - 1)
    if number < 2 or high <= low:
        raise RefusedInputError("no_measurement", f"GPU {name or '0'} has one sample; an energy needs two")
    device.moments = array("d", (low + (high - low) * index / (number - 1) for index in range(number)))


def _segment(device: _Device, low: float, high: float) -> _Device:
    """Return the only part between two steps back of the clock that covers the window; all samples without one."""
    moments = device.moments
    cuts = [index for index in range(1, len(moments)) if moments[index - 1] - moments[index] > GAP_SEC]
    parts = [
        slice(start, end)
        for start, end in itertools.pairwise([0, *cuts, len(moments)])
        if moments[start] <= low and high <= moments[end - 1]
    ]
    if not cuts or len(parts) != 1:
        return device
    [part] = parts
    return msgspec.structs.replace(
        device,
        moments=moments[part],
        powers=device.powers[part],
        others=[column[part] for column in device.others],
        throttles=device.throttles[part],
    )


def _relative(device: _Device, name: str, origin: float) -> array[float]:
    """Return the times of a device since the origin. Raise if several GPUs are one device, or the clock went back."""
    times = array("d", (round(moment - origin, _MOST_RESOLUTION) for moment in device.moments))
    if not name and len(set(times)) < 0.9 * len(times):
        found = "several rows have the same time, but no column names the GPU"
        raise RefusedInputError("missing_field", f"{found}; log index or uuid too (--query-gpu=timestamp,index,...)")
    back_sec = max((one - other for one, other in itertools.pairwise(times)), default=0.0)
    if back_sec > GAP_SEC:
        found = f"the clock of GPU {name or '0'} went back by {back_sec:.0f} s"
        raise RefusedInputError("impossible_value", f"{found}; pass --from and --to of the part before or after it")
    return times


def _trace(name: str, device: _Device, origin: float) -> PowerTrace | None:
    """Return the power samples of a device; None if no row has a power."""
    known = [index for index, value in enumerate(device.powers) if not math.isnan(value)]
    if not known:
        return None
    relative = _relative(device, name, origin)
    times = array("d", (relative[index] for index in known))
    columns = [
        array("d", (column[index] for index in known))
        for column in (device.powers, device.others[_TEMPERATURE], device.others[_CLOCK])
    ]
    merged, powers, temperatures, clocks = mean_of_equal_times(times, columns)
    throttles = None
    if device.has_throttle:
        text_of = {times[number]: device.throttles[index] for number, index in enumerate(known)}
        throttles = [text_of[moment] for moment in merged]
    return PowerTrace(
        device=name,
        times=merged,
        powers=powers,
        temperatures=None if all(map(math.isnan, temperatures)) else temperatures,
        clocks=None if all(map(math.isnan, clocks)) else clocks,
        throttles=throttles,
    )


def _counter(name: str, device: _Device, origin: float) -> CounterTrace | None:
    """Return the counter of a device; None if fewer than two rows have one."""
    values = device.others[_COUNTER]
    known = [index for index, value in enumerate(values) if not math.isnan(value)]
    if len(known) < 2:
        return None
    relative = _relative(device, name, origin)
    times = array("d", (relative[index] for index in known))
    merged, joules = mean_of_equal_times(times, [array("d", (values[index] for index in known))])
    return CounterTrace(device=name, times=merged, joules=joules)


FORMAT = Format(
    name=TOOL,
    looks_for="a header of nvidia-smi, dmon, dcgmi or amd-smi with a power, or a CSV with a time and a power in W",
    recognises=_recognises,
    read=_read,
    covers="device, or host for servers; integrated, or measured with a counter",
    unknown="model, tokens, host",
)

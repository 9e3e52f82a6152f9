"""Import power logs: samples of the power of each GPU, or of a server.

Most logs contain no energy. The energy of each device is the integral of its power by the trapezoidal rule, between the
first and the last sample or in a window. If the log has an energy counter, the energy is the increase of the counter.
A missing sample never counts as 0. In a gap, the power is interpolated, and the record has a warning; a gap is longer
than `GAP_SEC` and than `GAP_FACTOR` times the median interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics, Timestamps
from llm_energy_measure.domain.power_trace import PowerLog
from llm_energy_measure.importers.aiperf_telemetry import is_telemetry, read_telemetry
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.power_energy import energy_in_window, window_of
from llm_energy_measure.importers.power_rows import (
    EPOCH,
    Columns,
    IgnoredRows,
    find_columns,
    is_without_header,
    read_samples,
    stated_columns,
)
from llm_energy_measure.importers.power_series import (
    DeviceRows,
    Readings,
    counter_of,
    segment_of,
    trace_of,
    with_equal_intervals,
)
from llm_energy_measure.importers.record_parts import imported_record
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.sample_file import SampleFile
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import identifier

TOOL = "power-log"


class _Log(msgspec.Struct):
    """The samples of each device, by host and device name. The times are local times if `is_utc` is False."""

    devices: dict[str | None, dict[str, Readings]]
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
    ignored = IgnoredRows()
    log = _read_log(source, columns, ignored, is_stated=bool(options.columns))
    experiment_id = identifier(TOOL, source.sha256[:12], *_window_words(options))
    config = {TOOL: {"power_column": ", ".join(columns.names[position] for position in columns.powers)}}
    for index, (host, devices) in enumerate(log.devices.items()):
        notes = Notes()
        if ignored.number:
            lines = f"line {ignored.first}" if ignored.number == 1 else f"{ignored.number} lines from {ignored.first}"
            found = "rows without a valid time or power, or with a wrong number of cells, were left out"
            notes.repair("damaged_cells", f"{found} ({lines})")
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


def _read_log(source: ImportSource, columns: Columns, ignored: IgnoredRows, *, is_stated: bool) -> _Log:
    """Return the samples of a log by host and device."""
    rows: dict[str | None, dict[str, DeviceRows]] = {}
    file, texts = SampleFile(), {"": 0}
    zones: set[bool] = set()
    timed = untimed = 0
    samples = read_telemetry(source, ignored) if is_telemetry(source) else None
    for sample in samples or read_samples(source, columns if is_stated else None, ignored):
        if sample.moment is not None:
            zones.add(sample.is_utc)
            timed += 1
        else:
            untimed += 1
        # In a table with one power column per server, each of these columns is a host.
        host = sample.device if columns.is_host else sample.host
        of_host = rows.setdefault(host, {})
        if (of_device := of_host.get(sample.device)) is None:
            of_device = of_host[sample.device] = DeviceRows(file, texts)
        of_device.add(sample)
    if len(zones) > 1:
        raise RefusedInputError("impossible_value", "some times have a UTC offset and others do not; use one form")
    if timed and untimed:
        raise RefusedInputError("impossible_value", f"{untimed} rows have no time, and {timed} have one; split the log")
    devices = {host: {name: one.readings() for name, one in found.items()} for host, found in rows.items()}
    for found in devices.values():
        # DCGM lists a GPU and its instances. The energy of the GPU includes the energy of the instances.
        if any(name.isdecimal() for name in found):
            for name in [name for name in found if name.startswith("GPU-") and " " in name]:
                del found[name]
    return _Log(devices=devices, is_utc=zones == {True}, has_times=timed > 0)


def _measured(
    log: _Log, devices: dict[str, Readings], options: Options, notes: Notes, *, is_host: bool
) -> tuple[Timestamps, EnergyMetrics]:
    """Return window and energy of one host, and add the samples of the window to the notes."""
    low, high = (_edge(moment, log) for moment in (options.window_start, options.window_end))
    if not log.has_times:
        devices = {name: with_equal_intervals(device, name, low, high) for name, device in devices.items()}
    if low is not None and high is not None:
        devices = {name: segment_of(device, low, high) for name, device in devices.items()}
    first = min((min(device.moments) for device in devices.values() if device.moments), default=0.0)
    origin = first if low is None else low
    file = SampleFile()
    traces = [trace_of(device, name, origin, file) for name, device in devices.items()]
    counters = [counter_of(device, name, origin, file) for name, device in devices.items()]
    power_log = PowerLog(
        traces=[trace for trace in traces if trace is not None],
        counters=[counter for counter in counters if counter is not None],
        uuids={name: device.uuid for name, device in devices.items() if device.uuid.startswith(("GPU-", "MIG-"))},
        is_host=is_host,
    )
    for name in devices.keys() - {trace.device for trace in power_log.series}:
        notes.warn("partial_total", f"GPU {name} has no power, so the total does not include this GPU", is_repair=True)
    start, end = window_of(power_log)
    start, end = (start if low is None else 0.0), (end if high is None else high - origin)
    is_stated = low is not None or high is not None
    energy, power_log = energy_in_window(power_log, (start, end) if is_stated else None, notes)
    if not log.has_times and not is_stated:  # a counter without times has an increase, but no duration
        energy = msgspec.structs.replace(energy, duration_sec=None, gpu_power_w=None)
        return Timestamps(start=None, end=None, duration_sec=None), energy
    notes.power_log = power_log
    epoch = EPOCH.replace(tzinfo=UTC) if log.is_utc else EPOCH
    edges = [epoch + timedelta(seconds=origin + edge) for edge in (start, end)]
    return Timestamps(start=edges[0], end=edges[1], duration_sec=end - start), energy


def _edge(moment: datetime | None, log: _Log) -> float | None:
    """Return an edge of the window in seconds since 1970, in UTC or in the local time of the log."""
    if moment is None:
        return None
    if (moment.tzinfo is not None) != log.is_utc and log.has_times:
        form = "with" if log.is_utc else "without"
        found = f"write --from and --to {form} a UTC offset, like the times of the log"
        raise RefusedInputError("impossible_value", found)
    return (moment.replace(tzinfo=None) - EPOCH).total_seconds() if moment.tzinfo is None else moment.timestamp()


FORMAT = Format(
    name=TOOL,
    looks_for="a header of nvidia-smi, dmon, dcgmi or amd-smi with a power, or a CSV with a time and a power in W",
    recognises=_recognises,
    read=_read,
    covers="device, or host for servers; integrated, or measured with a counter",
    unknown="model, tokens, host",
)

"""`read`: import a file or folder of another tool as records, together with the report of the import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from llm_energy_measure.constants import MAX_FILE_BYTES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.energy_join import EnergyJoin
from llm_energy_measure.importers.file_content import Progress
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import MAX_FILES
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.importers.registry import formats_named
from llm_energy_measure.importers.report import Entry, ImportReport
from llm_energy_measure.importers.scan import Scan, is_folder
from llm_energy_measure.importers.texts import without_texts
from llm_energy_measure.importers.values import parse_time


class ImportedRecords:
    """The records of a file or folder, which can be iterated over once, and the report of the import.

    Attributes:
        report: The report. It grows during the iteration, and is complete after the last record.
    """

    def __init__(self, records: Iterator[RawProcessResult], report: ImportReport) -> None:
        self.report = report
        self._records = records

    def __iter__(self) -> Iterator[RawProcessResult]:
        """Yield the records; the records of one experiment follow each other."""
        return self._records

    def with_entries(self) -> Iterator[tuple[RawProcessResult, Entry]]:
        """Yield each record with its entry in the report. A caller that refuses the record may change the entry."""
        for record in self._records:
            yield record, self.report.entries[-1]


def read(
    path: str | Path | Sequence[str | Path],
    *,
    format: str | Format | Sequence[Format] = "auto",  # noqa: A002 - the same word as --format
    host: str | None = None,
    gpu_uuids: Sequence[str] = (),
    mapping: Sequence[str] = (),
    join: Sequence[RawProcessResult] | EnergyJoin = (),
    rows_path: str | None = None,
    group_by: str | None = None,
    window: tuple[str | None, str | None] = (None, None),
    columns: Sequence[str] = (),
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_FILE_BYTES,
    progress: Progress | None = None,
) -> ImportedRecords:
    """Import a file or folder of another tool, and report what was read.

    The report lists all problems of the content. If `path` is a single file of an unknown format, an exception is
    raised before the iteration begins. Unknown values are None in every field.

    Args:
        path: A file or a folder, or a sequence of files and folders. A folder is read with its subfolders. In a
            sequence, each problem of a path is an entry of the report, and CodeCarbon's files are read together.
        format: Name of the format, or one or more `Format` objects; `auto` recognises the format from the content.
        host: Name of the measured machine, for files that do not state it.
        gpu_uuids: UUIDs of the GPUs of this machine, by index.
        mapping: For a generic table, `FIELD=EXPRESSION` for each field, such as `energy_j=energy_kwh*3.6e6`. With a
            mapping, a file is read as a table. In a folder, only files that no other format recognises are tables.
        join: Records with energy. A run without energy gets the energy of the energy record of the same time, if
            exactly one record matches the run, and this record matches no other run. A power log may match several
            runs that do not overlap. To find all matches, all files are read twice. Pass an `EnergyJoin` to join the
            runs of several paths.
        rows_path: For a generic table, path to the list of rows in a JSON document, such as `results.runs`.
        group_by: Column of CodeCarbon's files; runs with equal cells become processes of one experiment.
        window: For a power log, start and end of the time in which energy is counted, as ISO 8601. With `join`, the
            window is also the start and the end of each run that has this duration or no duration.
        columns: For a power log without header, the names of its columns as `nvidia-smi --query-gpu` has them.
        max_files: Maximum number of files that are read from a folder and its subfolders. If there are more files, the
            report names the subfolder at which the import stopped.
        max_bytes: Maximum size of a file. A file that is decoded as a whole may have 256 MiB at most.
        progress: Called with the path of a file and the number of its bytes that have been read.

    Raises:
        ImportFormatError: The format is unknown, the mapping is invalid, or no format recognises the file.
        ResultNotFoundError: The path does not exist.

    Example:
        >>> from llm_energy_measure.exceptions import ImportFormatError
        >>> try:
        ...     read("results/raw/smollm2_b1_c0/process_0.json")
        ... except ImportFormatError as error:
        ...     print(error.found.partition(" (")[0], "...")
        found a result of this tool, which needs no import ...
        >>> imported = read("results/raw/smollm2_b1_c0")  # in a folder, the report names the unknown file
        >>> list(imported), imported.report.refused > 0
        ([], True)
    """
    formats = _formats(format)
    files: dict[str, Any] = {"max_files": max_files, "max_bytes": max_bytes, "progress": progress}
    if join and not isinstance(join, EnergyJoin):
        join = EnergyJoin(join, read(path, format=formats, mapping=mapping, **files), parse_window(*window))
    start, end = parse_window(*window)
    options = Options(
        host=host,
        gpu_uuids=tuple(gpu_uuids),
        mapping=parse_mappings(mapping),
        energy=join if isinstance(join, EnergyJoin) else EnergyJoin(),
        group_by=group_by,
        rows_path=rows_path,
        window_start=start,
        window_end=end,
        columns=tuple(columns),
        **files,
    )
    return _scan(path, formats, options)


def _scan(path: str | Path | Sequence[str | Path], formats: Sequence[Format], options: Options) -> ImportedRecords:
    """Return the records of one path or of several; the files are read during the iteration."""
    report = ImportReport()
    scan = Scan(formats, options, report)
    if isinstance(path, str | Path):
        records = scan.folder(Path(path)) if is_folder(path) else scan.file(Path(path))
    else:
        records = scan.paths(path)
    return ImportedRecords((without_texts(_with_machine(record, options)) for record in records), report)


def _formats(given: str | Format | Sequence[Format]) -> tuple[Format, ...]:
    if isinstance(given, str):
        return formats_named(given)
    return (given,) if isinstance(given, Format) else tuple(given)


def parse_window(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """Return the edges of a window. Raise ImportFormatError if an edge is not a time."""
    return _edge("--from", start), _edge("--to", end)


def _edge(name: str, text: str | None) -> datetime | None:
    """Return an edge of the window; None if `text` is None. Raise ImportFormatError if `text` is no time."""
    moment = None if text is None else parse_time(text)
    if text is not None and moment is None:
        raise ImportFormatError("cannot import", f"{name} is {text!r}", "use a time such as 2026-04-01T10:00:00")
    return moment


def _with_machine(record: RawProcessResult, options: Options) -> RawProcessResult:
    """Return the record with the host and the GPU UUIDs that the caller stated; values of the file have precedence."""
    changes: dict[str, object] = {}
    if options.host is not None and record.host is None:
        changes["host"] = options.host
    if options.gpu_uuids and record.energy_metrics.devices:
        devices = _with_uuids(record.energy_metrics.devices, options)
        changes["energy_metrics"] = msgspec.structs.replace(record.energy_metrics, devices=devices)
    if record.gpu_uuid is None and (uuid := options.gpu_uuid(record.gpu_id)) is not None:
        changes["gpu_uuid"] = uuid
    return msgspec.structs.replace(record, **changes) if changes else record


def _with_uuids(devices: Sequence[DeviceEnergy], options: Options) -> list[DeviceEnergy]:
    """Return the devices with their UUIDs.

    If the file states no index, the UUIDs are assigned in order, but only if there is one UUID for each device.
    """
    indices = [device.gpu_id for device in devices]
    if all(index is None for index in indices) and len(devices) == len(options.gpu_uuids):
        indices = list(range(len(devices)))
    return [
        device
        if device.gpu_uuid is not None or (uuid := options.gpu_uuid(index)) is None
        else msgspec.structs.replace(device, gpu_uuid=uuid)
        for device, index in zip(devices, indices, strict=True)
    ]

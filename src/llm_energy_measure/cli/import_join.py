"""Read the records whose energy `import --join` uses: files of other tools, or raw results of this tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import RawProcessResult, process_index_of
from llm_energy_measure.exceptions import ImportFormatError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.importers.energy_join import EnergySource
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.registry import FORMATS
from llm_energy_measure.importers.report import ImportReport, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.results.store import codec
from llm_energy_measure.storage.local import max_file_bytes

_RAW_RESULT_FIELDS = {"experiment_id", "process_index", "energy_metrics", "timestamps"}


def read_energy_records(
    paths: Sequence[str],
    *,
    host: str | None,
    gpu_uuids: Sequence[str],
    window: tuple[str | None, str | None],
    columns: Sequence[str],
    progress: Callable[[Path, int], None] | None,
) -> tuple[list[EnergySource], list[ImportReport]]:
    """Return the records that have an energy, and one report per path with the refused entries.

    `paths` are files and folders. The other arguments are those of `importers.read`.
    """
    records: list[EnergySource] = []
    reports = []
    for path in paths:
        try:
            reading = importers.read(
                path,
                format=(_RAW_RESULT, *FORMATS),
                host=host,
                gpu_uuids=gpu_uuids,
                window=window,
                columns=columns,
                max_bytes=max_file_bytes(),
                progress=progress,
            )
        except (ResultNotFoundError, ImportFormatError) as error:
            reports.append(refused_path(path, error))
            continue
        for record, entry in reading.with_entries():
            if record.energy_metrics.total_energy_j is not None:
                records.append(EnergySource(record, entry.power_log))
            else:
                entry.outcome, entry.code = "refused", "no_measurement"
                entry.message = "the record has no energy, so no other record can be joined with it"
        # This report leaves out records with an energy: these records are not imported. If a run gets
        # energy, the main report names the energy record in the entry of the run.
        reports.append(ImportReport())
        reports[-1].entries = [entry for entry in reading.report.entries if entry.outcome == "refused"]
    return records, reports


def refused_path(path: str, error: ResultNotFoundError | ImportFormatError) -> ImportReport:
    """Return the report about a path that no importer can read."""
    report = ImportReport()
    report.refuse(path, "unreadable" if isinstance(error, ResultNotFoundError) else "unknown_format", error.found)
    return report


def _read(sources: list[ImportSource], _options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield the unchanged record of one raw result file."""
    [source] = sources
    if process_index_of(source.path.name) is None:
        raise RefusedInputError("duplicate", "the file is a checkpoint, or a result that was replaced or rejected")
    try:
        record = codec.decode_raw(source.data, source.path.name)
    except ResultCorruptError as error:
        raise RefusedInputError("torn", error.found) from error
    yield report.record(source.path, record)


_RAW_RESULT = Format(
    name="own",
    looks_for="a raw result of this tool, process_<i>.json",
    recognises=lambda source: set(source.fields) >= _RAW_RESULT_FIELDS,
    read=_read,
)

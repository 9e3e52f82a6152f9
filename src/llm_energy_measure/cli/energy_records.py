"""Records with energy that `import --join` takes it from: of other tools, or this tool's own raw results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import ImportFormatError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.registry import FORMATS
from llm_energy_measure.importers.report import ImportReport, RefusedInputError
from llm_energy_measure.results.store import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.importers.source_file import ImportSource

_FIELDS = {"experiment_id", "process_index", "energy_metrics", "timestamps"}


def energy_records(
    path: str, *, host: str | None, gpu_uuids: Sequence[str], progress: Callable[[Path, int], None] | None
) -> tuple[list[RawProcessResult], ImportReport]:
    """The records of a file or folder that have energy, and what of it has none or was refused."""
    losses = ImportReport()
    try:
        reading = importers.read(path, format=(_OWN, *FORMATS), host=host, gpu_uuids=gpu_uuids, progress=progress)
    except ResultNotFoundError as error:
        losses.refuse(str(path), "unreadable", error.found)
        return [], losses
    except ImportFormatError as error:
        losses.refuse(str(path), "unknown_format", error.found)
        return [], losses
    records = []
    for record, entry in reading.with_entries():
        if record.energy_metrics.total_energy_j is not None:
            records.append(record)
        else:
            entry.outcome, entry.code = "refused", "no_measurement"
            entry.message = "it has no energy that another record could be joined with"
    # What gives its energy to another record is no record of this import, and is named where it is joined.
    losses.entries = [entry for entry in reading.report.entries if entry.outcome == "refused"]
    return records, losses


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """The record of one raw result, as it is."""
    del options
    [source] = sources
    if process_index_of(source.path.name) is None:
        raise RefusedInputError("duplicate", "it is a checkpoint, or a result that was replaced or refused")
    try:
        record = codec.decode_raw(source.data, source.path.name)
    except ResultCorruptError as error:
        raise RefusedInputError("torn", error.found) from error
    yield report.record(source.path, record)


_OWN = Format(
    name="own",
    looks_for="a raw result of this tool, process_<i>.json",
    recognises=lambda source: set(source.fields) >= _FIELDS,
    read=_read,
)

"""Records with energy that `import --join` takes it from: of other tools, or this tool's own raw results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import ImportFormatError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport
from llm_energy_measure.importers.registry import FORMATS
from llm_energy_measure.results.store import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.importers.bounded import Original

_FIELDS = {"experiment_id", "process_index", "energy_metrics", "timestamps"}


def energy_records(
    path: str, *, host: str | None, gpu_uuids: Sequence[str], progress: Callable[[Path, int], None] | None
) -> tuple[list[RawProcessResult], LossReport]:
    """The records of a file or folder that have energy, and what of it has none or was refused."""
    losses = LossReport()
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


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """The record of one raw result, as it is."""
    del options
    [original] = originals
    if process_index_of(original.path.name) is None:
        raise RefusedFileError("duplicate", "it is a checkpoint, or a result that was replaced or refused")
    try:
        record = codec.decode_raw(original.data, original.path.name)
    except ResultCorruptError as error:
        raise RefusedFileError("torn", error.found) from error
    yield report.record(original.shown, record)


_OWN = Format(
    name="own",
    looks_for="a raw result of this tool, process_<i>.json",
    recognises=lambda original: set(original.fields) >= _FIELDS,
    read=_read,
)

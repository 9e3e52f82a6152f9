"""Any table: CSV, JSON lines, a list of JSON or Parquet, with a mapping that says what each field is made of.

A row is a record. What the mapping does not name is unknown; nothing is taken from a column because of its name. A
column that is needed and missing refuses the file, a value that is none refuses the row, a blank is unknown.

Rows that name their experiments are brought together without holding a record of them: the file is in memory as it is,
and a first pass over it finds the order in which a second one goes to its rows.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.exceptions import ExperimentIdError
from llm_energy_measure.importers.cells import GREATEST, GREATEST_WHOLE, identifier, number_in, time_in
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.mapping import FIELDS
from llm_energy_measure.importers.table_rows import PARQUET, Row, Table, table_of
from llm_energy_measure.importers.work import work
from llm_energy_measure.security import sanitize_experiment_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.importers.bounded import Original
    from llm_energy_measure.importers.mapping import Cell

TOOL = "table"

_EPOCH_SEC = 1e9


def _recognises(original: Original) -> bool:
    if original.is_our_own:
        return False
    is_json = bool(original.first_fields or original.items)
    return is_json or original.data.startswith(PARQUET) or len(original.header) > 1


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each row."""
    [original] = originals
    if not options.mapping:
        sentence = "a table needs a mapping, such as --map energy_j=energy_kwh*3.6e6"
        raise RefusedFileError("missing_field", f"{original.found()}; {sentence}")
    needed = {column for expression in options.mapping.values() for column in expression.columns()}
    before = len(report.entries)
    seen: set[tuple[str, int]] = set()
    for row, cells in _by_experiment(table_of(original, needed), options):
        try:
            record = _record(_values(cells, options), original, row)
        except RefusedFileError as refused:
            report.refuse(original.shown, refused.code, refused.sentence, row=row)
            continue
        key = record.experiment_id, record.process_index
        if key in seen:
            report.refuse(original.shown, "duplicate", _came_before(record, options), row=row)
            continue
        seen.add(key)
        yield _reported(original, record, row, report)
    report.entries[before:] = sorted(report.entries[before:], key=lambda entry: entry.row or 0)


def _came_before(record: RawProcessResult, options: Options) -> str:
    """That a row stands for what another one stands for, and how to tell them apart if it does not."""
    if "experiment_id" not in options.mapping:
        # The id is made of what is mapped: a table that was copied together, or imported twice, counts once.
        advice = "if it is another measurement, map a column in which they differ, to start or experiment_id, say"
        return f"a row with the same values in all that is mapped came before, and counts; {advice}"
    advice = "map process_index to a column in which they differ, or tell them apart by experiment_id"
    return f"a row of process {record.process_index} of {record.experiment_id} came before, and counts; {advice}"


def _by_experiment(table: Table, options: Options) -> Iterator[tuple[int, Row]]:
    """Line and content of each row; those of one experiment one behind the other, as the first of each came."""
    name = options.mapping.get("experiment_id")
    if name is None:  # each row is an experiment
        yield from ((line, row) for line, _, row in table.rows())
        return
    numbers: dict[Cell, int] = {}
    of_row, lines, places = array("q"), array("q"), array("q")
    for line, place, row in table.rows():
        try:
            found = None if isinstance(row, RefusedFileError) else name.value(row)
        except ValueError:
            found = None  # for which the row is refused later on
        of_row.append(numbers.setdefault(found, len(numbers)))
        lines.append(line)
        places.append(place)
    del numbers
    if all(before <= after for before, after in itertools.pairwise(of_row)):
        yield from ((line, row) for line, _, row in table.rows())
        return
    for number in array("q", sorted(range(len(of_row)), key=of_row.__getitem__)):
        if (again := table.at(places[number])) is not None:
            yield lines[number], again


def _reported(original: Original, record: RawProcessResult, row: int, report: LossReport) -> RawProcessResult:
    remarks = Remarks()
    if original.is_replaced_in(record):
        remarks.repair("undecodable_text", "bytes in it that are no UTF-8 were replaced")
    if record.energy_metrics.total_energy_j is None:
        remarks.note("no_energy", "energy_j is blank, or not mapped")
    return report.record(original.shown, record, remarks, row=row)


def _values(cells: Row, options: Options) -> dict[str, Any]:
    """The value of each mapped field, of the kind that it holds; None where it is unknown."""
    if isinstance(cells, RefusedFileError):
        raise cells
    try:
        found = {field: expression.value(cells) for field, expression in options.mapping.items()}
    except ValueError as error:
        raise RefusedFileError("torn", str(error)) from error
    return {field: _value(field, cell, options.mapping[field].source) for field, cell in found.items()}


def _value(field: str, found: Cell, source: str) -> Any:
    kind = FIELDS[field]
    if found is None or found == "":
        return None
    if kind == "text":
        return found if isinstance(found, str) else str(int(found)) if found.is_integer() else str(found)
    if kind == "scope":
        if found in ("device", "process", "host"):
            return found
        raise RefusedFileError("torn", f"{field} ({source}) is {found!r}, neither device, process nor host")
    number = number_in(found) if isinstance(found, str) else found
    if kind == "time":
        return _time(f"{field} ({source})", found, number)
    if number is None:
        raise RefusedFileError("torn", f"{field} ({source}) is {str(found)[:40]!r}")
    if number < 0:
        raise RefusedFileError("impossible_value", f"{field} ({source}) is negative, {number!r}")
    if number >= (GREATEST_WHOLE if kind == "whole" else GREATEST):
        raise RefusedFileError("impossible_value", f"{field} ({source}) is {number!r}, beyond anything measured")
    if kind == "whole" and not number.is_integer():
        raise RefusedFileError("torn", f"{field} ({source}) is {number!r}, no whole number")
    return int(number) if kind == "whole" else number


def _time(what: str, found: Cell, number: float | None) -> datetime:
    """A stamp in ISO 8601, or seconds since 1970."""
    stamp = time_in(found) if isinstance(found, str) else None
    if stamp is None and number is not None and _EPOCH_SEC < number < 10 * _EPOCH_SEC:
        stamp = datetime.fromtimestamp(number, UTC)
    if stamp is None:
        raise RefusedFileError("torn", f"{what} is {str(found)[:40]!r}, neither ISO 8601 nor seconds since 1970")
    return stamp


def _record(values: dict[str, Any], original: Original, row: int) -> RawProcessResult:
    """The record of one row."""
    digest = hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()[:12]
    experiment_id = values.get("experiment_id") or identifier(TOOL, values.get("model_name") or "", digest)
    try:
        sanitize_experiment_id(experiment_id)
    except ExperimentIdError as error:
        raise RefusedFileError("impossible_value", error.found) from error
    if "process_index" in values and values["process_index"] is None:
        raise RefusedFileError("missing_field", "process_index is mapped, and blank in this row")
    for field, limit in (("process_index", MAX_PROCESSES - 1), ("world_size", MAX_PROCESSES)):
        if (values.get(field) or 0) > limit or (field == "world_size" and values.get(field) == 0):
            raise RefusedFileError("impossible_value", f"{field} is {values[field]}")
    duration = values.get("duration_sec")
    get = values.get
    return RawProcessResult(
        experiment_id=experiment_id,
        backend=get("backend"),
        backend_version=get("backend_version"),
        process_index=get("process_index") or 0,
        gpu_id=get("gpu_id"),
        gpu_name=get("gpu_name"),
        config_name=get("config_name"),
        model_name=get("model_name"),
        timestamps=_stamps(get("start"), get("end"), duration),
        inference_metrics=_inference(values),
        energy_metrics=EnergyMetrics(
            total_energy_j=get("energy_j"),
            duration_sec=duration,
            **{name: get(name) for name in ("gpu_energy_j", "cpu_energy_j", "ram_energy_j")},
            **{name: get(name) for name in ("gpu_power_w", "cpu_power_w", "emissions_kg_co2", "energy_per_token_j")},
            **{name: get(name) for name in ("total_scope", "gpu_scope", "cpu_scope", "ram_scope")},
        ),
        compute_metrics=_compute(values),
        world_size=get("world_size"),
        host=get("host"),
        gpu_uuid=get("gpu_uuid"),
        origin=original.origin(TOOL, row=row),
    )


def _stamps(start: datetime | None, end: datetime | None, duration: float | None) -> Timestamps:
    if start is not None and end is not None and (start.tzinfo is None) != (end.tzinfo is None):
        raise RefusedFileError("impossible_value", "one of start and end has a UTC offset and the other has none")
    if start is not None and end is not None and end < start:
        raise RefusedFileError("impossible_value", f"the end {end.isoformat()} is before the start {start.isoformat()}")
    return Timestamps(start=start, end=end, duration_sec=duration)


def _inference(values: dict[str, Any]) -> InferenceMetrics | None:
    """The work; of input, output and total tokens, two give the third, and one alone is not enough."""
    given: int | None = values.get("input_tokens")
    generated: int | None = values.get("output_tokens")
    total: int | None = values.get("total_tokens")
    if total is not None:
        if given is None and generated is not None:
            given = total - generated
        elif generated is None and given is not None:
            generated = total - given
    if given is None or generated is None:
        return None
    if given < 0 or generated < 0 or total not in (None, given + generated):
        raise RefusedFileError("impossible_value", f"{given} input and {generated} output tokens are no {total} in all")
    names = ("inference_time_sec", "tokens_per_second", "time_to_first_token_ms")
    return work(given, generated, **{name: values.get(name) for name in names})


def _compute(values: dict[str, Any]) -> ComputeMetrics | None:
    found = {name: values.get(name) for name in ("flops_total", "peak_memory_mb", "compute_precision")}
    return ComputeMetrics(**found) if any(value is not None for value in found.values()) else None


FORMAT = Format(
    name=TOOL,
    looks_for="with --map, any CSV, JSON lines, list of JSON objects, or Parquet",
    recognises=_recognises,
    read=_read,
    needs_mapping=True,
)

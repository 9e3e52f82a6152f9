"""Import any table (CSV, JSON lines, a list of JSON objects, Parquet) with a mapping that defines each field.

Each row becomes a record. Fields without a mapping are None: no column is used because of its name. A file that lacks a
mapped column is refused, and a blank cell is None. A row with an invalid value is refused, but an impossible energy is
None if the row has another energy.

The rows of one experiment are grouped without keeping their records in memory: a first pass finds the order of the
rows, and a second pass builds the records.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.exceptions import ExperimentIdError
from llm_energy_measure.importers.description import describe
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.mapping import FIELDS, Cell, NestedValueError, describe_nested, parse_cell
from llm_energy_measure.importers.record_parts import inference_metrics, total_of_components
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.table_rows import PARQUET, MissingColumnsError, Table, TableRow, open_table
from llm_energy_measure.importers.values import (
    MAX_INTEGER,
    MAX_NUMBER,
    digest,
    from_epoch,
    identifier,
    parse_time,
)
from llm_energy_measure.security import sanitize_experiment_id

TOOL = "table"

_ENERGIES = ("energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j")

_FIELDS_OF = {
    struct: [name for name in FIELDS if name in struct.__struct_fields__]
    for struct in (RawProcessResult, EnergyMetrics, ComputeMetrics)
}
"""The fields of each part of a record that a table can fill."""


def _recognises(source: ImportSource) -> bool:
    if source.is_our_own:
        return False
    is_json = bool(source.first_fields or source.items)
    return is_json or source.start.startswith(PARQUET) or len(source.header) > 1


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each row."""
    [source] = sources
    if not options.mapping:
        found = f"{describe(source)}; a table needs a mapping, such as --map energy_j=energy_kwh*3.6e6"
        raise RefusedInputError("missing_field", found)
    needed = {column for expression in options.mapping.values() for column in expression.columns}
    before = len(report.entries)
    seen: set[tuple[str, int]] = set()
    try:
        table = open_table(source, needed, options.rows_path)
    except MissingColumnsError as error:
        raise RefusedInputError(error.code, error.message + _text_advice(error.columns, options)) from error
    for row, cells in _by_experiment(table, options):
        with report.refusing(source.path, row=row):
            notes = Notes()
            record = record_of(values_of(cells, options, notes), source, row, notes)
            key = record.experiment_id, record.process_index
            if key in seen:
                raise RefusedInputError("duplicate", _describe_duplicate(record, options))
            seen.add(key)
            source.note_undecodable(record, notes)
            yield report.record(source.path, record, notes, row=row)
    report.entries[before:] = sorted(report.entries[before:], key=lambda entry: entry.row or 0)


def _text_advice(missing: Sequence[str], options: Options) -> str:
    """Return how to write a fixed text, if a text field is mapped to only the name of a missing column."""
    for field, expression in options.mapping.items():
        if FIELDS[field] == "text" and expression.source in missing:
            return f"; for a fixed text, write --map \"{field}='{expression.source}'\""
    return ""


def _describe_duplicate(record: RawProcessResult, options: Options) -> str:
    """Return the message for a row that has the key of an earlier row, with advice how to distinguish the two rows."""
    if "experiment_id" not in options.mapping:
        # The id is a digest of the mapped values, so that a row that was copied or imported twice counts once.
        advice = "if this row is another measurement, map start or experiment_id to a column that differs"
        return f"an earlier row has the same values in all mapped columns and is imported; {advice}"
    advice = "map process_index or experiment_id to a column that differs"
    return f"an earlier row is process {record.process_index} of {record.experiment_id} and is imported; {advice}"


def _by_experiment(table: Table, options: Options) -> Iterator[tuple[int, TableRow]]:
    """Yield the line and content of each row, grouped by experiment. Experiments are in order of their first rows."""
    name = options.mapping.get("experiment_id")
    if name is None:  # each row is an experiment
        yield from ((line, row) for line, _, row in table.rows())
        return
    numbers: dict[Cell, int] = {}
    group_of_row, lines, positions = array("q"), array("q"), array("q")
    for line, position, row in table.rows():
        try:
            experiment = None if isinstance(row, RefusedInputError) else name.value(row)
        except ValueError:
            experiment = None  # the second pass refuses the row
        group_of_row.append(numbers.setdefault(experiment, len(numbers)))
        lines.append(line)
        positions.append(position)
    del numbers
    if all(before <= after for before, after in itertools.pairwise(group_of_row)):
        yield from ((line, row) for line, _, row in table.rows())
        return
    for number in array("q", sorted(range(len(lines)), key=group_of_row.__getitem__)):
        if (grouped := table.at(positions[number])) is not None:
            yield lines[number], grouped


def values_of(cells: TableRow, options: Options, notes: Notes) -> dict[str, Any]:
    """Return the value of each mapped field, with the type of the field; None if it is unknown.

    A negative energy is None if the row has another energy. A row without any valid energy is refused.
    """
    if isinstance(cells, RefusedInputError):
        raise cells
    try:
        found = {field: expression.value(cells) for field, expression in options.mapping.items()}
    except ValueError as error:
        code = "nested_value" if isinstance(error, NestedValueError) else "torn"
        raise RefusedInputError(code, str(error)) from error
    values: dict[str, Any] = {}
    refusals: list[RefusedInputError] = []
    for field, cell in found.items():
        try:
            values[field] = _value(field, cell, options.mapping[field].source)
        except RefusedInputError as error:
            if field not in _ENERGIES or error.code != "impossible_value":
                raise
            values[field] = None
            refusals.append(error)
    if refusals and all(values.get(field) is None for field in _ENERGIES):
        raise refusals[0]
    for refusal in refusals:
        notes.warn("damaged_cells", f"{refusal.message}, so it is null", is_repair=True)
    return values


def _value(field: str, cell: Cell, source: str) -> Any:
    """Return a cell with the type of its field; None if it is blank. Refuse another type and impossible values."""
    kind = FIELDS[field]
    what = f"{field} ({source})"
    if cell is None or cell == "":
        return None
    if kind == "text":
        return cell if isinstance(cell, str) else str(int(cell)) if cell.is_integer() else str(cell)
    if kind == "scope":
        if cell in ("device", "process", "host"):
            return cell
        raise RefusedInputError("torn", f"{what} is {cell!r}; use device, process or host")
    number = parse_cell(cell, source) if isinstance(cell, str) else cell
    if kind == "time":
        return _time(what, cell, number)
    if number is None and str(cell).startswith(("{", "[")):
        raise RefusedInputError("nested_value", describe_nested(source))
    if number is None:
        raise RefusedInputError("torn", f"{what} is {str(cell)[:40]!r}, which is not a number")
    return _checked_number(what, number, is_whole=kind == "whole")


def _checked_number(what: str, number: float, *, is_whole: bool) -> float | int:
    """Return a number with the type of its field. Refuse a number that is negative, too large, or no whole number."""
    if number < 0:
        raise RefusedInputError("impossible_value", f"{what} is {number!r}, which is negative")
    if number >= (MAX_INTEGER if is_whole else MAX_NUMBER):
        raise RefusedInputError("impossible_value", f"{what} is {number!r}, which is too large for a measurement")
    if is_whole and not number.is_integer():
        raise RefusedInputError("torn", f"{what} is {number!r}, which is not an integer")
    return int(number) if is_whole else number


def _time(what: str, cell: Cell, number: float | None) -> datetime:
    """Return the timestamp of a cell, which is in ISO 8601 or in seconds since 1970. Refuse other cells."""
    moment = parse_time(cell) if isinstance(cell, str) else None
    if moment is None and number is not None:
        moment = from_epoch(number)
    if moment is None:
        raise RefusedInputError("torn", f"{what} is {str(cell)[:40]!r}; use ISO 8601 or seconds since 1970")
    return moment


def record_of(values: dict[str, Any], source: ImportSource, row: int, notes: Notes) -> RawProcessResult:
    """Return the record with the values of the mapped fields."""
    experiment_id = values.get("experiment_id") or identifier(TOOL, values.get("model_name") or "", digest(values, 12))
    try:
        sanitize_experiment_id(experiment_id)
    except ExperimentIdError as error:
        raise RefusedInputError("impossible_value", error.found) from error
    if "process_index" in values and values["process_index"] is None:
        raise RefusedInputError("missing_field", "process_index is mapped, but blank in this row; fill the cell")
    for field, low, high in (("process_index", 0, MAX_PROCESSES - 1), ("world_size", 1, MAX_PROCESSES)):
        if values.get(field) is not None and not low <= values[field] <= high:
            raise RefusedInputError("impossible_value", f"{field} is {values[field]}; use {low} to {high}")
    total_j = values.get("energy_j")
    if total_j is None:
        components = {name.removesuffix("_energy_j"): values.get(name) for name in _ENERGIES[1:]}
        total_j = total_of_components(components, "energy_j", notes)
    of_record, energy, compute = ({name: values.get(name) for name in names} for names in _FIELDS_OF.values())
    return RawProcessResult(
        **of_record | {"experiment_id": experiment_id, "process_index": values.get("process_index") or 0},
        timestamps=_timestamps(values),
        inference_metrics=_inference(values),
        energy_metrics=EnergyMetrics(total_energy_j=total_j, **energy),
        energy_measurement_warning=notes.warning,
        compute_metrics=ComputeMetrics(**compute) if any(value is not None for value in compute.values()) else None,
        origin=source.origin(TOOL, row=row),
    )


def _timestamps(values: dict[str, Any]) -> Timestamps:
    start, end = values.get("start"), values.get("end")
    if start is not None and end is not None:
        if (start.tzinfo is None) != (end.tzinfo is None):
            found = "only one of start and end has a UTC offset; use an offset in both or in none"
            raise RefusedInputError("impossible_value", found)
        if end < start:
            raise RefusedInputError("impossible_value", f"end is {end.isoformat()}, before start {start.isoformat()}")
    return Timestamps(start=start, end=end, duration_sec=values.get("duration_sec"))


def _inference(values: dict[str, Any]) -> InferenceMetrics | None:
    """Return the inference metrics. Of input, output and total tokens, two numbers are enough to compute the third."""
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
        found = f"{given} input tokens and {generated} output tokens do not sum to {total} total tokens"
        raise RefusedInputError("impossible_value", found)
    names = ("inference_time_sec", "tokens_per_second", "time_to_first_token_ms")
    return inference_metrics(given, generated, **{name: values.get(name) for name in names})


FORMAT = Format(
    name=TOOL,
    looks_for="with --map, any CSV, JSON lines, list of JSON objects, or Parquet",
    recognises=_recognises,
    read=_read,
    needs_mapping=True,
    covers="as mapped",
    unknown="every field that is not mapped",
)

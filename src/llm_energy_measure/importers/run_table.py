"""Import `run_table.csv` of experiment-runner. Each row is a run; only rows that are DONE are imported.

The user of experiment-runner chooses the column names. The energy comes from the columns of CodeCarbon
(`codecarbon__energy_consumed`, kWh), from a column with a unit in its name, or from `--map`. A column that has one
value in all repetitions of a run is a factor, and the configuration stores it. The table has neither times nor hosts.

Source: S2 Group, experiment-runner.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.units import ENERGY_UNITS
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.mapping import Cell, Expression, parse_mappings
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.table import record_of, values_of
from llm_energy_measure.importers.table_rows import open_table
from llm_energy_measure.importers.values import digest, identifier, parse_number

TOOL = "experiment-runner"

_RUN, _DONE = "__run_id", "__done"
_REPETITION = re.compile(r"run_([0-9]+)_repetition_([0-9]+)")
_CODECARBON = "codecarbon__"
_CODECARBON_FIELDS = {
    "energy_consumed": "energy_j",
    "gpu_energy": "gpu_energy_j",
    "cpu_energy": "cpu_energy_j",
    "ram_energy": "ram_energy_j",
}
_ENERGY = re.compile(r"energy|joule", re.IGNORECASE)
_UNIT = re.compile(r"(?:[ _(\[])(mJ|kJ|MJ|J|joules?|mWh|Wh|kWh)[)\]]?$", re.IGNORECASE)
_NAMEABLE = re.compile(r"(?:[^\[\]]|\[[^\[\]]*\])+")
"""Column names that an expression can contain."""
_PART = re.compile(r"(?<![a-z])(gpu|cpu|d?ram)(?![a-z])", re.IGNORECASE)


def _recognises(source: ImportSource) -> bool:
    return {_RUN, _DONE} <= set(source.header)


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each row that is DONE."""
    [source] = sources
    mapping = options.mapping or _mapping(source)
    needed = {column for expression in mapping.values() for column in expression.columns}
    table = open_table(source, {*needed, _RUN, _DONE})
    factors = _factors((row for _, _, row in table.rows() if isinstance(row, dict)), source.header, needed)
    for line, _, row in table.rows():
        with report.refusing(source.path, row=line):
            if isinstance(row, RefusedInputError):
                raise row
            if (done := str(row[_DONE] or "")) != "DONE":
                raise RefusedInputError("no_measurement", f"the run is not done ({_DONE} is {done[:40] or 'empty'})")
            notes = Notes()
            values = values_of(row, msgspec.structs.replace(options, mapping=mapping), notes)
            if any(str(row.get(column) or "").casefold() == "remote" for column in ("method", "execution_method")):
                found = "the run used a remote service, so the energy is that of the client alone"
                notes.warn("client_energy", found)
            record = _record(source, row, values, factors, line, notes=notes)
            source.note_undecodable(record, notes)
            yield report.record(source.path, options.energy.joined(record, notes), notes, row=line)


def _mapping(source: ImportSource) -> dict[str, Expression]:
    """Return the expression of each energy, and of the duration, that the column names define.

    Raises:
        RefusedInputError: No column name states an energy with a unit, or two columns can be the same energy.
    """
    found: dict[str, str] = {}
    columns = [column for column in source.header if column.startswith(_CODECARBON)]
    for name, field in _CODECARBON_FIELDS.items():
        if f"{_CODECARBON}{name}" in columns:
            found[field] = f"{field}=[{_CODECARBON}{name}]*3.6e6"
    if found:
        if f"{_CODECARBON}duration" in columns:
            found["duration_sec"] = f"duration_sec=[{_CODECARBON}duration]"
        return parse_mappings(list(found.values()))
    energies = [name for name in source.header if _ENERGY.search(name) and _NAMEABLE.fullmatch(name)]
    for name in energies:
        unit = _UNIT.search(name)
        factor = None if unit is None else _factor(unit[1])
        if factor is None:
            continue
        part = _PART.search(name)
        field = f"{part[1].lower().replace('dram', 'ram')}_energy_j" if part else "energy_j"
        if field in found:
            advice = f"pass --map {field}=COLUMN to choose one"
            raise RefusedInputError(
                "ambiguous_column", f"several columns can be {field}: {', '.join(energies)}; {advice}"
            )
        found[field] = f"{field}=[{name}]*{factor}"
    if not found:
        names = ", ".join(energies[:10])
        what = f"the unit of {names} is unknown" if energies else "no column has an energy"
        column = f"[{energies[0]}]" if energies else "COLUMN"
        raise RefusedInputError("missing_field", f"{what}; pass for example --map 'energy_j={column}*1000' for kJ")
    return parse_mappings(list(found.values()))


def _factor(unit: str) -> float | None:
    """Return the joules per unit; None if its letter case leaves two units possible, as for `mj` (mJ or MJ)."""
    if unit.lower().startswith("joule"):
        return 1.0
    if unit in ENERGY_UNITS:
        return ENERGY_UNITS[unit]
    [factor, *others] = [factor for name, factor in ENERGY_UNITS.items() if name.lower() == unit.lower()]
    return None if others else factor


def _factors(rows: Iterable[Mapping[str, Any]], header: Sequence[str], needed: set[str]) -> list[str]:
    """Return the columns with the settings of the runs: those with one value in all repetitions of each run.

    If each run has only one repetition, these are the columns in front of the first column that is in `needed` or that
    CodeCarbon wrote.
    """
    candidates = [name for name in header if name not in {_RUN, _DONE} | needed and not name.startswith(_CODECARBON)]
    first_of_run: dict[str, array[int]] = {}  # hashes, so that a table of 100,000 runs takes little memory
    repeated = False
    varying: set[str] = set()
    for row in rows:
        match = _REPETITION.fullmatch(str(row[_RUN] or ""))
        own = array("q", (hash(row[name]) for name in candidates))
        first = first_of_run.setdefault(match[1] if match else str(row[_RUN]), own)
        repeated = repeated or first is not own
        varying.update(name for name, one, other in zip(candidates, own, first, strict=True) if one != other)
    if repeated:
        return [name for name in candidates if name not in varying]
    end = min((header.index(name) for name in header if name in needed or name.startswith(_CODECARBON)), default=0)
    return [name for name in candidates if header.index(name) < end]


def _record(
    source: ImportSource,
    row: dict[str, Cell],
    values: dict[str, Any],
    factors: Sequence[str],
    line: int,
    *,
    notes: Notes,
) -> RawProcessResult:
    """Return the record of one row, with its factors as configuration."""
    run = str(row[_RUN] or "")
    match = _REPETITION.fullmatch(run)
    settings: dict[str, Any] = {name: _typed(row[name]) for name in factors if row[name] is not None}
    if match:
        settings["cycle_id"] = int(match[2])
    record = record_of(values, source, line, notes)
    has_id = values.get("experiment_id") is not None
    return msgspec.structs.replace(
        record,
        experiment_id=record.experiment_id if has_id else identifier(TOOL, run, digest([source.header, row])),
        config_name=record.config_name or (f"run_{match[1]}" if match else run or None),
        effective_config=settings,
        origin=source.origin(TOOL, row=line),
    )


def _typed(cell: Any) -> Any:
    """Return a cell as a number if it contains a number, otherwise unchanged."""
    number = parse_number(cell) if isinstance(cell, str) else cell
    return cell if number is None else int(number) if number.is_integer() and abs(number) < 2**53 else number


FORMAT = Format(
    name=TOOL,
    looks_for="a CSV header with __run_id and __done",
    recognises=_recognises,
    read=_read,
    takes_mapping=True,
    covers="unknown; each energy is in the unit that the column or --map states",
    unknown="time of day, host, GPUs; model and tokens unless mapped",
)

"""The import report: what happened to each file, row or JSON object that an import read, with a stable reason code."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.power_trace import PowerLog

Outcome = Literal["kept", "repaired", "refused"]

CODES: dict[str, str] = {
    # kept
    "whole": "the record was read without changes",
    "already_there": "the results directory already contains the same measurement",
    "no_energy": "the source has no total energy; the field is null",
    "gpu_count_differs": "gpu_count is not the number of GPUs in gpu_model; it is unknown which GPUs the energy covers",
    "pue_included": "the energies include the power usage effectiveness (PUE) of the data centre; they are unchanged",
    "energy_not_understood": "fields with energy in their names are not understood; the energy is null",
    "tokens_incomplete": "the source has only input, only output or only total tokens; the token counts are null",
    "idle_included": "the power is the mean over a longer time than the run, so the energy includes idle power",
    "invalid_power": "the benchmark marked its own power samples as not valid, or does not state which GPUs they cover",
    "client_energy": "the run used a remote service; the energy is the energy of the client only",
    "implausible_power": "the energy implies more power than any device of the kind can draw; all values are unchanged",
    "power_contradicts_energy": "a reported power and the mean power differ by a factor above 100; no value changes",
    "components_rounded": "total and components differ by at most 0.01 %, which rounding explains; all are unchanged",
    "components_disagree": "the total is not the sum of its components; all values are unchanged",
    "no_time": "the timestamp is damaged or has several meanings; start and end are null",
    "grouped": "the run is one process of an experiment whose runs share machine and time, or the --group-by cell",
    "overlaps_run": "another run measured the same machine at the same time, and both may contain its energy",
    "task_without_run": (
        "the row is one task of a run; if emissions.csv has a row of the run, that row includes the energy of the "
        "task, so do not add the two"
    ),
    "sampling_gap": "the samples have a gap, in which the power is interpolated",
    "rows_refused": "later rows of the run were refused; the record is a lower bound with the status partial",
    "own_aggregate_differs": "a total that the tool computed itself differs from the imported energy",
    "part_unreadable": "a file or field next to the measurement cannot be read; its values are null",
    "run_failed": "no request of the run succeeded; the record has the status failed and no throughput",
    "energy_unjoined": "zero or several energy records match the run, or one matches several runs; the energy is null",
    # repaired
    "energy_joined": "the energy comes from an energy record of the same time, or a power log that covers the run",
    "padded": "spaces around cells, or empty cells after the last column, were removed",
    "decimal_comma": "the table has semicolons between the cells; decimal commas were read as decimal points",
    "undecodable_text": "bytes that are not valid UTF-8 were replaced by U+FFFD",
    "realigned": "the row lacks cells; only one assignment of its cells to the required columns is possible",
    "other_layout": "the row has the columns of another version of the tool than the header",
    "damaged_cells": "some cells are damaged and null; the energies of the row are intact",
    "total_from_components": "the total is missing or damaged; the sum of all components of the row replaces it",
    "partial_total": "the energy of a component or GPU is unknown; a total that is a sum does not include this energy",
    "counter_fell": "an energy counter wrapped or was reset; its energy is null, or other values of the run replace it",
    "restart": "the tracker started again with the same run id; each part of the run is a record",
    "incomplete_run": "the run was interrupted; only the phases that it measured are imported",
    # refused
    "unknown_format": "no format recognises the content",
    "empty_file": "the file has no content",
    "torn": "a row or an object is damaged: a value is missing or has the wrong type",
    "shifted": "the row has more or fewer cells than the header, and the columns of its cells are not certain",
    "repeated_header": "the line is a second header and not a row; it applies to the rows after it",
    "cumulative": "a later row of the same run includes this energy",
    "out_of_order": "an earlier row of the same run includes this energy",
    "task_of_run": "the row is a task of an imported run; the record of the run contains the task as a phase",
    "stored_elsewhere": "an earlier import stored the same row as an experiment of its own",
    "duplicate": "another file or row has the same measurement and is imported",
    "ambiguous_column": "a required column appears more than once in the header",
    "ambiguous_key": "a key appears more than once in a JSON object, so its value is ambiguous",
    "energy_disagrees": "the same energy is stated in two units, with different values",
    "impossible_value": "a value is impossible: negative, not finite or out of range",
    "missing_field": "a field that a record requires is missing",
    "nested_value": "a number is needed, but the value is an object or a list; name a value in it: {COLUMN.KEY}",
    "no_measurement": "the source contains no measurement, for example only a configuration or a header",
    "no_sensor": "no sensor of the file measured energy",
    "not_json": "the content is not valid JSON",
    "too_large": "the content exceeds a size limit of the importer",
    "too_many": "the number of files or rows exceeds the limit of one import",
    "changed_while_read": "the file changed while it was read; nothing of it is imported",
    "not_a_file": "the path is not a regular file, but a link, a pipe or a device",
    "unreadable": "the operating system or a library cannot read the file",
    "broke_off": "the importer failed on unexpected content; earlier records are kept. Please report the failure",
    "part_of_folder": "the file is one of several files of a measurement; import the folder",
    "missing_extra": "the format needs an optional library that is not installed",
    "conflict": "the results directory contains a different measurement of the same process",
    "refused_at_save": "the repository refused to save the record",
}
"""Every reason code with its meaning. Codes are stable; `docs/reference/import-formats.md` lists them."""


class RefusedInputError(Exception):
    """A file, row or object cannot become a record. The importers catch this exception and add it to the report.

    Attributes:
        code: The reason code, a key of `CODES`.
        message: What was found, why it is refused, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


class Entry(
    msgspec.Struct, kw_only=True, gc=False
):  # entries form no reference cycles, so the garbage collector can skip them, which is faster
    """What happened to one file, row or JSON object.

    Attributes:
        file: Path of the file, as the caller gave it or as the scan found it.
        row: Line in the file, or number of the object, counted from 1; None if the entry is about the whole file.
        outcome: `kept`, `repaired` or `refused`.
        code: Reason code, a key of `CODES`.
        message: The reason in a sentence, with the values.
        experiment_id: Experiment of the record; None if there is no record.
        power_log: Power samples of the record, until the caller has stored them. `document()` does not contain them.
    """

    file: str
    row: int | None = None
    outcome: Outcome
    code: str
    message: str
    experiment_id: str | None = None
    power_log: PowerLog | None = None

    def add_repair(self, code: str, message: str) -> None:
        """Add a repair of the whole file to the entry of a record. The entry keeps the code of an earlier repair."""
        self.message = message if self.code == "whole" else f"{self.message}; {message}"
        if self.outcome == "kept":
            self.outcome, self.code = "repaired", code


class Notes:
    """Notes about one record. The first note gives the reason code, and a repair has precedence over other notes."""

    def __init__(self) -> None:
        self.outcome: Outcome = "kept"
        self.code = "whole"
        self.messages: list[str] = []
        self.warnings: list[str] = []
        self.power_log: PowerLog | None = None
        """Power samples of the record; None if there are none."""

    @property
    def warning(self) -> str | None:
        """Text for `energy_measurement_warning` of the record; None if the energy has no problem."""
        return "; ".join(self.warnings) or None

    def warn(self, code: str, message: str, *, is_repair: bool = False) -> None:
        """Add a note about a problem of the energy. The importer stores the same text as a warning in the record."""
        (self.repair if is_repair else self.add)(code, message)
        self.warnings.append(message)

    def add(self, code: str, message: str) -> None:
        """Add a note about a fact that changes no value."""
        if self.code == "whole":
            self.code = code
        self.messages.append(message)

    def repair(self, code: str, message: str) -> None:
        """Add a note about a repaired value."""
        if self.outcome == "kept":
            self.code = code
        self.outcome = "repaired"
        self.messages.append(message)


class ImportReport:
    """One entry for each file, row or object that an import read, in the order in which they were read.

    Each kept or repaired entry has a record; a refused entry has none.

    Attributes:
        entries: The entries.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @property
    def seen(self) -> int:
        """Number of entries."""
        return len(self.entries)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of entries that were `seen`, `kept`, `repaired` and `refused`; the last three sum to the first."""
        found = Counter(entry.outcome for entry in self.entries)
        return {"seen": self.seen, "kept": found["kept"], "repaired": found["repaired"], "refused": found["refused"]}

    @property
    def kept(self) -> int:
        """Number of records that were kept without changes."""
        return self.counts["kept"]

    @property
    def repaired(self) -> int:
        """Number of records that were repaired."""
        return self.counts["repaired"]

    @property
    def refused(self) -> int:
        """Number of refused entries."""
        return self.counts["refused"]

    def record(
        self, file: str | Path, record: RawProcessResult, notes: Notes | None = None, *, row: int | None = None
    ) -> RawProcessResult:
        """Add an entry for a record. Return the record, so that the importer can yield it at once."""
        notes = notes or Notes()
        self._add(
            Entry(
                file=str(file),
                row=row,
                outcome=notes.outcome,
                code=notes.code,
                message="; ".join(notes.messages) or CODES[notes.code],
                experiment_id=record.experiment_id,
                power_log=notes.power_log,
            )
        )
        return record

    def refuse(
        self, file: str | Path, code: str, message: str, *, row: int | None = None, experiment_id: str | None = None
    ) -> None:
        """Add an entry for a file, row or object that is refused.

        Args:
            file: Path of the file.
            code: Reason code, a key of `CODES`.
            message: What was found, why it is refused, and what to do.
            row: Line or number of the object, counted from 1.
            experiment_id: Experiment whose record includes the refused values, if there is one.
        """
        self._add(
            Entry(file=str(file), row=row, outcome="refused", code=code, message=message, experiment_id=experiment_id)
        )

    @contextlib.contextmanager
    def refusing(self, file: str | Path, *, row: int | None = None, prefix: str = "") -> Iterator[None]:
        """Add a refused entry if the `with` block raises `RefusedInputError`, and continue after the block."""
        try:
            yield
        except RefusedInputError as error:
            self.refuse(file, error.code, prefix + error.message, row=row)

    def _add(self, entry: Entry) -> None:
        if entry.code not in CODES:
            msg = f"unknown reason code {entry.code!r}; use a key of CODES"
            raise KeyError(msg)
        # Thousands of files often have equal messages. Entries that share one text take less memory.
        if self.entries and self.entries[-1].message == entry.message:
            entry.message = self.entries[-1].message
        self.entries.append(entry)

    def document(self) -> dict[str, Any]:
        """The report as a JSON object: the counts and all entries."""
        names = [name for name in Entry.__struct_fields__ if name != "power_log"]
        return {**self.counts, "entries": [{name: getattr(entry, name) for name in names} for entry in self.entries]}


def merge(reports: Iterable[ImportReport]) -> ImportReport:
    """Return one report with the entries of all reports, in order."""
    merged = ImportReport()
    for report in reports:
        merged.entries += report.entries
    return merged

"""What an import made of each thing that it saw: kept as it is, repaired with certainty, or refused; never silently."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_energy_measure.domain.experiment import RawProcessResult

Outcome = Literal["kept", "repaired", "refused"]

CODES: dict[str, str] = {
    # kept
    "whole": "read as it is",
    "already_there": "the results hold the same measurement already, from this file or another one",
    "no_energy": "the original has no energy; it is null",
    "gpu_count_differs": "the number of GPUs and the list of their models disagree; the list counts",
    "components_disagree": "the total is not the sum of its components; both stand as they were",
    "own_aggregate_differs": "the original's own total is not the sum of its processes; compare, don't trust",
    "part_unreadable": "a file beside the measurement can't be read; what it says is null",
    "run_failed": "the run failed; it is a failed record, not one of zero throughput",
    "energy_unjoined": "no energy record, or several, are of its time, or one that others want too; its energy is null",
    # repaired
    "energy_joined": "the energy is that of the record of the same time",
    "padded": "blanks around cells, or empty cells behind the last column, were dropped",
    "undecodable_text": "bytes that are no UTF-8 were replaced in a text",
    "realigned": "omitted cells were found again: there is one way only to fit the row to the columns it needs",
    "other_layout": "the row has the columns of another version of the tool than its header",
    "restart": "the energy of a run fell: the tracker was started again, and each part counts once",
    "incomplete_run": "the run was interrupted; what it measured until then is partial",
    # refused
    "unknown_format": "no format recognises the content",
    "empty_file": "nothing is in the file",
    "torn": "a cell that has to hold a value of its type does not",
    "shifted": "the row has not as many cells as its header, and more than one way to fit them",
    "repeated_header": "a header in the middle of a table, no row",
    "cumulative": "a later row of the same run includes it",
    "out_of_order": "a row of a run that another row of the same run, with a later stamp, includes",
    "duplicate": "another part of the original says it already, and is kept",
    "ambiguous_column": "a column that is needed stands more than once",
    "ambiguous_key": "a key stands twice in one object of JSON; which of its values is meant nobody can say",
    "energy_disagrees": "the same energy stands twice, in two units, and differs",
    "impossible_value": "a value can't be: negative, or not finite",
    "missing_field": "something that a record can't do without is missing",
    "no_measurement": "nothing is measured in it: a configuration, a plan, a header alone",
    "no_sensor": "no sensor of the file measured energy",
    "not_json": "the file is torn, or no JSON that can be read",
    "too_large": "it is beyond the limit for what is read",
    "too_many": "there are more than the limit for one import",
    "changed_while_read": "the file changed while it was read; nothing of it is used",
    "not_a_file": "a link, a pipe or a device, which is not followed",
    "unreadable": "the system refused to read it",
    "broke_off": "the importer met what it did not expect; what it read before stands, please report it",
    "part_of_folder": "it is one file of several that make a measurement; import the folder",
    "missing_extra": "reading it needs a library that is not installed",
    "conflict": "the results hold a different measurement of the same process",
    "refused_at_save": "the record was refused when it was saved",
}
"""Every reason code, and what it says. Codes are stable; `docs/reference/import-formats.md` lists them."""


class Entry(msgspec.Struct, kw_only=True, gc=False):  # of texts and a number: nothing for the collector
    """What became of one thing that was seen: a row, an object of JSON, a file.

    Attributes:
        file: The file, as it was named or found.
        row: Its line in the file, counted from 1, or its number where the file is no text; None if it is all of it.
        outcome: `kept`, `repaired` or `refused`.
        code: Why; one of `CODES`.
        message: The same in a sentence, with the values.
        experiment_id: The experiment that its record belongs to; None if there is no record.
    """

    file: str
    row: int | None = None
    outcome: Outcome
    code: str
    message: str
    experiment_id: str | None = None


class Remarks:
    """What there is to say about one record before it is handed over; the first thing said gives the code."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.outcome: Outcome = "kept"
        self.code = "whole"
        self.sentences: list[str] = []

    def note(self, code: str, sentence: str) -> None:
        """Say something that changes no value."""
        self._add(code, sentence)

    def repair(self, code: str, sentence: str) -> None:
        """Say what was repaired; a repair gives the code before any note."""
        if self.outcome == "kept":
            self.code = "whole"
        self._add(code, sentence)
        self.outcome = "repaired"

    def _add(self, code: str, sentence: str) -> None:
        if self.code == "whole":
            self.code = code
        self.sentences.append(sentence)


class LossReport:
    """What an import saw, and what became of it: one entry for each thing seen, in the order it was seen.

    A record was made of each that is kept or repaired, and of no other.

    Attributes:
        entries: The entries.
    """

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.entries: list[Entry] = []

    @property
    def seen(self) -> int:
        """Things seen."""
        return len(self.entries)

    @property
    def counts(self) -> dict[str, int]:
        """How many were `seen`, `kept`, `repaired` and `refused`; the last three add up to the first."""
        found = Counter(entry.outcome for entry in self.entries)
        return {"seen": self.seen, "kept": found["kept"], "repaired": found["repaired"], "refused": found["refused"]}

    @property
    def kept(self) -> int:
        """Records that are as the original says."""
        return self.counts["kept"]

    @property
    def repaired(self) -> int:
        """Records in which something was put right."""
        return self.counts["repaired"]

    @property
    def refused(self) -> int:
        """Things of which no record was made."""
        return self.counts["refused"]

    def record(
        self, file: str, record: RawProcessResult, remarks: Remarks | None = None, *, row: int | None = None
    ) -> RawProcessResult:
        """Enter a record, kept or repaired as the remarks say, and return it to be yielded at once."""
        remarks = remarks or Remarks()
        self._enter(
            file=file,
            row=row,
            outcome=remarks.outcome,
            code=remarks.code,
            message="; ".join(remarks.sentences) or CODES[remarks.code],
            experiment_id=record.experiment_id,
        )
        return record

    def refuse(
        self, file: str, code: str, message: str, *, row: int | None = None, experiment_id: str | None = None
    ) -> None:
        """Enter something of which no record is made.

        Args:
            file: The file.
            code: One of `CODES`.
            message: A sentence with what was found.
            row: Its line.
            experiment_id: The experiment that holds what it says, where another record does.
        """
        self._enter(file=file, row=row, outcome="refused", code=code, message=message, experiment_id=experiment_id)

    def _enter(self, **fields: Any) -> None:
        if fields["code"] not in CODES:
            msg = f"{fields['code']!r} is no reason code"
            raise KeyError(msg)
        # Of thousands of files alike the sentence is one text in memory.
        if self.entries and self.entries[-1].message == fields["message"]:
            fields["message"] = self.entries[-1].message
        self.entries.append(Entry(**fields))

    def document(self) -> dict[str, Any]:
        """The report as a JSON object: the counts, and all entries."""
        return {**self.counts, "entries": msgspec.to_builtins(self.entries)}


def merge(reports: Iterable[LossReport]) -> LossReport:
    """One report of several, in order."""
    merged = LossReport()
    for report in reports:
        merged.entries += report.entries
    return merged

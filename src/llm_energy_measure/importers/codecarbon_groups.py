"""Find the CodeCarbon runs that are processes of one experiment, and the tasks that are parts of a run.

A tracker in each process of a machine writes one row each, and each row can contain the energy of the whole machine.
The task files of a run contain energies that the row of the run includes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from llm_energy_measure.importers.codecarbon_rows import read_rows
from llm_energy_measure.importers.codecarbon_runs import Part, Reading, Runs
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource


class Process(NamedTuple):
    """A run as a process of an experiment; `number` is the number of its processes."""

    experiment_id: str
    process_index: int
    number: int


class RunRow(NamedTuple):
    """Where the energy of a run is imported from."""

    experiment_id: str
    file: str
    line: int


class FileRuns(NamedTuple):
    """The runs of one file.

    Attributes:
        runs: All runs.
        processes: Processes of experiments, by the line of their run.
        overlapping: For the line of a run that is in no experiment, the line of another run at the same time.
    """

    runs: Runs
    processes: dict[int, Process]
    overlapping: dict[int, int]


def find_runs(sources: list[ImportSource], group_by: str | None) -> tuple[list[FileRuns], dict[str, RunRow]]:
    """Return the runs of each file, and for each run id the row with the energy of the whole run.

    Args:
        sources: The files.
        group_by: Column whose equal cells make runs processes of one experiment; None for the automatic rule.

    Raises:
        RefusedInputError: A file does not have the column `group_by`.
    """
    files, run_rows = [], {}
    for source in sources:
        if group_by and group_by not in source.header:
            raise RefusedInputError("missing_field", f"{source.path} has no column {group_by!r}; correct --group-by")
        runs = Runs(group_by)
        for row in read_rows(source):
            runs.add(row)
        groups, overlapping = find_groups(runs)
        processes = {
            part.line: Process(group[0].experiment_id, index, len(group))
            for group in groups
            for index, part in enumerate(group)
        }
        files.append(FileRuns(runs, processes, overlapping))
        for (run, task), [part, *_] in runs.parts.items():
            if not task:
                process = processes.get(part.line)
                experiment_id = process.experiment_id if process else part.experiment_id
                run_rows[run] = RunRow(experiment_id, source.path.name, part.line)
    return files, run_rows


def find_groups(runs: Runs) -> tuple[list[list[Part]], dict[int, int]]:
    """Return the runs that are processes of one experiment, and the other runs that overlap on one machine.

    Runs are processes of one experiment if they measured the same machine at the same time, and if the user gave them
    the same experiment id or project. With `group_by`, an equal cell in this column is enough.

    Returns:
        Groups of two or more parts, each in order of the first lines; and the line of an overlapping run, by the line
        of a part that is in no group.
    """
    parts = [parts[0] for (_, task), parts in runs.parts.items() if len(parts) == 1 and not task]
    if runs.group_by:
        by_cell: dict[str, list[Part]] = {}
        for part in parts:
            if part.group:
                by_cell.setdefault(part.group, []).append(part)
        return [group for group in by_cell.values() if len(group) > 1], {}
    timed = [part for part in parts if part.last.start and part.last.end and any(part.machine)]
    timed.sort(key=lambda part: (part.last.start.replace(tzinfo=None), part.first_line))  # type: ignore[union-attr]  # filtered
    open_groups: dict[tuple[Any, ...], list[Part]] = {}
    groups = []
    for part in timed:
        if not any(part.name):
            continue
        group = open_groups.get((part.machine, part.name))
        if group is None or not _overlap(group[0].last, part.last):
            group = open_groups[part.machine, part.name] = []
            groups.append(group)
        group.append(part)
    groups = [sorted(group, key=lambda part: part.first_line) for group in groups if len(group) > 1]
    return groups, _overlapping(timed, {part.line for group in groups for part in group})


def _overlapping(timed: list[Part], grouped: set[int]) -> dict[int, int]:
    """Return, by the line of each part in no group, the line of an earlier part that it overlaps on its machine."""
    longest: dict[tuple[str, ...], Part] = {}
    found = {}
    for part in timed:
        other = longest.get(part.machine)
        if other is not None and _overlap(other.last, part.last) and part.line not in grouped:
            found[part.line] = other.line
        if other is None or _end_of(part) >= _end_of(other):
            longest[part.machine] = part
    return found


def _end_of(part: Part) -> datetime:
    end = part.last.end
    return datetime.min if end is None else end.replace(tzinfo=None)  # noqa: DTZ901 - compared without zones


def _overlap(one: Reading, other: Reading) -> bool:
    """True if two runs overlap by at least half of the longer one."""
    if one.start is None or other.start is None or one.end is None or other.end is None:
        return False
    if (one.start.tzinfo is None) != (other.start.tzinfo is None):
        return False
    common_sec = (min(one.end, other.end) - max(one.start, other.start)).total_seconds()
    longer_sec = max(one.duration_sec or 0.0, other.duration_sec or 0.0)
    return common_sec > 0 and common_sec >= longer_sec / 2

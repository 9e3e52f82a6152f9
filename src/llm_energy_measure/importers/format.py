"""The description of a format: how a file of another tool is recognised, and which function imports it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from llm_energy_measure.constants import MAX_FILE_BYTES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.importers.energy_join import EnergyJoin
from llm_energy_measure.importers.file_content import Progress
from llm_energy_measure.importers.limits import MAX_FILES
from llm_energy_measure.importers.mapping import Expression
from llm_energy_measure.importers.report import ImportReport
from llm_energy_measure.importers.source_file import ImportSource


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `reader.read`, with parsed expressions and the energy records that may be joined."""

    host: str | None = None
    gpu_uuids: tuple[str, ...] = ()
    mapping: dict[str, Expression] = {}
    energy: EnergyJoin = msgspec.field(default_factory=EnergyJoin)
    max_files: int = MAX_FILES
    max_bytes: int = MAX_FILE_BYTES
    progress: Progress | None = None
    group_by: str | None = None
    rows_path: str | None = None
    window_start: datetime | None = None
    window_end: datetime | None = None
    columns: tuple[str, ...] = ()

    def gpu_uuid(self, index: int | None) -> str | None:
        """Return the UUID of a GPU by its index; None if the caller did not state it."""
        return self.gpu_uuids[index] if index is not None and 0 <= index < len(self.gpu_uuids) else None


Importer = Callable[[list[ImportSource], Options, ImportReport], Iterator[RawProcessResult]]
"""Builds the records of one measurement. Each record is added to the report and yielded at once.

The list of sources has one file, unless `Format.is_folder` or `Format.reads_together` is true. Records of one
experiment are yielded one after the other.
"""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One format of another tool.

    Attributes:
        name: Name of the format, for `--format`.
        looks_for: Text in messages: what identifies a file of the format.
        recognises: Returns whether a file has this format, from its content only.
        read: Builds the records.
        is_folder: Whether several files of one folder form a measurement.
        reads_together: Whether the files of one folder are read together, although each file can be read alone.
        needs_mapping: Whether the format can be read only with a mapping. Without a mapping, the format is tried only
            if the caller passes no other format.
        takes_mapping: Whether a mapping of the user defines the fields of the record.
        covers: Scope and provenance of the energies, for the documentation.
        unknown: Fields that the files do not state, for the documentation.
        part_names: Regular expression of the file names, which recognises empty files. Files whose names have the same
            first group belong to one measurement.
    """

    name: str
    looks_for: str
    recognises: Callable[[ImportSource], bool]
    read: Importer
    is_folder: bool = False
    reads_together: bool = False
    needs_mapping: bool = False
    takes_mapping: bool = False
    covers: str = ""
    unknown: str = ""
    part_names: str | None = None

    def matches_name(self, file_name: str) -> bool:
        """True if the name is one that the tool gives to its files."""
        return self.part_names is not None and re.fullmatch(self.part_names, file_name) is not None

    def measurements(self, paths: Iterable[Path]) -> list[list[Path]]:
        """Group the files of a folder by measurement.

        Files whose names state no measurement are added to the only other group, if there is exactly one other group.
        Otherwise they form a group. In each group, files with the tool's own names come before renamed copies.
        """
        groups: dict[str, list[Path]] = {}
        for path in paths:
            groups.setdefault(self.measurement_of(path.name), []).append(path)
        if len(groups) == 2 and (unnamed := groups.pop("", None)):
            [named] = groups.values()
            named += unnamed
        return [
            sorted(groups[name], key=lambda path: (not self.matches_name(path.name), path)) for name in sorted(groups)
        ]

    def measurement_of(self, file_name: str) -> str:
        """Return the name of the measurement at the beginning of a file name; empty if the name has another form."""
        match = None if self.part_names is None else re.match(self.part_names, file_name)
        return match[1] if match else ""

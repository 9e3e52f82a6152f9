"""What a format of another tool is: how a file of it is recognised, and what makes records of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.importers.bounded import Original
from llm_energy_measure.importers.joining import Energies
from llm_energy_measure.importers.loss import LossReport
from llm_energy_measure.importers.mapping import Expression

if TYPE_CHECKING:
    from pathlib import Path


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller knows and the files don't say.

    Attributes:
        host: Name of the machine that was measured.
        gpu_uuids: UUIDs of its GPUs, by index.
        mapping: For a generic table, what each field is made of; see `mapping.py`.
        energy: Records with energy that one without may be joined with.
    """

    host: str | None = None
    gpu_uuids: tuple[str, ...] = ()
    mapping: dict[str, Expression] = msgspec.field(default_factory=dict)
    energy: Energies = msgspec.field(default_factory=Energies)


Reader = Callable[[list[Original], Options, LossReport], Iterator[RawProcessResult]]
"""Makes records of the files of one measurement, enters each in the report, and yields it at once.

A format of single files is given one file at a time. The records of one experiment come one behind the other.
"""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One format of another tool.

    Attributes:
        name: Its name, for `--format`.
        looks_for: What it is recognised by, for a person.
        recognises: Whether a file is of it, or part of it; told from its content.
        read: Makes records.
        is_folder: Whether several files of one folder make a measurement.
        needs_mapping: Whether it can be read only with a mapping, and is not tried without.
        part_names: Pattern of its file names, where an empty file has no content to tell it by. What its first group
            matches is the same in all files of a measurement, and another in those of another one.
    """

    name: str
    looks_for: str
    recognises: Callable[[Original], bool]
    read: Reader
    is_folder: bool = False
    needs_mapping: bool = False
    part_names: str | None = None

    def names(self, file_name: str) -> bool:
        """True if an empty file of that name would be one of this format."""
        return self.part_names is not None and re.fullmatch(self.part_names, file_name) is not None

    def measurements(self, paths: Iterable[Path]) -> list[list[Path]]:
        """The files of a folder, by measurement; those whose names say nothing belong to the only one, or together."""
        groups: dict[str, list[Path]] = {}
        for path in paths:
            groups.setdefault(self.measurement_of(path.name), []).append(path)
        if len(groups) == 2 and (unnamed := groups.pop("", None)):
            [named] = groups.values()
            named += unnamed
        # What is named as the tool names it comes before a copy of it.
        return [sorted(groups[name], key=lambda path: (not self.names(path.name), path)) for name in sorted(groups)]

    def measurement_of(self, file_name: str) -> str:
        """What a file's name says of the measurement that it belongs to; empty if it says nothing."""
        match = None if self.part_names is None else re.match(self.part_names, file_name)
        return match[1] if match else ""

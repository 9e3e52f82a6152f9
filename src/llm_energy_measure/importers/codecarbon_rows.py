"""Rows of CodeCarbon's `emissions.csv`: whole ones, and what can be repaired with certainty of the others.

Columns are told by their names, since two versions of the tool have the same 38 names in different orders. A row is
torn if a typed column does not parse, whatever its width: concurrent writers leave rows that are padded with commas. A
row with cells omitted (the tool's issue 1304) is fitted to the header in every way that the types allow; what all ways
agree on is certain.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import msgspec

from llm_energy_measure.constants import CODECARBON_COLUMN_NAMES
from llm_energy_measure.importers.cells import number_in, shifted, time_in
from llm_energy_measure.importers.limits import MAX_CELL, require_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm_energy_measure.importers.bounded import Original

HEADER = frozenset(("timestamp", "duration", "emissions", "energy_consumed"))
"""Columns that every version has."""

NEEDED = ("timestamp", "duration", "on_cloud")
"""Columns that no whole row leaves blank: the first two tell when it was, and the last that its end is there."""

_BEGINNING = (
    "timestamp project_name run_id experiment_id duration emissions emissions_rate cpu_power gpu_power ram_power"
)
_ENERGIES = "cpu_energy gpu_energy ram_energy energy_consumed"
_PLACE, _CLOUD = "country_name country_iso_code region", "cloud_provider cloud_region"
_MACHINE = "cpu_count cpu_model gpu_count gpu_model longitude latitude ram_total_size tracking_mode"
_SOFTWARE = "os python_version codecarbon_version"
_V2 = f"{_BEGINNING} {_ENERGIES} {_PLACE} {_CLOUD} {_SOFTWARE} {_MACHINE} on_cloud pue"

LAYOUTS: dict[str, tuple[str, ...]] = {
    "3.3.0": CODECARBON_COLUMN_NAMES,
    "3.2.1": (*(name for name in CODECARBON_COLUMN_NAMES if name not in _CLOUD.split()), *_CLOUD.split()),
    "2.7": tuple(_V2.split()),
    "2.4": tuple(name for name in _V2.split() if name != "experiment_id"),
    "2.0": tuple(name for name in _V2.split() if name not in {"experiment_id", "codecarbon_version", "pue"}),
    "1.2": tuple(
        f"timestamp experiment_id project_name duration emissions energy_consumed {_PLACE} on_cloud {_CLOUD}".split()
    ),
    "1.0": tuple(f"timestamp project_name duration emissions energy_consumed {_PLACE} on_cloud {_CLOUD}".split()),
}
"""Columns in order, by the version that they were seen from."""

_KNOWN = frozenset((*CODECARBON_COLUMN_NAMES, "task_name"))

_SIZES = "cpu_count gpu_count longitude latitude ram_total_size ram_used_gb pue wue water_consumed"
_SHARES = "cpu_utilization_percent gpu_utilization_percent ram_utilization_percent"
_POWERS = "cpu_power gpu_power ram_power"
NUMBERS = frozenset(f"duration emissions emissions_rate {_POWERS} {_ENERGIES} {_SIZES} {_SHARES}".split())
_NOT_NEGATIVE = (
    *("duration", "energy_consumed", "cpu_energy", "gpu_energy", "ram_energy", "emissions"),
    *("cpu_power", "gpu_power"),
)
_WORDS = {
    "tracking_mode": re.compile("machine|process|"),
    "on_cloud": re.compile("[YN]?"),
    "country_iso_code": re.compile("(?:[A-Z]{3})?"),
}
_NO_NUMBERS = frozenset(("country_name", "region", "os", "cpu_model", "gpu_model"))
# What the tool leaves out where it does not know it, instead of leaving it blank.
_OMITTED = frozenset(
    ("region", "cloud_provider", "cloud_region", "gpu_count", "gpu_model", "longitude", "latitude"),
)
# What a record is made of; the rest of a row may stay uncertain.
_CERTAIN = frozenset(
    f"{_BEGINNING} {_ENERGIES} tracking_mode task_name".split(),
)


class Row(msgspec.Struct, frozen=True):
    """One line below the header.

    Attributes:
        line: Its number in the file, from 1.
        cells: Text of each column, blanks around it dropped; empty if the row is refused.
        code: Reason code of a repair or refusal; None for a whole row.
        sentence: What was found.
        is_refused: Whether nothing of it can be used.
    """

    line: int
    cells: dict[str, str]
    code: str | None = None
    sentence: str = ""
    is_refused: bool = False


def is_header(cells: Sequence[str]) -> bool:
    """True if these are the names of CodeCarbon's columns."""
    return set(cells) >= HEADER


def rows(original: Original) -> Iterator[Row]:
    """Every line below the first, blank ones excepted; a header in between holds from there on.

    Raises:
        RefusedFileError: In a header a column stands more than once.
    """
    header = original.header
    require_once(header, _KNOWN)
    for line, text in enumerate(original.lines(), start=1):
        bare = text.rstrip("\r\n")
        if line == 1 or not bare:
            continue
        cells = _split(bare)
        if cells is None:
            yield _refused(line, "torn", f"its quotes don't close, or a cell has more than {MAX_CELL} characters")
            continue
        stripped = [cell.strip() for cell in cells]
        if is_header(stripped):
            header = stripped
            require_once(header, _KNOWN)
            yield _refused(line, "repeated_header", "it is a header in the middle of the file, and holds from here on")
            continue
        row = _row(line, stripped, header)
        if row.code is None and "\ufffd" in bare:
            row = Row(line, row.cells, "undecodable_text", "bytes in it that are no UTF-8 were replaced")
        elif row.code is None and stripped != cells:
            row = Row(line, row.cells, "padded", "blanks around its cells were dropped")
        yield row


def _split(text: str) -> list[str] | None:
    """Cells of a line; None if it can't be one line of a table."""
    if '"' not in text:
        cells = text.split(",")
    else:
        try:
            [cells] = csv.reader([text], strict=True)
        except (csv.Error, ValueError):
            return None
    return None if len(text) > MAX_CELL and max(map(len, cells)) > MAX_CELL else cells


def _row(line: int, cells: list[str], header: list[str]) -> Row:
    """The row, whole, repaired or refused."""
    if len(cells) > len(header) and not any(cells[len(header) :]):
        kept = _row(line, cells[: len(header)], header)
        return kept if kept.is_refused else Row(line, kept.cells, "padded", "empty cells behind the last were dropped")
    problem = f"it has {len(cells)} cells under {len(header)} columns"
    code = "shifted"
    if len(cells) == len(header):
        named = dict(zip(header, cells, strict=True))
        found = _problem(named)
        if found is None:
            return Row(line, named)
        code, problem = found
    if code != "impossible_value":
        fitting = [
            (version, named)
            for version, layout in LAYOUTS.items()
            if len(layout) == len(cells) and list(layout) != header and not _problem(named := _named(layout, cells))
        ]
        if len(fitting) == 1:
            version, named = fitting[0]
            return Row(line, named, "other_layout", f"its {len(cells)} cells are those of CodeCarbon {version}")
    if len(cells) < len(header):
        realigned = _realigned(cells, header)
        if realigned is not None and not _problem(realigned):
            return Row(line, realigned, "realigned", f"{problem}; the types leave one way to fit what is needed")
        ways = "more than one way fits" if realigned is None else "no way fits"
        problem = f"{problem}, and {ways}" if any(cells) else problem
    return _refused(line, code, problem)


def _named(layout: Sequence[str], cells: list[str]) -> dict[str, str]:
    return dict(zip(layout, cells, strict=True))


def _refused(line: int, code: str, sentence: str) -> Row:
    return Row(line, {}, code, sentence, is_refused=True)


def _problem(named: dict[str, str]) -> tuple[str, str] | None:
    """Code and sentence of the first cell that is not what its column holds; None if there is none."""
    for name in NEEDED:
        if not named.get(name, "?"):  # a column that the header lacks can't be blank
            return "torn", f"{name} is blank"
    for name, cell in named.items():
        if cell and not _fits(name, cell):
            return "torn", f"{name} is {cell[:40]!r}"
    for name in _NOT_NEGATIVE:
        if named.get(name, "").startswith("-") and (number_in(named[name]) or 0) < 0:
            return "impossible_value", f"{name} is negative, {named[name]}"
    end, duration = time_in(named["timestamp"]), named["duration"]
    if end is not None and shifted(end, -float(duration)) is None:
        return "impossible_value", f"duration is {duration}, and there is no time so long before {named['timestamp']}"
    return None


def _fits(name: str, cell: str) -> bool:
    """True if a column can hold that text."""
    if name in NUMBERS:
        return number_in(cell) is not None
    if name == "timestamp":
        return time_in(cell) is not None
    if name in _NO_NUMBERS:
        return number_in(cell) is None
    pattern = _WORDS.get(name)
    return pattern is None or pattern.fullmatch(cell) is not None


def _realigned(cells: list[str], header: list[str]) -> dict[str, str] | None:
    """A row with cells omitted, fitted to its header; blank where the ways differ. None if they differ where it counts.

    Cells may be left out only of columns that the tool is known to leave out, and the rest stays in order.
    """
    choices = _choices(cells, header)
    if any(len(found) != 1 and name in _CERTAIN for name, found in zip(header, choices, strict=True)):
        return None
    named = {}
    for name, found in zip(header, choices, strict=True):
        [only] = found if len(found) == 1 else [None]
        named[name] = "" if only is None else cells[only]
    return named


def _choices(cells: list[str], header: list[str]) -> list[set[int | None]]:
    """For each column, which cell it holds in any of the ways to fit the row; None is an omitted one."""
    width, missing = len(header), len(header) - len(cells)

    def steps(column: int, omitted: int) -> Iterator[tuple[int, int | None]]:
        """How many columns are omitted after this one, and which cell it holds then."""
        name, cell = header[column], column - omitted
        if cell < len(cells) and (_fits(name, cells[cell]) if cells[cell] else name not in NEEDED):
            yield omitted, cell
        if name in _OMITTED and omitted < missing:
            yield omitted + 1, None

    # A way is known by how many columns it has omitted so far; those that lead nowhere are left out on the way back.
    reached: list[set[int]] = [{0}]
    for column in range(width):
        reached.append({after for omitted in reached[column] for after, _ in steps(column, omitted)})
    choices: list[set[int | None]] = [set() for _ in range(width)]
    alive = reached[width] & {missing}
    for column in reversed(range(width)):
        ways = [(omitted, after, cell) for omitted in reached[column] for after, cell in steps(column, omitted)]
        choices[column] = {cell for _, after, cell in ways if after in alive}
        alive = {omitted for omitted, after, _ in ways if after in alive}
    return choices

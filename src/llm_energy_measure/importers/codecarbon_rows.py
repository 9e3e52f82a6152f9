"""Read the rows of CodeCarbon's `emissions.csv`, and repair a damaged row if only one repair is possible.

Columns are identified by name, because two versions of the tool have the same 38 names in different orders. A row is
damaged if a cell does not have the type of its column. Its number of cells can be right, because concurrent writers
leave rows that are padded with commas. If the energies of a damaged row are intact, the row is kept, and its damaged
cells are blank. A row that lacks cells (CodeCarbon issue 1304) is aligned with the header in every way that the types
allow. A value is used only if it is the same in all alignments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from llm_energy_measure.constants import CODECARBON_COLUMN_NAMES
from llm_energy_measure.importers.limits import MAX_CELL, require_unique_columns
from llm_energy_measure.importers.source_file import ImportSource, split_row
from llm_energy_measure.importers.values import add_seconds, parse_number, parse_time

HEADER = frozenset(("timestamp", "duration", "emissions", "energy_consumed"))
"""Columns of every version."""

_NEVER_BLANK = ("timestamp", "duration", "on_cloud")
"""Columns that are never blank in a complete row: time and duration of the row, and a column near the end."""

ROUNDING = 1e-4
"""Greatest relative difference between a total and the sum of its components that rounding explains."""

_BEGINNING = (
    "timestamp project_name run_id experiment_id duration emissions emissions_rate cpu_power gpu_power ram_power"
)
_ENERGIES = "cpu_energy gpu_energy ram_energy energy_consumed"
COMPONENTS = ("cpu_energy", "gpu_energy", "ram_energy")
"""Columns with the energy of one component, in kWh. Their sum is `energy_consumed`."""
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
"""Columns of each layout in order, by the first version that writes the layout."""

_KNOWN = frozenset((*CODECARBON_COLUMN_NAMES, "task_name"))
_SIZES = "cpu_count gpu_count longitude latitude ram_total_size ram_used_gb pue wue water_consumed"
_SHARES = "cpu_utilization_percent gpu_utilization_percent ram_utilization_percent"
_POWERS = "cpu_power gpu_power ram_power"
NUMBERS = frozenset(f"duration emissions emissions_rate {_POWERS} {_ENERGIES} {_SIZES} {_SHARES}".split())
"""Columns with numbers."""
_NOT_NEGATIVE = tuple(f"duration {_ENERGIES} emissions cpu_power gpu_power".split())
_NOT_NUMBERS = frozenset(("country_name", "region", "os", "cpu_model", "gpu_model"))
_PATTERNS = {
    "tracking_mode": re.compile("machine|process|"),
    "on_cloud": re.compile("[YN]?"),
    "country_iso_code": re.compile("(?:[A-Z]{3})?"),
}
_TIME_OF_DAY = re.compile("[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{4} +[0-9]{1,2}:[0-9]{2}")
"""A date and a time as spreadsheets write them. It may be unknown which number is the day and which is the month."""
_OMITTED = frozenset(
    ("region", "cloud_provider", "cloud_region", "gpu_count", "gpu_model", "longitude", "latitude"),
)
"""Columns whose cells the tool omits if it does not know the value."""
_ESSENTIAL = frozenset(f"{_BEGINNING} {_ENERGIES} tracking_mode task_name".split())
"""Columns that a record needs. A row is realigned only if the cells of all these columns are certain."""


class EmissionsRow(msgspec.Struct, frozen=True):
    """One line after the header.

    Attributes:
        line: Line in the file, counted from 1.
        cells: Text of each column, without surrounding spaces; empty if the row is refused.
        code: Reason code of a repair or refusal; None if the row is complete.
        message: The reason of the repair or refusal.
        is_refused: Whether the row cannot be used.
        damaged: Columns whose cells were damaged, and are therefore blank.
        refused_cells: The cells of a refused row, which can contain the id of its run.
    """

    line: int
    cells: dict[str, str]
    code: str | None = None
    message: str = ""
    is_refused: bool = False
    damaged: frozenset[str] = frozenset()
    refused_cells: tuple[str, ...] = ()


def is_header(cells: Sequence[str]) -> bool:
    """True if the cells are column names of CodeCarbon."""
    return set(cells) >= HEADER


def read_rows(source: ImportSource) -> Iterator[EmissionsRow]:
    """Yield every line after the header that is not blank. A header between the rows applies to the rows after it.

    Raises:
        RefusedInputError: A header has a column twice.
    """
    header = source.header
    require_unique_columns(header, _KNOWN)
    for line, text in source.rows():
        cells = split_row(text)
        if cells is None:
            yield _refused(line, "torn", f"a quote is not closed, or a cell has more than {MAX_CELL} characters")
            continue
        stripped = [cell.strip() for cell in cells]
        if is_header(stripped):
            header = stripped
            require_unique_columns(header, _KNOWN)
            yield _refused(line, "repeated_header", "it is a second header, which applies to the rows after it")
            continue
        row = _align(line, stripped, header)
        if row.code is None and "\ufffd" in text:
            found = "it has bytes that are not valid UTF-8; U+FFFD replaces them"
            row = EmissionsRow(line, row.cells, "undecodable_text", found)
        elif row.code is None and stripped != cells:
            row = EmissionsRow(line, row.cells, "padded", "spaces around its cells were removed")
        yield row


def _align(line: int, cells: list[str], header: list[str]) -> EmissionsRow:
    """Return the row with its cells by column: complete, repaired or refused."""
    if len(cells) > len(header) and not any(cells[len(header) :]):
        row = _align(line, cells[: len(header)], header)
        found = "empty cells after the last column were removed"
        return row if row.is_refused or row.damaged else EmissionsRow(line, row.cells, "padded", found)
    named = dict(zip(header, cells, strict=False))
    problems = _problems(named) if len(cells) == len(header) else {}
    if len(cells) == len(header) and not problems:
        return EmissionsRow(line, named)
    shifted = "shifted", f"it has {len(cells)} cells, but the header has {len(header)}"
    code, problem = next(iter(problems.values()), shifted)
    if code != "impossible_value":
        layouts = [version for version, layout in LAYOUTS.items() if _fits_layout(cells, layout, header)]
        if len(layouts) == 1:
            named = dict(zip(LAYOUTS[layouts[0]], cells, strict=True))
            found = f"its {len(cells)} cells are the columns of CodeCarbon {layouts[0]}, not of the header"
            return EmissionsRow(line, named, "other_layout", found)
    if problems:
        return _damaged(line, named, problems)
    return (
        _refused(line, code, problem, cells) if len(cells) > len(header) else _short_row(line, cells, header, problem)
    )


def _short_row(line: int, cells: list[str], header: list[str], problem: str) -> EmissionsRow:
    """Return a row that lacks cells: aligned with the header if only one alignment is possible, otherwise refused."""
    realigned = _realigned(cells, header)
    if realigned is not None and not _problems(realigned):
        found = f"{problem}; only one assignment of its cells to the required columns fits the types of the columns"
        return EmissionsRow(line, realigned, "realigned", found)
    if any(cells):
        found = "the only assignment of its cells to the required columns has an invalid value"
        if realigned is None:
            found = "either no assignment of its cells to the columns fits the types of the columns, or several do"
        problem = f"{problem}, and {found}"
    return _refused(line, "shifted", problem, cells)


def _damaged(line: int, named: dict[str, str], problems: dict[str, tuple[str, str]]) -> EmissionsRow:
    """Return a row with invalid cells: without these cells if its energies are intact, otherwise refused."""
    code, problem = next(iter(problems.values()))
    if any(problems.get(name, ("",))[0] == "impossible_value" for name in COMPONENTS):
        found = "energy_consumed includes the negative component"
        problems.setdefault("energy_consumed", ("impossible_value", found))
    intact = _intact_cells(named, problems)
    if intact is None:
        return _refused(line, code, problem, tuple(named.values()))
    found = "; ".join(message for _, message in problems.values())
    found += "; the other energies of the row are intact, and its damaged cells are null"
    return EmissionsRow(line, intact, "damaged_cells", found, damaged=frozenset(problems))


def _intact_cells(named: dict[str, str], problems: Mapping[str, tuple[str, str]]) -> dict[str, str] | None:
    """Return the cells of a damaged row whose energies are intact, with blanks in place of the damaged cells.

    If one cell is damaged, the other cells are in their columns. If several cells are damaged, the row can be shifted.
    The energies are then intact only if the components sum to the total, and only the required columns are kept.

    Returns:
        The cells by column; None if the energies are not intact.
    """
    energies = [name for name in _ENERGIES.split() if named.get(name) and name not in problems]
    if not any(float(named[name]) for name in energies):
        return None
    # A negative number still has the type of its column, so negative numbers alone do not show a shifted row.
    is_shifted = len(problems) > 1 and any(code == "torn" for code, _ in problems.values())
    if is_shifted:
        *components, total = (float(named.get(name) or 0) if name not in problems else 0 for name in _ENERGIES.split())
        if len(energies) < 3 or not math.isclose(sum(components), total, rel_tol=ROUNDING):
            return None
    kept = named if not is_shifted else _ESSENTIAL | HEADER
    return {name: cell if name in kept and name not in problems else "" for name, cell in named.items()}


def _fits_layout(cells: list[str], layout: tuple[str, ...], header: list[str]) -> bool:
    """True if the cells are valid in the columns of a layout, and this layout is not the header."""
    if len(layout) != len(cells) or list(layout) == header:
        return False
    return not _problems(dict(zip(layout, cells, strict=True)))


def _refused(line: int, code: str, message: str, cells: Sequence[str] = ()) -> EmissionsRow:
    return EmissionsRow(line, {}, code, message, is_refused=True, refused_cells=tuple(cells))


def _problems(named: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return code and message for each column that cannot contain its cell; empty if all cells are valid."""
    # The default "?" is for a column that the header lacks: this column is missing, but not blank.
    problems = {name: ("torn", f"{name} is blank") for name in _NEVER_BLANK if not named.get(name, "?")}
    for name, cell in named.items():
        if cell and not _has_type(name, cell):
            problems[name] = "torn", f"{name} is {cell[:40]!r}, which is not valid in this column"
    for name in _NOT_NEGATIVE:
        if named.get(name, "").startswith("-") and (parse_number(named[name]) or 0) < 0:
            problems[name] = "impossible_value", f"{name} is {named[name]}, which is negative"
    if "timestamp" in problems or "duration" in problems:
        return problems
    end, duration = parse_time(named["timestamp"]), named["duration"]
    if end is not None and add_seconds(end, -float(duration)) is None:
        found = f"duration is {duration} s, so the run that ends at {named['timestamp']} would start"
        problems["duration"] = "impossible_value", f"{found} before the first year of the calendar"
    return problems


def _has_type(name: str, cell: str) -> bool:
    """True if a column can contain the text."""
    if name in NUMBERS:
        return parse_number(cell) is not None
    if name == "timestamp":
        return parse_time(cell) is not None or _TIME_OF_DAY.search(cell) is not None
    if name in _NOT_NUMBERS:
        return parse_number(cell) is None
    pattern = _PATTERNS.get(name)
    return pattern is None or pattern.fullmatch(cell) is not None


def _realigned(cells: list[str], header: list[str]) -> dict[str, str] | None:
    """Return the cells of a row that lacks cells, aligned with the header; a column whose cell is uncertain is blank.

    Only cells of the columns in `_OMITTED` may be missing. The other cells keep their order.

    Returns:
        The cells by column; None if the cell of an essential column is uncertain.
    """
    choices = _choices(cells, header)
    if any(len(found) != 1 and name in _ESSENTIAL for name, found in zip(header, choices, strict=True)):
        return None
    named = {}
    for name, found in zip(header, choices, strict=True):
        [only] = found if len(found) == 1 else [None]
        named[name] = "" if only is None else cells[only]
    return named


def _choices(cells: list[str], header: list[str]) -> list[set[int | None]]:
    """Return for each column the indices of its cells in all possible alignments; None is an omitted cell."""
    width, missing = len(header), len(header) - len(cells)

    def steps(column: int, omitted: int) -> Iterator[tuple[int, int | None]]:
        """Yield the options of a column: the number of columns omitted so far, and the index of the cell, or None."""
        name, cell = header[column], column - omitted
        if cell < len(cells) and (_has_type(name, cells[cell]) if cells[cell] else name not in _NEVER_BLANK):
            yield omitted, cell
        if name in _OMITTED and omitted < missing:
            yield omitted + 1, None

    # The state of an alignment is the number of columns omitted so far. The second pass, from the last column to the
    # first, drops states that reach no complete alignment.
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

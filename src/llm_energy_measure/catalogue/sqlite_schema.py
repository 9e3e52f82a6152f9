"""The tables and columns of the SQLite file, and the values of an experiment in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from llm_energy_measure.catalogue import config_index
from llm_energy_measure.catalogue.config_index import Part
from llm_energy_measure.catalogue.query import ALIASES, SEPARATOR
from llm_energy_measure.catalogue.summary import ExperimentScan
from llm_energy_measure.results.columns import SUMMARY_COLUMNS

_OWN_COLUMNS = {
    "experiment_id": "text",
    "status": "text",
    "verdict": "text",
    "model_name": "text",
    "backend": "text",
    "found_processes": "integer",
    "expected_processes": "integer",
    "total_energy_j": "number",
    "partial_energy_j": "number",
    "attributed_energy_j": "number",
    "attribution_factor": "number",
    "total_tokens": "integer",
    "avg_tokens_per_second": "number",
    "tokens_per_joule": "number",
    "is_lower_bound": "boolean",
    "start_time": "time",
    "config_name": "text",
    "precision": "texts",
    "hosts": "texts",
    "gpus": "texts",
    "note": "text",
    "warning_texts": "texts",
    "failed": "texts",
    "problems": "texts",
    "warning_count": "integer",
}
_EXPORT_COLUMNS = tuple(column for column in SUMMARY_COLUMNS if column.name not in {*_OWN_COLUMNS, *ALIASES})

# Columns with values of `ExperimentFacts`: type and field by name.
_FACT_COLUMNS = {"requests": ("integer", "requests"), "energy_window_sec": ("number", "window_sec")}

# An aggregate of another tool has a total and no attribution. A partial total is a lower bound.
PLAIN = "coalesce(total_energy_j, partial_energy_j)"
"""SQL of the plain sum of an experiment."""
LOW = f"coalesce(attributed_energy_j, attributed_low_j, {PLAIN})"
"""SQL of the least energy of an experiment."""
HIGH = f"coalesce(attributed_energy_j, attributed_high_j, {PLAIN})"
"""SQL of the greatest energy of an experiment."""

_SHOWN = f"iif(is_lower_bound, {LOW}, {HIGH})"

# The values that lists show. SQLite computes these columns when they are read.
_SHOWN_COLUMNS = {
    "shown_energy_j": _SHOWN,
    "shown_tokens_per_joule": f"total_tokens / nullif({HIGH}, 0)",
    "shown_plain_energy_j": PLAIN,
    "shown_plain_tokens_per_joule": f"total_tokens / nullif({PLAIN}, 0)",
    "shown_plain_joules_per_token": f"{PLAIN} / nullif(total_tokens, 0)",
    "shown_plain_joules_per_output_token": f"{PLAIN} / nullif(output_tokens, 0)",
    "shown_joules_per_request": f"{_SHOWN} / nullif(requests, 0)",
    "shown_power_w": f"{_SHOWN} / nullif(energy_window_sec, 0)",
    "shown_plain_joules_per_request": f"{PLAIN} / nullif(requests, 0)",
    "shown_plain_power_w": f"{PLAIN} / nullif(energy_window_sec, 0)",
}

COLUMNS: dict[str, str] = {
    **_OWN_COLUMNS,
    **{column.name: column.type for column in _EXPORT_COLUMNS},
    **{name: kind for name, (kind, _) in _FACT_COLUMNS.items()},
    **dict.fromkeys(_SHOWN_COLUMNS, "number"),
}
"""Type of each column by name: `text`, `texts` (several), `integer`, `number`, `boolean` or `time`."""

# The most used columns. An index over them is much smaller than the rows, and SQLite reads only this index.
_COMMON = ("model_name", "precision", "total_energy_j", "total_tokens", "start_time", "verdict", "is_lower_bound")

_SQL_TYPES = {
    "text": "TEXT",
    "texts": "TEXT",
    "integer": "INTEGER",
    "number": "REAL",
    "boolean": "INTEGER",
    "time": "REAL",
}
_MTIME_COLUMNS = "raw REAL, aggregated REAL, tags REAL"
_CHECKSUMS = "crc INTEGER, values_crc INTEGER"
DDL = (
    "CREATE TABLE experiments (folder TEXT PRIMARY KEY, has_aggregate INTEGER, listed INTEGER, natural_id TEXT, "
    + ", ".join(f"{name} {_SQL_TYPES[kind]}" for name, kind in COLUMNS.items() if name not in _SHOWN_COLUMNS)
    + "".join(f", {name} REAL AS ({sql}) VIRTUAL" for name, sql in _SHOWN_COLUMNS.items())
    + f", {', '.join(config_index.COLUMNS)}) WITHOUT ROWID",
    f"CREATE TABLE rows (folder TEXT PRIMARY KEY, {_MTIME_COLUMNS}, scanned REAL, summary BLOB, {_CHECKSUMS})",
    # Lists do not read these values. A separate table keeps the rows that lists read close together in the file.
    "CREATE TABLE details (folder TEXT PRIMARY KEY, facts BLOB, exported BLOB, crc INTEGER)",
    "CREATE TABLE tags (folder TEXT, key TEXT, value TEXT, PRIMARY KEY (folder, key)) WITHOUT ROWID",
    f"CREATE TABLE scans (only INTEGER PRIMARY KEY, scanned REAL, {_MTIME_COLUMNS}, number INTEGER)",
    "CREATE INDEX by_id ON experiments (listed, natural_id, has_aggregate)",
    "CREATE INDEX by_problem ON experiments (folder) WHERE problems IS NOT NULL",
    f"CREATE INDEX by_common ON experiments (listed, has_aggregate, {', '.join(_COMMON)})",
    *config_index.DDL,
)
INSERT = f"INSERT OR REPLACE INTO experiments VALUES ({', '.join('?' * (len(COLUMNS) - len(_SHOWN_COLUMNS) + 6))})"


def row_values(folder: str, scan: ExperimentScan, parts: tuple[Part, Part], *, has_aggregate: bool) -> tuple[Any, ...]:
    """Return the values of an experiment for `INSERT`. The parts are the two parts of its configuration."""
    row = scan.summary
    own = [getattr(row, name) for name in _OWN_COLUMNS]
    more = [
        None if scan.aggregated is None else scan.process_values.get(column.name, column.getter(scan.aggregated))
        for column in _EXPORT_COLUMNS
    ]
    facts = [getattr(scan.facts, name, None) for _, name in _FACT_COLUMNS.values()]
    fixed = (folder, has_aggregate, scan.listed, natural_text(row.experiment_id))
    return (*fixed, *map(_plain, own), *map(_plain, more), *map(_plain, facts), *(part.number for part in parts))


def natural_text(text: str) -> str:
    """Return a sort key that orders numbers in a text by value: `a_c2` before `a_c10`.

    Example:
        >>> natural_text("a_c2"), natural_text("a_c10")
        ('a_c0012', 'a_c00210')
    """
    return re.sub("[0-9]+", lambda match: f"{len(number := match[0].lstrip('0')):03}{number}", text)


def to_utc(time: datetime) -> datetime | None:
    """Return a time in UTC. A time without UTC offset is UTC. None if the year is outside 1 to 9999 in UTC."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return None


def _plain(value: Any) -> Any:
    """Convert a value to a type that SQLite can store."""
    if isinstance(value, list):
        return SEPARATOR.join(map(str, value)) or None
    if isinstance(value, datetime):
        time = to_utc(value)
        return None if time is None else time.timestamp()
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return float(value)
    return value

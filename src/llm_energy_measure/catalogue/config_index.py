"""An index of the keys and values of all configurations, instead of one column per key.

The configuration of an experiment has two parts. The first part has the keys that separate repeats: experiments with
different values are not repeats of each other. The second part has all other keys (ids, seeds, paths). Experiments with
an equal part share the rows of this part, so that the first part is stored once for all repeats.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from llm_energy_measure.domain.configuration import Value

DDL = (
    "CREATE TABLE config_parts (part INTEGER PRIMARY KEY, data BLOB)",
    "CREATE TABLE config_keys (id INTEGER PRIMARY KEY, key TEXT UNIQUE)",
    "CREATE TABLE config (part INTEGER, key INTEGER, type TEXT, value, PRIMARY KEY (part, key)) WITHOUT ROWID",
    "CREATE INDEX by_config ON experiments (listed, has_aggregate, config, other_config)",
)
COLUMNS = ("config INTEGER", "other_config INTEGER")
"""The columns of `experiments` that refer to the two parts. NULL for a part without keys."""

_DECODER = msgspec.json.Decoder(dict[str, str | int | float | bool])
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text"}


class Part(NamedTuple):
    """A part of a configuration.

    Attributes:
        number: Digest of the data, as a positive integer of 63 bits. None if the part has no keys.
        data: The keys and values as JSON.
    """

    number: int | None
    data: bytes


def part_of(configuration: dict[str, Value]) -> Part:
    """Return the part with these keys and values, which must be sorted by key."""
    data = msgspec.json.encode(configuration)
    return Part(_number_of(data) if configuration else None, data)


def _number_of(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


def decode_part(data: bytes) -> dict[str, Value]:
    """Return the keys and values of a part. Raises `ValueError` for damaged data."""
    return _DECODER.decode(data)


def store_parts(database: sqlite3.Connection, parts: Iterable[Part]) -> None:
    """Store the parts that are not stored yet."""
    known: dict[str, int] = {}
    for number, data in {part.number: part.data for part in parts}.items():
        if number is None or database.execute("SELECT 1 FROM config_parts WHERE part = ?", (number,)).fetchone():
            continue
        configuration = decode_part(data)
        if missing := [(key,) for key in configuration if key not in known]:
            database.executemany("INSERT OR IGNORE INTO config_keys (key) VALUES (?)", missing)
            known |= {
                key: database.execute("SELECT id FROM config_keys WHERE key = ?", (key,)).fetchone()[0]
                for (key,) in missing
            }
        rows = ((number, known[key], *_stored(value)) for key, value in configuration.items())
        database.execute("INSERT INTO config_parts VALUES (?, ?)", (number, data))
        database.executemany("INSERT OR REPLACE INTO config VALUES (?, ?, ?, ?)", rows)


def _stored(value: Value) -> tuple[str, str | int | float]:
    """Return the type and the stored value. SQLite has no booleans."""
    return _TYPES[type(value)], ("true" if value else "false") if isinstance(value, bool) else value


def remove_unused_parts(database: sqlite3.Connection) -> None:
    """Delete the parts of configurations, and the configuration keys, that no experiment uses."""
    # NOT IN (...) is never true if the list contains NULL.
    database.execute(
        "DELETE FROM config_parts WHERE part NOT IN (SELECT config FROM experiments WHERE config NOT NULL "
        "UNION SELECT other_config FROM experiments WHERE other_config NOT NULL)"
    )
    database.execute("DELETE FROM config WHERE part NOT IN (SELECT part FROM config_parts)")
    database.execute("DELETE FROM config_keys WHERE id NOT IN (SELECT key FROM config)")


def read_keys(database: sqlite3.Connection) -> set[str]:
    """Return the keys of all configurations."""
    return {key for (key,) in database.execute("SELECT key FROM config_keys")}


def damage(database: sqlite3.Connection) -> str | None:
    """Return the first error in the stored parts, as a text. None if there is no error."""
    keys: dict[int, str] = dict(database.execute("SELECT id, key FROM config_keys"))
    if len(set(keys.values())) < len(keys):
        return "a configuration key occurs twice"
    missing = (
        "SELECT config FROM (SELECT config FROM experiments UNION SELECT other_config FROM experiments "
        "UNION SELECT part FROM config) WHERE config NOT NULL AND config NOT IN (SELECT part FROM config_parts) LIMIT 1"
    )
    if database.execute(missing).fetchone() is not None:
        return "a configuration is missing"
    for number, data in database.execute("SELECT part, data FROM config_parts"):
        if not isinstance(data, bytes) or _number_of(data) != number:
            return "a configuration has a wrong checksum"
        wanted = {key: _stored(value) for key, value in decode_part(data).items()}
        rows = database.execute("SELECT key, type, value FROM config WHERE part = ?", (number,)).fetchall()
        if len(rows) != len(wanted) or any(wanted.get(keys.get(key, "")) != (kind, value) for key, kind, value in rows):
            return "the index of a configuration is wrong"
    return None

"""Queries of the catalogue: experiments, groups, configurations and exported values."""

from __future__ import annotations

import gc
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from llm_energy_measure.catalogue import config_index
from llm_energy_measure.catalogue.export_rows import decode_row
from llm_energy_measure.catalogue.facts import Configuration, ExperimentFacts
from llm_energy_measure.catalogue.query import Clause
from llm_energy_measure.catalogue.selection import (
    Group,
    Query,
    decoded,
    group_clause,
    group_of,
    order_keys,
    type_of,
)
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain.configuration import Value

_MAX_ROWS = 2**63 - 1
_SUMMARY_DECODER = msgspec.json.Decoder(ExperimentSummary)
_FACTS_DECODER = msgspec.json.Decoder(ExperimentFacts | None)


class Mtimes(NamedTuple):
    """Mtimes of the raw folder, the aggregate and the tags of an experiment, in seconds since 1970-01-01 UTC.

    0 means unknown, and None means that the file is absent.
    """

    raw: float | None
    aggregated: float | None
    tags: float | None


class CataloguedExperiment(NamedTuple):
    """An experiment in the catalogue.

    Attributes:
        summary: Its summary.
        facts: Facts that decide if it can be compared. None without a readable aggregate.
        configuration: Its flattened configuration. Do not change it: experiments share the dictionaries.
        settings_number: Equal for experiments with equal `configuration.settings`.
    """

    summary: ExperimentSummary
    facts: ExperimentFacts | None
    configuration: Configuration
    settings_number: int | None


class ConfigValue(NamedTuple):
    """A value of a configuration key.

    Attributes:
        key: The key.
        value: The value.
        is_other: True if the key does not separate repeats; see `facts.Configuration`.
        experiments: Number of experiments with this value.
    """

    key: str
    value: Value
    is_other: bool
    experiments: int


class ExportedExperiment(NamedTuple):
    """The exported values of an experiment.

    Attributes:
        folder: Its folder name.
        summary: Its summary.
        values: The values of `AGGREGATED_COLUMNS`. None if the aggregate cannot be read, or if a value is an integer
            of more than 63 bits.
        configuration: Its flattened configuration. Do not change it: experiments share the dictionaries.
    """

    folder: str
    summary: ExperimentSummary
    values: tuple[Any, ...] | None
    configuration: Configuration


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause the garbage collector, which frees nothing and takes a third of the time to read 20,000 experiments."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CatalogueReader:
    """The queries of a catalogue, on an open database that `index.Catalogue` keeps up to date."""

    _database: sqlite3.Connection

    def summaries(
        self, query: Query, *, sort: str = "id", reverse: bool = False, limit: int | None = None
    ) -> list[ExperimentSummary]:
        """Return the selected experiments, sorted by a column. Unknown values come last."""
        one = "SELECT summary, crc FROM rows WHERE folder = ?"
        folders = self._folders(query, sort=sort, reverse=reverse, limit=limit)
        return [_decode(*self._database.execute(one, (folder,)).fetchone()) for folder in folders]

    def values(
        self,
        query: Query,
        columns: Sequence[str],
        *,
        sort: str = "id",
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[list[Any]]:
        """Return the values of columns of the selected experiments, in the order of `summaries`."""
        found = [query.column(name, "cannot list", self._config_keys) for name in columns]
        types = [type_of(name, column) for name, column in zip(columns, found, strict=True)]
        selected = Clause(
            ", ".join(column.sql for column in found), tuple(v for column in found for v in column.values)
        )
        rows = self._select(selected, query, sort=sort, reverse=reverse, limit=limit)
        return [[decoded(kind, value) for kind, value in zip(types, row, strict=True)] for row in rows]

    def _folders(self, query: Query, *, sort: str, reverse: bool = False, limit: int | None = None) -> list[str]:
        """Return the folders of the selected experiments in the order of `summaries`."""
        rows = self._select(Clause("folder", ()), query, sort=sort, reverse=reverse, limit=limit)
        return [folder for (folder,) in rows]

    def _select(self, selected: Clause, query: Query, *, sort: str, reverse: bool, limit: int | None) -> sqlite3.Cursor:
        """Return the values of SQL expressions for the selected experiments, in the order of `summaries`."""
        clause = query.clause(self._config_keys)
        column = query.column(sort, "cannot sort", self._config_keys)
        down = " DESC" if reverse else ""
        keys = order_keys(column.sql, reverse=reverse, is_tag=bool(column.values))
        if column.sql == "experiment_id":  # an id is never unknown, and an index has this order
            keys = [f"natural_id{down}"]
        sql = (
            f"SELECT {selected.sql} FROM experiments WHERE {clause.sql} "
            f"ORDER BY {', '.join(keys)}, folder{down} LIMIT ?"
        )
        values = (*selected.values, *clause.values, *(column.values * len(keys)))
        return self._database.execute(sql, (*values, -1 if limit is None else min(limit, _MAX_ROWS)))

    def experiments(self, query: Query) -> list[CataloguedExperiment]:
        """Return the selected experiments with their facts and configurations, sorted by id."""
        return list(self.each_experiment(query))

    def each_experiment(self, query: Query, *, max_parts: int | None = None) -> Iterator[CataloguedExperiment]:
        """Yield the selected experiments with their facts and configurations, sorted by id.

        Args:
            query: The selection.
            max_parts: Largest number of configuration parts in memory. None keeps all parts, which experiments share.
        """
        parts: dict[int | None, dict[str, Value]] = {}
        clause = query.clause(self._config_keys)
        rows = self._database.execute(
            "SELECT summary, rows.crc, facts, config, other_config FROM (SELECT folder, experiment_id, config, "
            f"other_config FROM experiments WHERE {clause.sql}) JOIN rows USING (folder) "
            "JOIN details USING (folder) ORDER BY experiment_id, folder",
            clause.values,
        )
        for summary, crc, facts, *numbers in rows:
            row = _decode(summary, crc)
            if max_parts is not None and len(parts) > max_parts:
                parts.clear()
            configuration = Configuration(*(self._part(number, parts) for number in numbers))
            yield CataloguedExperiment(row, _FACTS_DECODER.decode(facts), configuration, numbers[0])

    def exported(self, folders: Iterable[str] | None = None) -> Iterator[ExportedExperiment]:
        """Yield the exported values of experiments with an aggregate.

        Args:
            folders: Folder names. None yields all experiments, in natural order of their ids.
        """
        parts: dict[int | None, dict[str, Value]] = {None: {}}
        sql = (
            "SELECT folder, summary, rows.crc, exported, config, other_config FROM experiments "
            "JOIN rows USING (folder) JOIN details USING (folder) WHERE "
        )
        if folders is None:
            sql += "listed = 1 AND has_aggregate = 1 ORDER BY natural_id, folder"
            rows: Iterable[tuple[Any, ...]] = self._database.execute(sql)
        else:
            one = f"{sql} folder = ?"  # an experiment may have been deleted since the selection
            rows = (row for folder in folders for row in self._database.execute(one, (folder,)))
        for folder, summary, crc, exported, *numbers in rows:
            configuration = Configuration(*(self._part(number, parts) for number in numbers))
            yield ExportedExperiment(folder, _decode(summary, crc), decode_row(exported), configuration)

    def config_types(self) -> dict[str, str]:
        """Return the type of each configuration key, sorted by key: `integer`, `number`, `boolean` or `text`."""
        rows = self._database.execute(
            "SELECT DISTINCT config_keys.key, type FROM config "
            "JOIN config_keys ON config_keys.id = config.key ORDER BY 1"
        )
        types: dict[str, set[str]] = {}
        for key, kind in rows:
            types.setdefault(key, set()).add(kind)
        return {key: kinds.pop() if len(kinds) == 1 else _common_type(kinds) for key, kinds in types.items()}

    def _part(self, number: int | None, parts: dict[int | None, dict[str, Value]]) -> dict[str, Value]:
        """Return a part of a configuration, which experiments share. Do not change it."""
        if number is None:
            return parts.setdefault(None, {})
        if number not in parts:
            [data] = self._database.execute("SELECT data FROM config_parts WHERE part = ?", (number,)).fetchone()
            parts[number] = config_index.decode_part(data)
        return parts[number]

    def config_values(self, query: Query) -> list[ConfigValue]:
        """Return the distinct values of each configuration key of the selected experiments, in any order."""
        clause = query.clause(self._config_keys)
        rows = self._database.execute(
            f"WITH selected AS (SELECT config, other_config FROM experiments WHERE {clause.sql}), "
            "parts AS (SELECT config AS part, 0 AS is_other, count(*) AS number FROM selected GROUP BY config "
            "UNION ALL SELECT other_config, 1, count(*) FROM selected GROUP BY other_config) "
            "SELECT config_keys.key, value, type = 'boolean' AS is_boolean, max(is_other), sum(number) "
            "FROM parts JOIN config USING (part) JOIN config_keys ON config_keys.id = config.key "
            "GROUP BY config.key, is_boolean, value",
            clause.values,
        )
        return [
            ConfigValue(key, value == "true" if is_boolean else value, bool(is_other), experiments)
            for key, value, is_boolean, is_other, experiments in rows
        ]

    def _config_keys(self) -> set[str]:
        return config_index.read_keys(self._database)

    def count(self, query: Query) -> int:
        """Return the number of selected experiments."""
        clause = query.clause(self._config_keys)
        [number] = self._database.execute(
            f"SELECT count(*) FROM experiments WHERE {clause.sql}", clause.values
        ).fetchone()
        return int(number)

    def pending(self) -> int:
        """Return the number of experiments without an aggregate."""
        sql = "SELECT count(*) FROM experiments WHERE listed = 1 AND has_aggregate = 0"
        return int(self._database.execute(sql).fetchone()[0])

    def problems(self, query: Query) -> list[tuple[str, str]]:
        """Return id and text of each problem of the experiments that match, or may match because a value is unknown."""
        base = query.scope()
        clause = query.condition(self._config_keys)
        sql = (
            "SELECT folder FROM experiments INDEXED BY by_problem "
            f"WHERE problems IS NOT NULL AND {base} AND ({clause.sql}) IS NOT 0"
        )
        rows = self._database.execute(
            f"SELECT summary, crc FROM rows WHERE folder IN ({sql}) ORDER BY folder", clause.values
        )
        found = (_decode(*row) for row in rows)
        return [(summary.experiment_id, problem) for summary in found for problem in summary.problems]

    def sources(self) -> Iterator[tuple[Any, ...]]:
        """Yield start, folder, the three mtimes, and the checksum of the row of each experiment with an aggregate.

        Times are in seconds since 1970-01-01 UTC; None is unknown or absent.
        """
        sql = (
            "SELECT start_time, folder, raw, aggregated, rows.tags, crc FROM experiments JOIN rows USING (folder) "
            "WHERE listed = 1 AND has_aggregate = 1 ORDER BY folder"
        )
        return self._database.execute(sql)

    def groups(self, query: Query, by: Sequence[str], *, sort: str | None = None, reverse: bool = False) -> list[Group]:
        """Return the totals of the selected experiments, grouped by columns.

        Args:
            query: The selection.
            by: Names of columns. If empty, all selected experiments form one group.
            sort: One of `GROUP_FIGURES` or of the columns. By default, groups are sorted by the columns. Unknown values
                come last.
            reverse: Sort in descending order.
        """
        clause, kinds = group_clause(query, by, sort=sort, reverse=reverse, keys=self._config_keys)
        return [group_of(by, kinds, row) for row in self._database.execute(clause.sql, clause.values)]


def _common_type(kinds: set[str]) -> str:
    return "number" if kinds == {"integer", "number"} else "text"


def _decode(data: bytes, checksum: int) -> ExperimentSummary:
    """Decode the summary in a row. Raises `sqlite3.DatabaseError` if the checksum is wrong."""
    if zlib.crc32(data) != checksum:
        raise sqlite3.DatabaseError("a row has a wrong checksum")
    return _SUMMARY_DECODER.decode(data)

"""Select the experiments of a bundle, and find the experiments of the same configurations that are not selected.

A temporary database stores the facts about the experiments, so that memory contains only the ids.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from llm_energy_measure.analysis.observations import (
    DifferingKeys,
    Observation,
    facts_of,
    group_name,
    observations_of,
)
from llm_energy_measure.bundle.contents import LeftOut, Selection
from llm_energy_measure.bundle.name_table import scratch_database
from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.cli import terminal
from llm_energy_measure.cli.selection import selected
from llm_energy_measure.results.repository import FileSystemRepository

# Why an experiment is left out. The key says if the command line has ids, and if it has a condition.
_REASONS = {
    (True, False): "its id was not given",
    (False, True): "it does not match the condition",
    (True, True): "the ids and the condition do not select it",
}

# Facts that can differ between repeats if some processes of a repeat have no result.
_OF_FOUND_PROCESSES = frozenset({"processes", "gpus", "hosts", "method", "libraries"})

_BATCH = 256

_TABLES = """
CREATE TABLE identities (digest BLOB PRIMARY KEY, facts BLOB) WITHOUT ROWID;
CREATE TABLE repeats (
    folder TEXT PRIMARY KEY, id TEXT, settings INTEGER, name TEXT, identity BLOB,
    is_packed INTEGER, is_excluded INTEGER, is_unknown INTEGER
) WITHOUT ROWID;
"""
_GROUPS = """
CREATE TABLE packed_groups AS
    SELECT settings, name, identity, min(folder) AS first, max(is_excluded) AS has_excluded
    FROM repeats WHERE is_packed GROUP BY settings, name, identity;
CREATE INDEX by_key ON packed_groups (settings, name, identity);
"""
_IN_PACKED_GROUP = """
SELECT folder, id, settings, identity FROM repeats JOIN packed_groups USING (settings, name, identity)
WHERE NOT is_packed
"""
_MAY_BE_REPEATS = """
SELECT folder, id, own.facts, settings, packed_groups.identity, its.facts
FROM repeats JOIN packed_groups USING (settings, name)
JOIN identities AS own ON own.digest = repeats.identity JOIN identities AS its ON its.digest = packed_groups.identity
WHERE NOT is_packed AND (is_excluded OR has_excluded) ORDER BY folder, first
"""

_GroupKey = tuple[int, bytes]  # settings_number, digest of the identity


def select(repository: FileSystemRepository, ids: Sequence[str], where: str | None) -> Selection:
    """Return the selected experiments, and the experiments of the same configurations that are not selected.

    Args:
        repository: The results directory.
        ids: Ids and globs of the command line. May be empty.
        where: Condition of the command line. If there are neither ids nor a condition, all experiments are selected.

    Raises:
        ResultNotFoundError: An id is unknown, or no experiment is selected.
        ConfigurationError: The condition is wrong.
    """
    if not ids and where is None:
        return Selection(found=sorted(_all_folders(repository)))
    found = {repository.folder_of(name) for name in selected(repository, ids, where)}
    selection = Selection(condition=where, requested_ids=sorted(set(ids)) or None, found=sorted(found))

    def add_others(catalogue: Catalogue) -> None:
        with scratch_database() as database:
            repeats = _Repeats(repository, catalogue, database, found)
            selection.left_out = repeats.left_out(_REASONS[bool(ids), where is not None])
            listed = {repository.folder_of(one.experiment_id) for one in selection.left_out}
            selection.unknown_configuration = sorted(repeats.unknown() - listed)

    query_catalogue(repository, add_others, full=True, warn=terminal.warn)
    return selection


def _all_folders(repository: FileSystemRepository) -> set[str]:
    return {*repository.list_experiments(), *repository.list_aggregated()}


class _Repeats:
    """Finds the repeats of the packed experiments in a results directory.

    Experiments are repeats by the rule of `group_observations`. If an experiment is excluded from statistics, for
    example because results of processes are missing, some of its facts can differ from the facts of its repeats.
    The comparison with this experiment then uses only the settings and the facts that do not depend on the processes.
    """

    def __init__(
        self, repository: FileSystemRepository, catalogue: Catalogue, database: sqlite3.Connection, packed: set[str]
    ) -> None:
        """Read the facts of all experiments into the database."""
        self._repository = repository
        self._catalogue = catalogue
        self._database = database
        self._packed = packed
        self._differing = DifferingKeys()
        database.executescript(_TABLES)
        for settings, identity, one in self._observations():
            self._differing.add(facts_of(one))
            folder = repository.folder_of(one.experiment_id)
            is_unknown = one.excluded is not None and not one.configuration and "model" not in one.identity
            # Without a configuration, the identity contains the id without the final `_c<n>` of repeats.
            name = one.identity.get("id") or ""
            flags = (folder in packed, one.excluded is not None, is_unknown)
            digest = _digest(identity)
            row = (folder, one.experiment_id, settings, name, digest, *flags)
            database.execute("INSERT OR REPLACE INTO repeats VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("INSERT OR IGNORE INTO identities VALUES (?, ?)", (digest, identity))
        database.executescript(_GROUPS)

    def _observations(self) -> Iterator[tuple[int, bytes, Observation]]:
        """Yield the `settings_number` (-1 if unknown), the identity as JSON and the observation of each experiment."""
        found = self._catalogue.each_experiment(Query(with_pending=True), max_parts=_BATCH)
        while batch := list(islice(found, _BATCH)):
            for experiment, one in zip(batch, observations_of(batch, ""), strict=True):
                number = experiment.settings_number
                yield -1 if number is None else number, msgspec.json.encode(one.identity), one

    def left_out(self, reason: str) -> list[LeftOut]:
        """Return the experiments that are not packed and have the configuration of a packed experiment."""
        found: dict[str, tuple[str, _GroupKey]] = {}
        for folder, own_id, settings, identity in self._database.execute(_IN_PACKED_GROUP):
            found[folder] = own_id, (settings, identity)
        for folder, own_id, facts, settings, identity, its_facts in self._database.execute(_MAY_BE_REPEATS):
            if folder not in found and _agree(msgspec.json.decode(facts), msgspec.json.decode(its_facts)):
                found[folder] = own_id, (settings, identity)
        names = self._names({key for _, key in found.values()})
        return [
            LeftOut(experiment_id=own_id, reason=reason, configuration=names[key])
            for _, (own_id, key) in sorted(found.items())
        ]

    def _names(self, keys: set[_GroupKey]) -> dict[_GroupKey, str]:
        """Return the name of each group of repeats, by its key."""
        names: dict[_GroupKey, str] = {}
        differing = self._differing.keys()
        for settings, identity, one in self._observations() if keys else ():
            key = (settings, _digest(identity))
            if key in keys and key not in names:
                facts = facts_of(one)
                names[key] = group_name(one, {name: facts.get(name) for name in differing})
        return names

    def unknown(self) -> set[str]:
        """Return the folder names of the experiments that are not packed and have an unknown configuration."""
        known = self._database.execute("SELECT folder FROM repeats WHERE NOT is_unknown")
        others = _all_folders(self._repository) - self._packed
        others.difference_update(folder for (folder,) in known)
        return others


def _digest(identity: bytes) -> bytes:
    return hashlib.blake2b(identity, digest_size=16).digest()


def _agree(facts: dict[str, str | None], others: dict[str, str | None]) -> bool:
    shared = facts.keys() & others.keys() - _OF_FOUND_PROCESSES
    return all(facts[key] == others[key] for key in shared)

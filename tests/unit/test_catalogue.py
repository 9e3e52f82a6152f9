"""The catalogue: the same answers as a scan, also with a damaged file, and incremental refreshes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.catalogue import database, index
from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.paths import cache_folder, catalogue_path, dataset_path, is_on_network
from llm_energy_measure.catalogue.selection import Group, Query
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.catalogue.summary import ExperimentSummary, summarize
from llm_energy_measure.domain.formatting import natural_key
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["open_folder"]  # a fixture

ALL = Query(with_pending=True)
LONG_AGO = 1_700_000_000


def age(folder: Path) -> None:
    """Set mtimes that are old enough to be trusted; aggregates are newer than raw folders."""
    for path in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        later = 100 if path.parent.name == "aggregated" else 0
        if path.name.startswith(".catalogue.sqlite"):
            continue
        os.utime(path, (LONG_AGO + later, LONG_AGO + later))


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """One experiment of each state: current, partial, stale, pending, external, damaged, empty, tagged."""
    repository = FileSystemRepository(tmp_path / "results")
    for name, model in (("a", "llama"), ("b", "llama"), ("c", "mistral"), ("stale", "llama")):
        for record in factories.raws(2, name, model_name=model):
            repository.save_raw(name, record)
    repository.save_raw("half", factories.raw("half", 0, world_size=2, host="node-1"))
    list(aggregate_all(repository, strict=False))
    repository.save_raw("stale", factories.raw("stale", 2, model_name="llama"))
    repository.save_raw("pending", factories.raw("pending"))
    repository.save_aggregated(factories.aggregated("external"))
    (repository.base_path / "aggregated" / "torn.json").write_bytes(b"{")
    (repository.base_path / "raw" / "nothing").mkdir()
    change_tags(repository.store, "a", {"paper": "fig3"})
    age(repository.base_path)
    late = LONG_AGO + 200
    os.utime(repository.base_path / "raw" / "stale", (late, late))
    return repository


def scanned(repository: FileSystemRepository) -> list[ExperimentSummary]:
    """Return the rows of a scan without a catalogue."""
    names = sorted({*repository.list_experiments(), *repository.list_aggregated()}, key=natural_key)
    return [summarize(repository, name) for name in names]


def listed(repository: FileSystemRepository, *, rehash: bool = False, **limits: Any) -> list[ExperimentSummary]:
    return query_catalogue(repository, lambda catalogue: catalogue.summaries(ALL), rehash=rehash, **limits)


def file_of(repository: FileSystemRepository) -> Path:
    return repository.base_path / ".catalogue.sqlite"


def test_rows_equal_those_of_a_scan(repository: FileSystemRepository) -> None:
    rows = scanned(repository)
    assert {row.experiment_id: row.verdict for row in rows} == {
        **dict.fromkeys("abc", "undetermined"), "external": "external", "half": "partial",
        "pending": "pending", "stale": "stale", "torn": "unreadable",
    }  # fmt: skip
    assert listed(repository) == rows
    assert listed(repository) == rows, "rows from the file"
    assert file_of(repository).is_file()
    assert listed(repository, rehash=True) == rows


def test_store_without_mtimes_is_read_every_time() -> None:
    repository = FileSystemRepository("unused", store=MemoryStore())
    repository.save_raw("a", factories.raw("a"))
    assert [row.verdict for row in listed(repository)] == ["pending"]
    list(aggregate_all(repository))
    assert listed(repository) == scanned(repository)
    assert [row.verdict for row in listed(repository)] == ["complete"]


# Incremental refresh


class RecordingRepository(FileSystemRepository):
    """A repository that records the experiments whose aggregates were read."""

    def __init__(self, base_path: Path) -> None:
        super().__init__(base_path)
        self.read: list[str] = []

    def read_aggregated(self, experiment_id: str) -> bytes | None:
        self.read.append(experiment_id)
        return super().read_aggregated(experiment_id)


def test_refresh_reads_only_changed_experiments(repository: FileSystemRepository) -> None:
    recording = RecordingRepository(repository.base_path)
    listed(recording)
    assert sorted(recording.read) == ["a", "b", "c", "external", "half", "nothing", "pending", "stale", "torn"]
    recording.read.clear()
    listed(recording)
    assert recording.read == []
    change_tags(repository.store, "c", {"x": "1"})
    repository.save_raw("b", factories.raw("b", 2, model_name="llama"))
    rows = {row.experiment_id: row for row in listed(recording)}
    assert sorted(recording.read) == ["b", "c"]
    assert (rows["b"].verdict, rows["c"].tags) == ("stale", {"x": "1"})
    recording.read.clear()
    repository.delete_experiment("a")
    assert "a" not in {row.experiment_id for row in listed(recording)}
    recording.read.clear()
    listed(recording, rehash=True)
    assert len(recording.read) == 8


def test_recent_mtime_is_not_trusted(repository: FileSystemRepository) -> None:
    recent = time.time() + 60  # in the future, so that a slow machine does not make it old
    os.utime(repository.base_path / "raw" / "a", (recent, recent))
    recording = RecordingRepository(repository.base_path)
    listed(recording)
    recording.read.clear()
    listed(recording)
    assert recording.read == ["a"]


def test_refresh_of_many_compares_only_mtimes_of_the_three_folders(repository: FileSystemRepository) -> None:
    (repository.base_path / ".catalogue.sqlite").unlink(missing_ok=True)

    def answer(catalogue: Catalogue) -> tuple[bool, list[str]]:
        return catalogue.is_current, [
            row.verdict for row in catalogue.summaries(Query(where="id = b", with_pending=True))
        ]

    assert query_catalogue(repository, answer, scan_limit=2) == (True, ["undetermined"])
    later = LONG_AGO + 300
    assert query_catalogue(repository, answer, scan_limit=2) == (False, ["undetermined"])
    repository.save_raw("b", factories.raw("b", 2, model_name="llama"))
    os.utime(repository.base_path / "raw", (LONG_AGO, LONG_AGO))
    assert query_catalogue(repository, answer, scan_limit=2) == (False, ["undetermined"]), "as of before"
    assert query_catalogue(repository, answer, full=True, scan_limit=2) == (True, ["stale"])
    os.utime(repository.base_path / "aggregated", (later, later))
    assert query_catalogue(repository, answer, scan_limit=2)[0] is True


# Damaged and locked files


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"This is not a database, but as long as one." * 60),
    "half-written": truncated,
    "garbage": overwritten,
    "a folder": folder_instead,
    "another version": lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 7").connection.close(),
    "other tables": lambda path: sqlite3.connect(path).execute("DROP TABLE rows").connection.close(),
    "a torn row": lambda path: _execute(path, "UPDATE rows SET summary = '{' WHERE folder = 'b'"),
    "an emptied row": lambda path: _execute(path, "UPDATE rows SET summary = NULL WHERE folder = 'b'"),
    "a row with invalid UTF-8": lambda path: _execute(
        path, "UPDATE rows SET folder = CAST(x'ff' AS TEXT) WHERE folder = 'b'"
    ),
    "an invalid mtime": lambda path: _execute(path, "UPDATE rows SET scanned = NULL, raw = 'x'"),
    "another letter": lambda path: _execute(
        path, "UPDATE rows SET summary = CAST(replace(CAST(summary AS TEXT), 'llama', 'lhama') AS BLOB)"
    ),
    "a wrong value": lambda path: _execute(path, "UPDATE experiments SET duration_sec = 7 WHERE folder = 'b'"),
    "a wrong tag": lambda path: _execute(path, "UPDATE tags SET value = 'fig4'"),
    "an extra tag": lambda path: _execute(path, "INSERT INTO tags VALUES ('b', 'paper', 'fig4')"),
    "deleted experiments": lambda path: _execute(path, "DELETE FROM experiments WHERE folder > 'b'"),
    "a deleted row": lambda path: _execute(path, "DELETE FROM rows WHERE folder = 'b'"),
}


def _execute(path: Path, sql: str) -> None:
    database = sqlite3.connect(path)
    database.execute(sql)
    database.commit()
    database.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_catalogue_gives_the_same_answers(repository: FileSystemRepository, damage: str) -> None:
    rows, expected = listed(repository), answers(repository)
    DAMAGES[damage](file_of(repository))
    assert answers(repository) == expected
    assert listed(repository) == rows == scanned(repository)


def answers(repository: FileSystemRepository, **limits: Any) -> list[object]:
    """Return the answers of queries that use all stored values."""

    def query(catalogue: Catalogue) -> list[object]:
        where = Query(where="flops_per_joule > 0 or duration_sec > 0 or tag.paper = fig3", with_pending=True)
        return [
            catalogue.summaries(ALL),
            *(catalogue.summaries(ALL, sort=column) for column in ("throughput", "end_time", "tag.paper")),
            *(catalogue.groups(ALL, by) for by in ([], ["model", "precision"], ["tag.paper"], ["duration_sec"])),
            *(catalogue.summaries(where), catalogue.count(ALL), catalogue.pending(), catalogue.problems(ALL)),
        ]

    return query_catalogue(repository, query, **limits)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scan_limit", [index.SCAN_LIMIT, 2], ids=["few", "many"])
def test_changed_bytes_anywhere_in_the_file_change_no_answer(
    repository: FileSystemRepository, scan_limit: int, seed: int
) -> None:
    expected = answers(repository, scan_limit=scan_limit)
    path, generator = file_of(repository), random.Random(seed)
    original = path.read_bytes()
    for _ in range(15):
        data = bytearray(original)
        size = generator.choice([1, 1, 2, 50, 512, 4096])
        start = generator.randrange(len(data) - size)
        data[start : start + size] = generator.choice([bytes(size), generator.randbytes(size)])
        database.remove(path)
        path.write_bytes(data)
        assert answers(repository, scan_limit=scan_limit) == expected


def test_only_a_file_with_wrong_fingerprint_is_checked(repository: FileSystemRepository, tmp_path: Path) -> None:
    listed(repository, scan_limit=2)
    path = file_of(repository)
    assert database.is_unmodified(path)
    change_tags(repository.store, "b", {"x": "1"})
    listed(repository, scan_limit=2)
    assert database.is_unmodified(path), "a refresh saves a new fingerprint"
    _execute(path, "UPDATE rows SET scanned = scanned - 1")
    assert not database.is_unmodified(path)
    warnings: list[str] = []
    query_catalogue(repository, lambda catalogue: catalogue.count(ALL), warn=warnings.append, scan_limit=2)
    assert (warnings, database.is_unmodified(path)) == ([], True), "the check found no damage"
    fingerprint, outside = path.with_name(f"{path.name}-seal"), tmp_path / "outside"
    outside.write_bytes(b"{")
    fingerprint.unlink()
    fingerprint.symlink_to(outside)
    assert not database.is_unmodified(path)
    assert listed(repository, scan_limit=2) == scanned(repository)
    assert (outside.read_bytes(), database.is_unmodified(path)) == (b"{", True)
    fingerprint.unlink()
    fingerprint.mkdir()
    assert listed(repository, scan_limit=2) == scanned(repository), (
        "without a fingerprint, the file is checked each time"
    )


def test_change_in_write_ahead_log_of_another_program_is_detected(repository: FileSystemRepository) -> None:
    expected = answers(repository)
    other = sqlite3.connect(file_of(repository))
    other.execute("UPDATE experiments SET duration_sec = 7 WHERE folder = 'b'")
    other.commit()  # to the write-ahead log, which the last connection copies to the file
    assert answers(repository) == expected
    other.close()
    assert answers(repository) == expected


def test_no_fingerprint_is_saved_if_another_program_wrote(repository: FileSystemRepository) -> None:
    expected = answers(repository)
    query_catalogue(repository, lambda _: _execute(file_of(repository), "UPDATE experiments SET duration_sec = 7"))
    assert not database.is_unmodified(file_of(repository))
    assert answers(repository) == expected


def test_deleted_rows_are_restored(repository: FileSystemRepository) -> None:
    expected = answers(repository, scan_limit=2)
    _execute(file_of(repository), "DELETE FROM rows WHERE folder = 'b'")
    _execute(file_of(repository), "DELETE FROM experiments WHERE folder = 'b'")
    assert answers(repository, scan_limit=2) == expected


def test_damage_is_reported_once_and_repaired(repository: FileSystemRepository) -> None:
    listed(repository)
    file_of(repository).write_bytes(b"x" * 5000)
    warnings: list[str] = []
    query_catalogue(repository, lambda catalogue: catalogue.count(ALL), warn=warnings.append)
    assert len(warnings) == 1
    assert "is damaged" in warnings[0]
    query_catalogue(repository, lambda catalogue: catalogue.count(ALL), warn=warnings.append)
    assert len(warnings) == 1


def test_locked_catalogue_is_bypassed(repository: FileSystemRepository) -> None:
    rows = listed(repository)
    change_tags(repository.store, "b", {"x": "1"})
    rows = [row if row.experiment_id != "b" else summarize(repository, "b") for row in rows]
    holder = sqlite3.connect(file_of(repository), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    warnings: list[str] = []
    assert (
        query_catalogue(repository, lambda catalogue: catalogue.summaries(ALL), warn=warnings.append, busy_sec=0.05)
        == rows
    )
    assert "locked" in warnings[0]
    holder.execute("ROLLBACK")
    holder.close()
    assert listed(repository) == rows


def test_catalogue_of_read_only_directory_is_in_the_cache(
    repository: FileSystemRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).startswith(str(repository.base_path)))
    assert listed(repository) == scanned(repository)
    assert not file_of(repository).exists()
    [cached] = (tmp_path / "cache" / "llm-energy-measure").glob("*.sqlite")
    assert cached == catalogue_path(repository.base_path)


def test_second_user_of_a_directory_has_derived_files_in_the_cache(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(open_folder / "cache"))
    repository = FileSystemRepository(open_folder / "results")
    repository.save_raw("a", factories.raw("a"))
    own = (catalogue_path(repository.base_path), dataset_path(repository.base_path))
    assert own == (file_of(repository), repository.base_path / "dataset")
    rows = listed(repository)
    own[1].mkdir()
    for folder in (repository.base_path, repository.base_path / "raw", repository.base_path / "raw" / "a"):
        folder.chmod(0o777)
    for path in own:
        path.chmod(0o755)

    def other() -> tuple[list[ExperimentSummary], list[str], Path | None, Path]:
        warnings: list[str] = []
        rows = query_catalogue(
            repository, lambda catalogue: catalogue.summaries(ALL), rehash=True, warn=warnings.append
        )
        return rows, warnings, catalogue_path(repository.base_path), dataset_path(repository.base_path)

    found = outcome_in_child(other, unprivileged=True)
    assert isinstance(found, tuple), found
    assert found[:2] == (rows, [])
    assert {path.parent for path in found[2:]} == {open_folder / "cache" / "llm-energy-measure"}


def test_catalogue_is_in_memory_without_a_writable_folder(
    repository: FileSystemRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert catalogue_path(repository.base_path) is None
    assert listed(repository) == scanned(repository)


def test_cache_folder_follows_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "llm-energy-measure"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "llm-energy-measure"


def test_is_on_network_reads_the_mount_table(tmp_path: Path) -> None:
    own = tmp_path.resolve()
    mounts = f"/dev/vda / ext4 rw 0 0\nserver:/x {own} nfs4 rw 0 0\ntmpfs {own}/local tmpfs rw 0 0\n"
    assert is_on_network(own, mounts)
    assert is_on_network(own / "results", mounts)
    assert not is_on_network(own / "local" / "results", mounts)
    assert not is_on_network(own.parent, mounts)
    assert is_on_network(tmp_path / "a b", f"x {own}/a\\040b fuse.sshfs rw 0 0\n")


FIRST_USE = """
import sys, threading
from llm_energy_measure.catalogue import summary

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)


def decode():
    barrier.wait()
    summary._embedded(b'{"process_results": [{"host": "a"}]}')


threads = [threading.Thread(target=decode) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
REFRESH = """
import sys
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.results import FileSystemRepository
rows = query_catalogue(FileSystemRepository(sys.argv[1]), lambda c: c.summaries(Query(with_pending=True)))
print([(row.experiment_id, row.verdict, row.total_energy_j) for row in rows])
"""


def test_concurrent_refreshes_give_the_same_answer(repository: FileSystemRepository) -> None:
    for number in range(40):
        shutil.copytree(repository.base_path / "raw" / "pending", repository.base_path / "raw" / f"more_{number}")
    wanted = [(row.experiment_id, row.verdict, row.total_energy_j) for row in scanned(repository)]
    running = [
        subprocess.Popen([sys.executable, "-c", REFRESH, str(repository.base_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in running] == [f"{wanted}\n"] * 4
    assert [(row.experiment_id, row.verdict, row.total_energy_j) for row in listed(repository)] == wanted


def test_older_scan_does_not_replace_later_scan(repository: FileSystemRepository) -> None:
    """A slow refresh writes its rows after a faster one has written newer rows."""
    slow, fast = (Catalogue(repository, file_of(repository)) for _ in range(2))
    [scans] = slow._scans(slow._mtimes(), rehash=False)
    repository.save_raw("b", factories.raw("b", 2, model_name="llama"))
    fast.refresh()
    slow._store(scans, fast.as_of - 1)
    assert [row.verdict for row in slow.summaries(Query(where="id = b"))] == ["stale"]
    slow.close()
    fast.close()


# Queries


def test_groups_add_up_to_the_totals(repository: FileSystemRepository) -> None:
    def answer(catalogue: Catalogue) -> tuple[list[Group], list[Group]]:
        return catalogue.groups(ALL, ["model", "verdict"]), catalogue.groups(ALL, [])

    groups, [total] = query_catalogue(repository, answer)
    assert sum(group.experiments for group in groups) == total.experiments == 8
    assert sum(group.total_energy_j or 0 for group in groups) == pytest.approx(total.total_energy_j)
    assert (total.unknown_energy, total.lower_bounds) == (2, 1)
    llama = next(group for group in groups if group.by == {"model": "llama", "verdict": "undetermined"})
    assert (llama.experiments, llama.total_energy_j, llama.total_tokens) == (2, 2 * 4193.0, 2 * 16484)
    assert llama.tokens_per_joule == pytest.approx(16484 / 4193)
    assert (llama.undetermined, llama.corrected, llama.attributed_energy_j) == (2, 0, None)
    assert (llama.attributed_low_j, llama.attributed_high_j) == (2 * 2221.5, 2 * 4193.0)
    assert llama.attributed_tokens_per_joule == pytest.approx(16484 / 4193)
    assert groups[-1].by["model"] is None


def test_total_of_unknown_values_is_unknown(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_aggregated(factories.aggregated("a", total_energy_j=None, total_tokens=2**62))
    repository.save_aggregated(factories.aggregated("b", total_energy_j=None, total_tokens=2**63))
    [group] = query_catalogue(repository, lambda catalogue: catalogue.groups(Query(), []))
    assert (group.total_energy_j, group.tokens_per_joule, group.unknown_energy) == (None, None, 2)
    assert group.total_tokens == 2**62 + 2**63


def test_unknown_column_is_rejected(repository: FileSystemRepository) -> None:
    for query in (
        lambda catalogue: catalogue.groups(ALL, ["colour"]),
        lambda catalogue: catalogue.summaries(ALL, sort="colour"),
        lambda catalogue: catalogue.count(Query(where="colour = red")),
    ):
        with pytest.raises(ConfigurationError, match="no column 'colour'"):
            query_catalogue(repository, query)


@pytest.mark.parametrize("column", [*COLUMNS, "tag.paper"])
def test_every_column_can_sort_filter_and_group(repository: FileSystemRepository, column: str) -> None:
    def answer(catalogue: Catalogue) -> tuple[int, int, int]:
        known = catalogue.count(Query(where=f"{column} is not unknown", with_pending=True))
        unknown = catalogue.count(Query(where=f"{column} is unknown", with_pending=True))
        grouped = sum(group.experiments for group in catalogue.groups(ALL, [column]))
        assert len(catalogue.summaries(ALL, sort=column, reverse=True, limit=3)) == 3
        return known + unknown, grouped, catalogue.count(ALL)

    assert query_catalogue(repository, answer) == (8, 8, 8)


def test_numeric_tags_are_sorted_as_numbers(repository: FileSystemRepository) -> None:
    for name, rate in (("a", "10"), ("b", "9"), ("c", "1e-3"), ("half", "low")):
        change_tags(repository.store, name, {"rate": rate})

    def order(catalogue: Catalogue) -> list[list[str]]:
        return [
            [row.experiment_id for row in catalogue.summaries(ALL, sort="tag.rate", reverse=reverse, limit=4)]
            for reverse in (False, True)
        ]

    assert query_catalogue(repository, order) == [["c", "b", "a", "half"], ["a", "b", "c", "half"]]


def test_any_limit_is_accepted(repository: FileSystemRepository) -> None:
    assert len(query_catalogue(repository, lambda catalogue: catalogue.summaries(ALL, limit=2**70))) == 8


def test_too_large_query_is_rejected_and_keeps_the_file(repository: FileSystemRepository) -> None:
    listed(repository)
    before = file_of(repository).stat().st_ino
    warnings: list[str] = []
    deep = f"SELECT {'- ' * 2_000}1"
    with pytest.raises(ConfigurationError, match="cannot answer the query: it is too large for SQLite"):
        query_catalogue(
            repository, lambda catalogue: catalogue._database.execute(deep).fetchall(), warn=warnings.append
        )
    assert (warnings, file_of(repository).stat().st_ino) == ([], before)


def test_clock_set_back_hides_no_change(repository: FileSystemRepository) -> None:
    listed(repository, scan_limit=2)
    _execute(file_of(repository), "UPDATE rows SET scanned = scanned + 86400")
    _execute(file_of(repository), "UPDATE scans SET scanned = scanned + 86400")
    change_tags(repository.store, "c", {"x": "1"})
    repository.save_raw("b", factories.raw("b", 2, model_name="llama"))
    repository.delete_experiment("a")

    def answer(catalogue: Catalogue) -> tuple[list[ExperimentSummary], bool]:
        return catalogue.summaries(ALL), catalogue.as_of <= time.time()

    assert query_catalogue(repository, answer, scan_limit=2) == (scanned(repository), True)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_unsafe_catalogue_file_is_named_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repository = FileSystemRepository(tmp_path / "results")
    repository.save_raw("exp", factories.raw("exp"))
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    path = tmp_path / "results" / f".catalogue.sqlite{suffix}"
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    warnings: list[str] = []
    for _ in range(2):
        found = query_catalogue(repository, lambda catalogue: catalogue.count(ALL), warn=warnings.append)
        assert found == 1
    assert [f"({path} is a " in warning for warning in warnings] == [True, True]
    assert outside.read_bytes() == b""
    assert os.path.lexists(path)


def test_received_catalogue_is_rebuilt_although_its_checksums_are_right(tmp_path: Path) -> None:
    sender, receiver = FileSystemRepository(tmp_path / "sender"), FileSystemRepository(tmp_path / "receiver")
    for record in factories.raws(2, "exp"):
        sender.save_raw("exp", record)
    list(aggregate_all(sender))
    age(sender.base_path)
    true = query_catalogue(sender, lambda catalogue: catalogue.summaries(ALL))
    path = sender.base_path / ".catalogue.sqlite"
    forged = msgspec.json.encode(msgspec.structs.replace(true[0], model_name="forged"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE rows SET summary = ?, crc = ?", (forged, zlib.crc32(forged)))
    assert query_catalogue(sender, lambda catalogue: catalogue.summaries(ALL))[0].model_name == "forged"
    shutil.copytree(sender.base_path, receiver.base_path)
    assert query_catalogue(receiver, lambda catalogue: catalogue.summaries(ALL)) == true


def test_first_use_of_records_in_several_threads_does_not_crash() -> None:
    """msgspec prepares a class of records at its first use. With 16 threads, 9 of 10 processes crashed."""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", FIRST_USE], check=True)

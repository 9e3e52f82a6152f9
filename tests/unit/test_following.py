"""`aggregate --all` keeps the catalogue up to date, so that the first list reads nothing again."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from llm_energy_measure.catalogue.following import keep_catalogue
from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.paths import catalogue_path
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    """Return a repository of 25 experiments that were saved long ago."""
    repository = FileSystemRepository(tmp_path)
    for number in range(25):
        repository.save_raw(f"exp_{number:02d}", factories.raw(f"exp_{number:02d}"))
    for folder in (tmp_path / "raw").iterdir():
        os.utime(folder, (1e9, 1e9))
    return repository


def path_of(repository: FileSystemRepository) -> Path:
    """Return the path of the catalogue."""
    path = catalogue_path(repository.base_path)
    assert path is not None
    return path


def rows(repository: FileSystemRepository) -> set[str]:
    """Return the folders that have a row in the catalogue."""
    with closing(Catalogue(repository, path_of(repository))) as catalogue:
        return {folder for (folder,) in catalogue._database.execute("SELECT folder FROM rows")}


def test_rows_are_written_while_experiments_are_aggregated(repository: FileSystemRepository) -> None:
    outcomes = keep_catalogue(repository, aggregate_all(repository), min_rows=10, min_age_sec=0)
    seen = {next(outcomes).experiment_id for _ in range(12)}
    assert len(rows(repository) & seen) == 10
    seen |= {outcome.experiment_id for outcome in outcomes}
    assert rows(repository) == seen
    assert len(seen) == 25


@pytest.mark.parametrize(("number", "is_scanned"), [(25, True), (26, False)])
def test_a_scan_follows_very_many_aggregates(
    repository: FileSystemRepository, number: int, *, is_scanned: bool
) -> None:
    options = {"min_rows": 10, "min_age_sec": 0, "min_scanned": number}
    list(keep_catalogue(repository, aggregate_all(repository), **options))
    with closing(Catalogue(repository, path_of(repository), scan_limit=10)) as catalogue:
        assert (catalogue._database.execute("SELECT number FROM scans").fetchone() == (25,)) is is_scanned
        before = time.time()
        catalogue.refresh()
        assert (0 < catalogue.as_of < before) is is_scanned  # the list uses that scan


def test_the_next_list_gives_the_same_answer(repository: FileSystemRepository) -> None:
    list(keep_catalogue(repository, aggregate_all(repository), min_rows=10, min_age_sec=0))
    followed = query_catalogue(repository, lambda catalogue: catalogue.summaries(Query()))
    rebuilt = query_catalogue(repository, lambda catalogue: catalogue.summaries(Query()), rehash=True)
    assert followed == rebuilt
    assert {row.status for row in followed} == {"current"}


def test_rows_of_old_files_are_not_read_again(repository: FileSystemRepository) -> None:
    list(aggregate_all(repository))
    for path in (repository.base_path / "aggregated").iterdir():
        os.utime(path, (1e9 + 1, 1e9 + 1))
    with closing(Catalogue(repository, path_of(repository))) as catalogue:
        catalogue.update([f"exp_{number:02d}" for number in range(25)])
        columns = "SELECT folder, raw, aggregated, tags, scanned FROM rows"
        known = {row[0]: row[1:] for row in catalogue._database.execute(columns)}
        assert all(catalogue._is_known(found, known[folder]) for folder, found in catalogue._mtimes().items())


def test_few_aggregates_and_young_ones_write_no_catalogue(repository: FileSystemRepository) -> None:
    list(keep_catalogue(repository, aggregate_all(repository), min_rows=26, min_age_sec=0))
    list(keep_catalogue(repository, aggregate_all(repository, force=True), min_rows=10, min_age_sec=3600))
    assert not path_of(repository).exists()


def test_a_damaged_catalogue_does_not_stop_the_aggregation(repository: FileSystemRepository) -> None:
    path = path_of(repository)
    path.write_bytes(b"SQLite format 3\0" + b"junk" * 1000)
    outcomes = list(keep_catalogue(repository, aggregate_all(repository), min_rows=10, min_age_sec=0))
    assert [outcome.result for outcome in outcomes] == ["aggregated"] * 25


def test_an_interruption_keeps_the_rows_so_far(repository: FileSystemRepository) -> None:
    outcomes = keep_catalogue(repository, aggregate_all(repository), min_rows=5, min_age_sec=0)
    for _ in range(7):
        next(outcomes)
    del outcomes  # as after Ctrl-C
    assert len(rows(repository)) == 5
    start = time.time()
    assert query_catalogue(repository, lambda catalogue: catalogue.as_of) >= start

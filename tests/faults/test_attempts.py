"""Earlier attempts of an experiment: kept while it is there, gone with it, never in the way of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT


def begin(repository: FileSystemRepository, attempt: int, experiment_id: str = EXP) -> None:
    repository.begin_experiment(Manifest(experiment_id=experiment_id, attempt=attempt))


@pytest.mark.parametrize("asked_for", ["a/b", "a_b"])
def test_a_deleted_experiment_takes_its_earlier_attempts_with_it(tmp_path: Path, asked_for: str) -> None:
    repository = FileSystemRepository(tmp_path)
    for attempt in (0, 1, 3):
        begin(repository, attempt, "a/b")
        repository.save_raw("a/b", factories.raw("a/b"))
    assert repository.delete_experiment(asked_for) is True
    assert list((tmp_path / "raw").iterdir()) == []
    for attempt in (0, 1):
        begin(repository, attempt, "a/b")  # used to go round for ever
        repository.save_raw("a/b", factories.raw("a/b"))


def test_a_deletion_leaves_the_earlier_attempt_of_another_that_had_the_folder(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    begin(repository, 0, "a/b")
    repository.save_raw("a/b", factories.raw("a/b"))
    earlier = tmp_path / "raw" / ".a_b~attempt-0"
    (tmp_path / "raw" / "a_b").rename(earlier)  # as if killed while it began the next attempt
    repository.save_raw("a_b", factories.raw("a_b"))
    assert repository.delete_experiment("a_b") is True
    assert (earlier / "process_0.json").exists()


def test_an_attempt_whose_place_beside_is_taken_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    begin(repository, 0)
    path = repository.save_raw(EXP, factories.raw())
    taken = tmp_path / "raw" / f".{EXP}~attempt-0"
    taken.mkdir()
    (taken / "notes.txt").touch()
    with pytest.raises(ResultExistsError, match="what another attempt 0 left is kept in") as caught:
        begin(repository, 1)
    assert str(caught.value).endswith(f"{taken}; move it away")
    assert repository.list_raw(EXP) == [path]
    assert [file.name for file in taken.iterdir()] == ["notes.txt"]

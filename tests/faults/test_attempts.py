"""Tests of earlier attempts: they are kept and deleted with their experiment, and never stop the next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store import codec
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT


def begin(repository: FileSystemRepository, attempt: int, experiment_id: str = EXP) -> None:
    repository.begin_experiment(Manifest(experiment_id=experiment_id, attempt=attempt))


@pytest.mark.parametrize("asked_for", ["a/b", "a_b"])
def test_delete_removes_the_earlier_attempts_too(tmp_path: Path, asked_for: str) -> None:
    repository = FileSystemRepository(tmp_path)
    for attempt in (0, 1, 3):
        begin(repository, attempt, "a/b")
        repository.save_raw("a/b", factories.raw("a/b"))
    assert repository.delete_experiment(asked_for) is True
    assert list((tmp_path / "raw").iterdir()) == []
    for attempt in (0, 1):
        begin(repository, attempt, "a/b")  # this call never returned in an earlier version
        repository.save_raw("a/b", factories.raw("a/b"))


def test_delete_keeps_an_attempt_of_another_id_with_the_same_folder(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    begin(repository, 0, "a/b")
    repository.save_raw("a/b", factories.raw("a/b"))
    earlier = tmp_path / "raw" / ".a_b~attempt-0"
    (tmp_path / "raw" / "a_b").rename(earlier)  # as if the process was killed when it began the next attempt
    repository.save_raw("a_b", factories.raw("a_b"))
    assert repository.delete_experiment("a_b") is True
    assert (earlier / "process_0.json").exists()


def test_begin_fails_and_changes_nothing_if_the_archive_name_exists(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    begin(repository, 0)
    path = repository.save_raw(EXP, factories.raw())
    taken = tmp_path / "raw" / f".{EXP}~attempt-0"
    taken.mkdir()
    (taken / "notes.txt").touch()
    with pytest.raises(ResultExistsError, match="results of another run with attempt number 0 are in") as caught:
        begin(repository, 1)
    assert str(caught.value).endswith(f"{taken}; move this folder away")
    assert repository.list_raw(EXP) == [path]
    assert [file.name for file in taken.iterdir()] == ["notes.txt"]


def save_two_attempts(repository: FileSystemRepository) -> None:
    """Save two results in attempt 0 and one in attempt 1. One file of attempt 0 is unreadable."""
    begin(repository, 0)
    paths = [repository.save_raw(EXP, record) for record in factories.raws(2)]
    paths[1].write_bytes(b"")
    begin(repository, 1)
    repository.save_raw(EXP, factories.raw(gpu_name="second"))


def test_recover_raw_reads_the_attempt_that_is_asked_for(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    save_two_attempts(repository)
    assert repository.list_attempts(EXP) == [0]
    assert repository.list_attempts("other") == []
    recovery = repository.recover_raw(EXP, attempt=0)
    assert recovery.results == [factories.raw()]
    assert [file.name for file in recovery.unreadable] == ["process_1.json"]
    assert recovery.manifest == Manifest(experiment_id=EXP)
    assert [record.gpu_name for record in repository.load_all_raw(EXP)] == ["second"]


def test_show_names_the_earlier_attempts_and_shows_one(tmp_path: Path) -> None:
    save_two_attempts(FileSystemRepository(tmp_path))
    done = run("-o", tmp_path, "results", "show", EXP)
    assert "earlier attempts: 0; use --attempt N to show one" in done.err
    shown = run("-o", tmp_path, "results", "show", EXP, "--attempt", "0", "--json")
    assert [record["gpu_name"] for record in shown.json()] == [factories.raw().gpu_name]
    assert shown.status == 1
    assert f"{EXP}, attempt 0: process_1.json is unreadable: the file is empty (0 bytes)" in shown.err
    assert "NVIDIA" in run("-o", tmp_path, "results", "show", EXP, "--attempt", "0").out
    missing = run("-o", tmp_path, "results", "show", EXP, "--attempt", "5")
    assert missing.status == 1
    assert missing.err == (
        f"error: attempt 5 of {EXP!r} not found: the earlier attempts are 0; "
        "omit --attempt to see the current attempt\n"
    )


def test_check_finds_earlier_attempts_and_their_unfinished_files(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    save_two_attempts(repository)
    archive = tmp_path / "raw" / f".{EXP}~attempt-0"
    unfinished = archive / ".process_3.json~00000000-00000000-1-0123abcd"
    unfinished.write_bytes(codec.encode_raw(factories.raw(process_index=3)))
    found = {finding.key: finding for finding in check_store(repository, [EXP])}
    assert found[f"raw/{archive.name}"].code == "raw.earlier_attempt"
    assert found[f"raw/{archive.name}"].message == "a later attempt replaced this attempt, which has 2 results"
    assert found[f"raw/{archive.name}/{unfinished.name}"].code == "raw.unpublished"
    assert found.keys() <= {finding.key for finding in check_store(repository)}


def test_check_and_delete_accept_an_id_with_earlier_attempts_only(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for record in factories.raws(2):
        repository.save_raw(EXP, record)
    folder = tmp_path / "raw" / EXP
    folder.rename(folder.with_name(f".{EXP}~attempt-0"))
    assert run("-o", tmp_path, "results", "check", EXP).status == 0
    assert run("-o", tmp_path, "results", "delete", EXP, "--yes").status == 0
    assert list((tmp_path / "raw").iterdir()) == []

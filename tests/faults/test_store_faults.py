"""Tests of file system faults: no permission, no space, many writers, modes that another user set."""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.constants import HIDDEN_MARK, MAX_FILE_BYTES
from llm_energy_measure.exceptions import InvalidResultError, ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.store import codec
from llm_energy_measure.storage.local import LocalStore
from tests.support import factories
from tests.support.children import open_folder, outcome_in_child, outcomes_in_children

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["open_folder"]  # a fixture

EXP = factories.EXPERIMENT
LARGE = bytes(2_000_000)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"*{HIDDEN_MARK}*"))


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# Permissions of new files


@pytest.mark.usefixtures("umask")
def test_new_files_and_folders_take_the_umask(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    path = repository.save_raw(EXP, factories.raw())
    made = repository.save_aggregated(aggregate_results(EXP, repository.load_all_raw(EXP)))
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    with pytest.raises(ResultExistsError) as caught:
        repository.save_raw(EXP, factories.raw())
    assert caught.value.kept is not None
    for file in (path, made, caught.value.kept):
        assert stat.S_IMODE(file.stat().st_mode) == 0o640, file
    for folder in (tmp_path / "results", path.parent, path.parent.parent, made.parent):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o750, folder


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to change the group of a folder"
)
def test_new_files_take_the_group_of_a_setgid_folder(tmp_path: Path) -> None:
    base = tmp_path / "results"
    base.mkdir()
    os.chown(base, -1, 12345)
    base.chmod(0o2775)
    path = FileSystemRepository(base).save_raw(EXP, factories.raw())
    assert {file.stat().st_gid for file in (path, path.parent, path.parent.parent)} == {12345}


# Permission denied


def test_save_in_a_read_only_folder_fails_and_leaves_no_file(open_folder: Path) -> None:
    path = FileSystemRepository(open_folder).save_raw(EXP, factories.raw())
    path.parent.chmod(0o555)
    save = partial(FileSystemRepository(open_folder).save_raw, EXP, factories.raw(process_index=1))
    outcome = outcome_in_child(save, unprivileged=True)
    assert isinstance(outcome, StorageError)
    assert str(outcome) == f"cannot write {path.parent / 'process_1.json'}: Permission denied; check the permissions"
    assert sorted(file.name for file in path.parent.iterdir()) == ["manifest.json", "process_0.json"]


def test_error_says_that_a_read_only_folder_cannot_keep_the_record(open_folder: Path) -> None:
    path = FileSystemRepository(open_folder).save_raw(EXP, factories.raw())
    path.parent.chmod(0o555)
    impossible = factories.raw(energy_metrics=factories.energy(total_energy_j=-1.0))
    outcome = outcome_in_child(partial(FileSystemRepository(open_folder).save_raw, EXP, impossible), unprivileged=True)
    assert isinstance(outcome, InvalidResultError)
    assert outcome.kept is None
    assert str(outcome).endswith("the record could not be kept (Permission denied), so save it in another place")


def test_one_unreadable_file_does_not_hide_the_other_files(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    [repository.save_raw(EXP, record) for record in factories.raws(2)]
    repository.list_raw(EXP)[0].chmod(0)

    def recover() -> tuple[list[int], list[tuple[str, str]]]:
        recovery = repository.recover_raw(EXP)
        return (
            [record.process_index for record in recovery.results],
            [(file.name, file.reason) for file in recovery.unreadable],
        )

    assert outcome_in_child(recover, unprivileged=True) == ([1], [("process_0.json", "Permission denied")])


def test_conflict_with_an_unreadable_file_keeps_the_record(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    path = repository.save_raw(EXP, factories.raw())
    path.chmod(0)
    path.parent.chmod(0o777)
    outcome = outcome_in_child(partial(repository.save_raw, EXP, factories.raw()), unprivileged=True)
    assert isinstance(outcome, ResultExistsError)
    assert outcome.kept == path.with_name("rejected-process_0-1.json.kept")


@pytest.mark.parametrize("mode", [0o000, 0o333])
def test_unreadable_results_directory_is_an_error_with_advice(open_folder: Path, mode: int) -> None:
    repository = FileSystemRepository(open_folder)
    repository.save_raw(EXP, factories.raw())
    (open_folder / "raw").chmod(mode)
    outcome = outcome_in_child(repository.list_experiments, unprivileged=True)
    (open_folder / "raw").chmod(0o755)
    assert isinstance(outcome, StorageError)
    assert str(outcome) == f"cannot list {open_folder / 'raw'}: Permission denied; check the permissions"


def test_refused_deletion_keeps_all_raw_results(open_folder: Path) -> None:
    repository = FileSystemRepository(open_folder)
    path = repository.save_raw(EXP, factories.raw())
    (open_folder / "raw").chmod(0o555)
    outcome = outcome_in_child(partial(repository.delete_experiment, EXP), unprivileged=True)
    assert isinstance(outcome, StorageError)
    assert repository.list_raw(EXP) == [path]
    assert not leftovers(open_folder)


# No space left


@pytest.mark.parametrize("older", [None, b"older"])
def test_put_and_create_on_a_full_disk_keep_the_old_file_only(tmp_path: Path, older: bytes | None) -> None:
    store = LocalStore(tmp_path)
    path = store.path("raw/exp/process_0.json")
    if older is not None:
        store.put("raw/exp/process_0.json", older)
    for call in (
        partial(store.put, "raw/exp/process_0.json", LARGE),
        partial(store.create, "raw/exp/process_1.json", LARGE),
    ):
        outcome = outcome_in_child(call, file_size_limit=100_000)
        assert isinstance(outcome, StorageError)
        assert str(outcome).startswith(f"cannot write {path.parent}/process_")
        assert [file.read_bytes() for file in path.parent.iterdir()] == ([] if older is None else [older])


def test_overwrite_on_a_full_disk_keeps_the_old_record(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    stored = path.read_bytes()
    long = factories.raw(effective_config={"prompt": "x" * 200_000})
    outcome = outcome_in_child(partial(repository.save_raw, EXP, long, overwrite=True), file_size_limit=100_000)
    assert isinstance(outcome, StorageError)
    assert path.read_bytes() == stored
    assert not leftovers(tmp_path)


# Many writers


def test_one_of_eight_writers_of_one_result_wins(tmp_path: Path) -> None:
    records = [factories.raw(gpu_name=f"writer {number}") for number in range(8)]
    saves = [partial(FileSystemRepository(tmp_path).save_raw, EXP, record) for record in records]
    outcomes = outcomes_in_children(saves)
    won = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
    assert len(won) == 1
    repository = FileSystemRepository(tmp_path)
    assert repository.load_all_raw(EXP) == [records[won[0]]]
    refused = [outcome for outcome in outcomes if isinstance(outcome, ResultExistsError)]
    assert len(refused) == 7
    assert len({error.kept for error in refused if error.kept and error.kept.exists()}) == 7
    assert not leftovers(tmp_path)


def test_writers_of_identical_results_all_succeed(tmp_path: Path) -> None:
    saves = [partial(FileSystemRepository(tmp_path).save_raw, EXP, factories.raw()) for _ in range(8)]
    assert len(set(outcomes_in_children(saves))) == 1
    assert sorted(path.name for path in (tmp_path / "raw" / EXP).iterdir()) == ["manifest.json", "process_0.json"]


def test_processes_of_one_experiment_save_at_the_same_time(tmp_path: Path) -> None:
    records = factories.raws(8)
    outcomes_in_children([partial(FileSystemRepository(tmp_path).save_raw, EXP, record) for record in records])
    assert FileSystemRepository(tmp_path).load_all_raw(EXP) == records
    assert not leftovers(tmp_path)


def test_concurrent_overwrites_store_one_and_keep_the_old_record(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw(EXP, factories.raw())
    records = [factories.raw(gpu_name=f"writer {number}") for number in range(6)]
    saves = [partial(repository.save_raw, EXP, record, overwrite=True) for record in records]
    assert not [outcome for outcome in outcomes_in_children(saves) if isinstance(outcome, Exception)]
    kept = [path.read_bytes() for path in (tmp_path / "raw" / EXP).glob("superseded-*")]
    assert codec.encode_raw(factories.raw()) in kept
    assert repository.load_all_raw(EXP)[0] in records
    assert not leftovers(tmp_path)


# Files that a reader must not wait for


def test_file_over_the_size_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "raw" / EXP / "process_0.json"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a sparse file uses no disk space
    [unreadable] = FileSystemRepository(tmp_path).recover_raw(EXP).unreadable
    assert unreadable.reason == "it has 1,073,741,825 bytes; the limit is 1,073,741,824"


def test_unfinished_file_of_a_killed_process_is_no_result(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    path.with_name(f".process_1.json{HIDDEN_MARK}99-abcd").write_bytes(b'{"half')
    assert repository.list_raw(EXP) == [path]
    assert repository.recover_raw(EXP).unreadable == []

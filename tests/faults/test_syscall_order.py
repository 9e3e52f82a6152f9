"""Tests of the order of system calls. A kill test cannot find a missing fsync; only a crash of the machine would.

The tests replace no function: Python's profiler and audit hooks report the calls.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.creation import create_bundle
from llm_energy_measure.bundle.opening import open_bundle
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.temporary import target_name
from tests.support import factories
from tests.support.syscalls import STORAGE, Call, problems, recorded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/fd")

EXP = factories.EXPERIMENT
RESULT = "/r/raw/exp/process_0.json"
TEMP = "/r/raw/exp/.process_0.json~1"
FOLDER = "/r/raw/exp"

RIGHT = [
    Call("open", TEMP),
    Call("write", TEMP),
    Call("fsync", TEMP),
    Call("close", TEMP),
    Call("link", TEMP, RESULT),
    Call("remove", TEMP),
    Call("open", FOLDER),
    Call("fsync", FOLDER),
    Call("close", FOLDER),
]


def describe(calls: list[Call], base: Path) -> list[str]:
    """Return one text per call: `temp` for an unfinished file, else the path relative to the results directory."""

    def short(path: str) -> str:
        if not path:
            return ""
        return "temp" if target_name(Path(path).name) else os.path.relpath(path, base)

    return [" ".join(filter(None, (call.name, short(call.path), short(call.new_path)))) for call in calls]


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    (tmp_path / "raw" / EXP).mkdir(parents=True)
    return FileSystemRepository(tmp_path)


def test_save_syncs_the_file_before_and_the_folder_after_the_link(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw(process_index=1))
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    folder = f"raw/{EXP}"
    assert describe(calls, repository.base_path) == [
        "open temp",
        "write temp",
        "fsync temp",
        "close temp",
        f"link temp {folder}/process_0.json",
        "remove temp",
        f"open {folder}",
        f"fsync {folder}",
        f"close {folder}",
    ]
    assert problems(calls, str(repository.list_raw(EXP)[0])) == []


def test_save_syncs_the_parents_of_an_existing_folder_first(
    repository: FileSystemRepository,
) -> None:
    """The process that created the folder may have been killed before it synced the parent."""
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    names = describe(calls, repository.base_path)
    assert [call for call in names if call.startswith("fsync")][:3] == ["fsync raw", "fsync .", "fsync .."]
    assert names.index("fsync ..") < names.index("open temp")


def test_save_syncs_the_parent_of_each_new_folder_first(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    names = describe(calls, tmp_path)
    for parent, folder in ((".", "results"), ("results", "results/raw"), ("results/raw", f"results/raw/{EXP}")):
        assert names.index(f"mkdir {folder}") < names.index(f"fsync {parent}") < names.index("open temp")
    assert problems(calls, str(repository.list_raw(EXP)[0])) == []


@pytest.mark.parametrize("older", [None, b"older"])
def test_put_syncs_the_file_before_and_the_folder_after_the_rename(tmp_path: Path, older: bytes | None) -> None:
    store = LocalStore(tmp_path)
    store.put("derived/other", b"") if older is None else store.put("derived/one", older)
    calls = recorded(partial(store.put, "derived/one", b"newer"))
    assert describe(calls, tmp_path) == [
        "open temp",
        "write temp",
        "fsync temp",
        "close temp",
        "rename temp derived/one",
        "open derived",
        "fsync derived",
        "close derived",
    ]
    assert problems(calls, str(tmp_path / "derived" / "one")) == []


def test_put_many_writes_syncs_once_renames_then_syncs_the_folders(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_many({"derived/one": b"older", "other/three": b""})
    calls = recorded(partial(store.put_many, {"derived/one": b"1", "derived/two": b"2", "other/three": b"3"}))
    assert describe(calls, tmp_path) == [
        *(["open temp", "write temp", "close temp"] * 3),
        "syncfs temp",
        "close temp",
        *(f"rename temp {name}" for name in ("derived/one", "derived/two", "other/three")),
        *(f"{call} {folder}" for folder in ("derived", "other") for call in ("open", "fsync", "close")),
    ]
    for name in ("derived/one", "derived/two", "other/three"):
        assert problems(calls, str(tmp_path / name)) == []


def test_aggregate_is_synced_before_its_rename(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw())
    made = aggregate_results(EXP, repository.load_all_raw(EXP))
    calls = recorded(partial(repository.save_aggregated, made))
    assert problems(calls, str(repository.base_path / "aggregated" / f"{EXP}.json")) == []


def test_overwrite_keeps_the_old_result_before_it_removes_its_name(
    repository: FileSystemRepository,
) -> None:
    repository.save_raw(EXP, factories.raw())
    calls = recorded(partial(repository.save_raw, EXP, factories.raw(gpu_name="another"), overwrite=True))
    names = describe(calls, repository.base_path)
    folder = f"raw/{EXP}"
    # Python reports no call for the exchange. The folder is synced after the exchange, after the link and at the end.
    kept = names.index(f"link temp {folder}/superseded-process_0-1.json.kept")
    assert names[kept + 1 : kept + 4] == [f"open {folder}", f"fsync {folder}", f"close {folder}"]
    last_removal = len(names) - 1 - names[::-1].index("remove temp")
    assert names.index("fsync temp") < names.index(f"fsync {folder}") < kept < last_removal
    assert names[-1] == f"close {folder}"


def test_exchange_syncs_the_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"older")
    calls = recorded(partial(store.exchange, "raw/one", b"newer"))
    assert describe(calls, tmp_path)[-3:] == ["open raw", "fsync raw", "close raw"]


def test_move_folder_syncs_the_parent(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/a/one", b"")
    calls = recorded(partial(store.move_folder, "raw/a", "raw/b"))
    assert describe(calls, tmp_path) == ["rename raw/a raw/b", "open raw", "fsync raw", "close raw"]


def test_create_syncs_the_folder_before_it_reports_an_existing_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"theirs")
    calls = recorded(partial(store.create, "raw/one", b"ours"))
    names = describe(calls, tmp_path)
    assert names[names.index("link temp raw/one") :] == [
        *("link temp raw/one", "remove temp", "open raw", "fsync raw", "close raw")
    ]


# The checker must find each mistake


def test_checker_accepts_the_correct_order() -> None:
    assert problems(RIGHT, RESULT) == []


def without(name: str, path: str) -> list[Call]:
    return [call for call in RIGHT if (call.name, call.path) != (name, path)]


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        (without("fsync", TEMP), "not synced between the last write and its publication"),
        ([*without("fsync", TEMP), Call("fsync", TEMP)], "not synced between the last write and its publication"),
        ([Call("fsync", TEMP), *without("fsync", TEMP)], "not synced between the last write and its publication"),
        (without("fsync", FOLDER), "its folder not synced after its publication"),
        ([Call("fsync", FOLDER), *without("fsync", FOLDER)], "its folder not synced after its publication"),
        ([*without("fsync", TEMP), Call("syncfs", TEMP)], "not synced between the last write and its publication"),
        (without("link", TEMP), "published 0 times"),
        ([*without("write", TEMP), Call("write", TEMP)], "written after it was published"),
        ([*RIGHT, Call("write", RESULT)], "written in place"),
        ([Call("mkdir", FOLDER), *RIGHT], "a new folder not synced in raw"),
    ],
)
def test_checker_finds_a_missing_or_misplaced_call(calls: list[Call], problem: str) -> None:
    assert problem in problems(calls, RESULT)


WITHOUT_SYNC = """
def write(path, data, temp):
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, data)
    os.close(descriptor)
    os.replace(temp, path)
"""


def test_checker_finds_a_writer_of_the_package_without_sync(tmp_path: Path) -> None:
    names: dict[str, Any] = {"os": os}
    exec(compile(WITHOUT_SYNC, f"{STORAGE}/without_sync.py", "exec"), names)  # noqa: S102 - compiled as a module of the storage package
    path, temp = str(tmp_path / "one"), str(tmp_path / "temp")
    calls = recorded(partial(names["write"], path, b"torn", temp))
    assert [call.name for call in calls] == ["open", "write", "close", "rename"]
    assert problems(calls, path) == [
        "not synced between the last write and its publication",
        "its folder not synced after its publication",
    ]


def test_calls_of_other_packages_are_not_recorded(tmp_path: Path) -> None:
    assert recorded(partial((tmp_path / "one").write_bytes, b"torn")) == []


def test_open_bundle_syncs_its_files_before_the_folder_appears(
    repository: FileSystemRepository, tmp_path: Path
) -> None:
    repository.save_raw(EXP, factories.raw())
    path = create_bundle(repository, tmp_path / "a.zip", Selection(found=[EXP])).path
    target = tmp_path / "opened"

    def extract() -> None:
        with opened(path) as source:
            open_bundle(source, target)

    assert describe(recorded(extract), tmp_path)[-7:] == [
        "syncfs temp",
        "open temp",
        "close temp",
        "rename temp opened",
        "open .",
        "fsync .",
        "close .",
    ]

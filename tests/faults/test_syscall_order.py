"""The order of system calls: SIGKILL can't reveal a missing fsync, a crash of the machine would.

Nothing of ours is replaced: Python's profiler and audit hooks tell what is called.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.storage.atomic import target_name
from llm_energy_measure.storage.local import LocalStore
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


def told(calls: list[Call], base: Path) -> list[str]:
    """The calls with short names: `temp` for an unfinished file, otherwise the path under the results directory."""

    def short(path: str) -> str:
        if not path:
            return ""
        return "temp" if target_name(Path(path).name) else os.path.relpath(path, base)

    return [" ".join(filter(None, (call.name, short(call.path), short(call.new_path)))) for call in calls]


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    (tmp_path / "raw" / EXP).mkdir(parents=True)
    return FileSystemRepository(tmp_path)


def test_a_raw_result_is_synced_before_and_its_folder_after_it_gets_its_name(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw(process_index=1))
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    folder = f"raw/{EXP}"
    assert told(calls, repository.base_path) == [
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


def test_a_folder_that_somebody_else_made_has_a_durable_name_before_a_result_stands_in_it(
    repository: FileSystemRepository,
) -> None:
    """Its maker may have been stopped before it synced the folder above."""
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    said = told(calls, repository.base_path)
    assert [call for call in said if call.startswith("fsync")][:3] == ["fsync raw", "fsync .", "fsync .."]
    assert said.index("fsync ..") < said.index("open temp")


def test_new_folders_are_synced_in_their_parents_before_a_result_stands_in_them(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    calls = recorded(partial(repository.save_raw, EXP, factories.raw()))
    said = told(calls, tmp_path)
    for parent, folder in ((".", "results"), ("results", "results/raw"), ("results/raw", f"results/raw/{EXP}")):
        assert said.index(f"mkdir {folder}") < said.index(f"fsync {parent}") < said.index("open temp")
    assert problems(calls, str(repository.list_raw(EXP)[0])) == []


@pytest.mark.parametrize("older", [None, b"older"])
def test_a_durable_put_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path: Path, older: bytes | None) -> None:
    store = LocalStore(tmp_path)
    store.put("derived/other", b"") if older is None else store.put("derived/one", older)
    calls = recorded(partial(store.put, "derived/one", b"newer"))
    assert told(calls, tmp_path) == [
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


def test_a_batch_is_written_whole_synced_once_then_renamed_and_its_folders_synced(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_many({"derived/one": b"older", "other/three": b""})
    calls = recorded(partial(store.put_many, {"derived/one": b"1", "derived/two": b"2", "other/three": b"3"}))
    assert told(calls, tmp_path) == [
        *(["open temp", "write temp", "close temp"] * 3),
        "syncfs temp",
        "close temp",
        *(f"rename temp {name}" for name in ("derived/one", "derived/two", "other/three")),
        *(f"{call} {folder}" for folder in ("derived", "other") for call in ("open", "fsync", "close")),
    ]
    for name in ("derived/one", "derived/two", "other/three"):
        assert problems(calls, str(tmp_path / name)) == []


def test_an_aggregate_is_synced_before_it_is_renamed(repository: FileSystemRepository) -> None:
    repository.save_raw(EXP, factories.raw())
    made = aggregate_results(EXP, repository.load_all_raw(EXP))
    calls = recorded(partial(repository.save_aggregated, made))
    assert problems(calls, str(repository.base_path / "aggregated" / f"{EXP}.json")) == []


def test_an_overwritten_result_has_its_second_name_before_the_first_is_removed(
    repository: FileSystemRepository,
) -> None:
    repository.save_raw(EXP, factories.raw())
    calls = recorded(partial(repository.save_raw, EXP, factories.raw(gpu_name="another"), overwrite=True))
    said = told(calls, repository.base_path)
    folder = f"raw/{EXP}"
    # The exchange itself is no call that Python tells of; the folder is synced after it, after the link, after the end.
    kept = said.index(f"link temp {folder}/superseded-process_0-1.json")
    assert said[kept + 1 : kept + 4] == [f"open {folder}", f"fsync {folder}", f"close {folder}"]
    last_removal = len(said) - 1 - said[::-1].index("remove temp")
    assert said.index("fsync temp") < said.index(f"fsync {folder}") < kept < last_removal
    assert said[-1] == f"close {folder}"


def test_an_overwriting_exchange_is_synced_in_its_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"older")
    calls = recorded(partial(store.exchange, "raw/one", b"newer"))
    assert told(calls, tmp_path)[-3:] == ["open raw", "fsync raw", "close raw"]


def test_a_moved_folder_has_a_durable_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/a/one", b"")
    calls = recorded(partial(store.move_folder, "raw/a", "raw/b"))
    assert told(calls, tmp_path) == ["rename raw/a raw/b", "open raw", "fsync raw", "close raw"]


def test_a_name_that_somebody_else_gave_is_durable_before_it_is_said_to_be_taken(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"theirs")
    calls = recorded(partial(store.create, "raw/one", b"ours"))
    said = told(calls, tmp_path)
    assert said[said.index("link temp raw/one") :] == [
        *("link temp raw/one", "remove temp", "open raw", "fsync raw", "close raw")
    ]


# The checker has to see what is wrong


def test_the_checker_passes_the_right_order() -> None:
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
def test_the_checker_fails_what_is_left_out_or_stands_in_the_wrong_place(calls: list[Call], problem: str) -> None:
    assert problem in problems(calls, RESULT)


CARELESS = """
def write(path, data, temp):
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, data)
    os.close(descriptor)
    os.replace(temp, path)
"""


def test_a_writer_in_the_store_that_forgets_to_sync_is_recorded_and_fails(tmp_path: Path) -> None:
    names: dict[str, Any] = {"os": os}
    exec(compile(CARELESS, f"{STORAGE}/careless.py", "exec"), names)  # noqa: S102 - as if it stood in the store
    path, temp = str(tmp_path / "one"), str(tmp_path / "temp")
    calls = recorded(partial(names["write"], path, b"torn", temp))
    assert [call.name for call in calls] == ["open", "write", "close", "rename"]
    assert problems(calls, path) == [
        "not synced between the last write and its publication",
        "its folder not synced after its publication",
    ]


def test_calls_of_others_are_not_recorded(tmp_path: Path) -> None:
    assert recorded(partial((tmp_path / "one").write_bytes, b"torn")) == []

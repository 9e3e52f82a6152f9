"""Tests with file systems that have no hard links, and with NFS servers whose reply to `link` is lost.

The tests replace `os.link`, because no such file system is available to them.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.temporary import target_name
from tests.support import factories
from tests.support.children import outcomes_in_children

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT
LINK = os.link


def fail_with(number: int, *_: Any, **__: Any) -> None:
    raise OSError(number, os.strerror(number))


def link_with_lost_reply(source: str, target: str, **options: Any) -> None:
    """Link twice, as an NFS client whose first request succeeded without a reply: the second request raises EEXIST."""
    LINK(source, target, **options)
    LINK(source, target, **options)


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def no_hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", partial(fail_with, request.param))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if target_name(path.name)]


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_saved_result_is_never_replaced(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    before = path.read_bytes()
    with pytest.raises(ResultExistsError) as caught:
        repository.save_raw(EXP, factories.raw(gpu_name="another"))
    assert path.read_bytes() == before
    assert caught.value.kept == path.with_name("rejected-process_0-1.json.kept")
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    assert path.with_name("superseded-process_0-1.json.kept").read_bytes() == before
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_one_of_eight_writers_wins(tmp_path: Path) -> None:
    saves = [
        partial(FileSystemRepository(tmp_path).save_raw, EXP, factories.raw(gpu_name=f"gpu {number}"))
        for number in range(8)
    ]
    outcomes = outcomes_in_children(saves)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {ResultExistsError}
    assert len(list((tmp_path / "raw" / EXP).glob("rejected-*"))) == 7
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("no_hard_links")
def test_without_any_exclusive_call_no_record_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "other")  # without renameat2, as on exFAT through FUSE
    results = FileSystemRepository(tmp_path)
    saves = [partial(results.save_raw, EXP, factories.raw(gpu_name=f"gpu {number}")) for number in range(8)]
    outcomes = outcomes_in_children(saves)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    overwrites = [
        partial(results.save_raw, EXP, factories.raw(gpu_name=f"gpu {number}"), overwrite=True)
        for number in range(8, 16)
    ]
    assert not [outcome for outcome in outcomes_in_children(overwrites) if isinstance(outcome, Exception)]
    content = b"".join(path.read_bytes() for path in (tmp_path / "raw" / EXP).iterdir())
    assert [number for number in range(16) if f'"gpu {number}"'.encode() not in content] == []
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("no_hard_links")
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_without_hard_links_only_regular_files_are_copied(tmp_path: Path, kind: str) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"")
    (tmp_path / "raw" / "one").unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    if kind == "link":
        (tmp_path / "raw" / "one").symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(tmp_path / "raw" / "one")
    with pytest.raises(StorageError):
        store.copy_if_absent("raw/one", "raw/two")
    assert not (tmp_path / "raw" / "two").exists()


def test_lost_reply_to_a_link_counts_as_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", link_with_lost_reply)
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    assert sorted(found.name for found in path.parent.iterdir()) == ["manifest.json", "process_0.json"]
    assert repository.load_all_raw(EXP) == [factories.raw()]


def test_existing_name_does_not_count_as_a_lost_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"theirs")
    monkeypatch.setattr(os, "link", link_with_lost_reply)
    assert store.create("raw/one", b"ours") is False
    assert store.get("raw/one") == b"theirs"


def test_put_over_a_link_does_not_copy_the_mode_of_its_target(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "derived").mkdir()
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "target").chmod(0o4755)
    (tmp_path / "derived" / "one").symlink_to(tmp_path / "target")
    store.put("derived/one", b"data")
    found = tmp_path / "derived" / "one"
    assert not found.is_symlink()
    assert found.stat().st_mode & 0o7111 == 0

"""File systems without hard links, and servers whose answer to a link gets lost: `os.link` is replaced for it."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.storage.atomic import target_name
from llm_energy_measure.storage.local import LocalStore
from tests.support import factories
from tests.support.children import outcomes_in_children

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT
LINK = os.link


def refused(number: int, *_: Any, **__: Any) -> None:
    raise OSError(number, os.strerror(number))


def answer_lost(source: str, target: str, **options: Any) -> None:
    """The link is made, the answer gets lost, the client asks again: the name is taken."""
    LINK(source, target, **options)
    LINK(source, target, **options)


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def no_hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", partial(refused, request.param))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if target_name(path.name)]


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_result_is_published_and_never_replaced(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    before = path.read_bytes()
    with pytest.raises(ResultExistsError) as caught:
        repository.save_raw(EXP, factories.raw(gpu_name="another"))
    assert path.read_bytes() == before
    assert caught.value.kept == path.with_name("rejected-process_0-1.json")
    repository.save_raw(EXP, factories.raw(gpu_name="another"), overwrite=True)
    assert path.with_name("superseded-process_0-1.json").read_bytes() == before
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_of_two_that_race_one_wins(tmp_path: Path) -> None:
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
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_without_hard_links_no_copy_is_made_of_what_is_no_file(tmp_path: Path, kind: str) -> None:
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


def test_an_answer_that_got_lost_is_taken_for_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", answer_lost)
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw(EXP, factories.raw())
    assert sorted(found.name for found in path.parent.iterdir()) == ["manifest.json", "process_0.json"]
    assert repository.load_all_raw(EXP) == [factories.raw()]


def test_a_name_that_is_taken_is_not_taken_for_a_lost_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("raw/one", b"theirs")
    monkeypatch.setattr(os, "link", answer_lost)
    assert store.create("raw/one", b"ours") is False
    assert store.get("raw/one") == b"theirs"


def test_permissions_of_a_link_s_target_are_not_taken_over(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "derived").mkdir()
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "target").chmod(0o4755)
    (tmp_path / "derived" / "one").symlink_to(tmp_path / "target")
    store.put("derived/one", b"data")
    found = tmp_path / "derived" / "one"
    assert not found.is_symlink()
    assert found.stat().st_mode & 0o7111 == 0

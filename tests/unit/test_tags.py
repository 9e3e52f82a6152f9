"""Tags and notes: plain files, which several processes can change at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.exceptions import ConfigurationError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.store.tags import (
    Tags,
    change_tags,
    decode_tags,
    encode_tags,
    load_tags,
    parse_assignments,
)
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True)


def test_tags_are_in_a_plain_json_file(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    change_tags(repository.store, "exp/7", {"paper": "fig 3"}, note="loud fan")
    document = json.loads((tmp_path / "tags" / "exp_7.json").read_bytes())
    assert document == {
        "experiment_id": "exp/7",
        "tags": {"paper": "fig 3"},
        "note": "loud fan",
        "schema_version": "2.0.0",
    }
    assert load_tags(repository.store, "exp/7") == load_tags(repository.store, "exp_7")


@given(st.lists(st.dictionaries(KEYS, st.none() | TEXT, max_size=4), max_size=5))
def test_changes_equal_those_of_a_dict(changes: list[dict[str, str | None]]) -> None:
    repository = FileSystemRepository("unused", store=MemoryStore())
    model: dict[str, str] = {}
    for change in changes:
        model = {name: value for name, value in {**model, **change}.items() if value is not None}
        assert change_tags(repository.store, "e", change).tags == model
    assert load_tags(repository.store, "e").tags == model


class _AbsentOnce(MemoryStore):
    """A store in which a value of another process appears at `create`, and whose next read does not find it.

    Through FUSE, a value that a process replaces is absent for an instant.
    """

    fails = True

    def create(self, key: str, data: bytes) -> bool:
        super().put(key, encode_tags(Tags(experiment_id="e", tags={"other": "1"})))
        return super().create(key, data)

    def get(self, key: str) -> bytes:
        data = super().get(key)
        if self.fails:
            self.fails = False
            raise ResultNotFoundError(f"cannot read {key}", "the file was not found", "check the spelling")
        return data


def test_value_that_is_absent_for_an_instant_is_read_again() -> None:
    assert change_tags(_AbsentOnce(), "e", {"own": "2"}).tags == {"other": "1", "own": "2"}


@given(st.dictionaries(KEYS, TEXT), st.none() | TEXT)
def test_file_of_tags_is_read(tags: dict[str, str], note: str | None) -> None:
    expected = Tags(experiment_id="e", tags=tags, note=note)
    assert decode_tags(encode_tags(expected), "tags/e.json") == expected


def test_no_tags_and_no_note_leave_no_file(tmp_path: Path) -> None:
    assert change_tags(FileSystemRepository(tmp_path).store, "e", {"a": None}) == Tags(experiment_id="e")
    assert list(tmp_path.iterdir()) == []


def test_note_is_replaced_and_removed(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    assert change_tags(repository.store, "e", note="one").note == "one"
    assert change_tags(repository.store, "e", {"a": "1"}).note == "one"
    assert change_tags(repository.store, "e", note="").note is None


def test_concurrent_changes_lose_no_tag(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: change_tags(repository.store, "e", {f"k{number}": str(number)}), range(24)))
    assert load_tags(repository.store, "e").tags == {f"k{number}": str(number) for number in range(24)}
    assert [path.name for path in (tmp_path / "tags").iterdir()] == ["e.json"]


class Concurrent(MemoryStore):
    """A store in which another process tags the experiment just before the first exchange."""

    has_changed = False

    def exchange(self, key: str, data: bytes) -> str:
        if not self.has_changed:
            self.has_changed = True
            self.put(key, encode_tags(Tags(experiment_id="e", tags={"old": "0", "mine": "1", "theirs": "2"})))
        return super().exchange(key, data)


def test_tag_of_another_process_stays() -> None:
    repository = FileSystemRepository("unused", store=Concurrent())
    change_tags(repository.store, "e", {"old": "0"})
    assert change_tags(repository.store, "e", {"mine": "3"}).tags == {"old": "0", "mine": "3", "theirs": "2"}
    assert load_tags(repository.store, "e").tags == {"old": "0", "mine": "3", "theirs": "2"}


@pytest.mark.parametrize("key", ["", "a b", "1a", "a/b", "ä", "x" * 65, "a\n"])
def test_invalid_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid tag name"):
        change_tags(FileSystemRepository(tmp_path).store, "e", {key: "v"})


@pytest.mark.parametrize("text", ["x" * 10_001, "\ud800"])
def test_text_that_cannot_be_stored_is_refused(tmp_path: Path, text: str) -> None:
    for arguments in ({"tags": {"a": text}}, {"note": text}):
        with pytest.raises(ConfigurationError, match="cannot tag 'e'"):
            change_tags(FileSystemRepository(tmp_path).store, "e", **arguments)


def test_assignment_without_equals_sign_is_refused() -> None:
    assert parse_assignments(["a=b=c", "d="]) == {"a": "b=c", "d": None}
    with pytest.raises(ConfigurationError, match="write key=value"):
        parse_assignments(["a"])


def test_invalid_tags_file_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "e.json").write_bytes(b"[1]")
    with pytest.raises(ResultCorruptError, match="cannot load the tags tags/e.json"):
        change_tags(FileSystemRepository(tmp_path).store, "e", {"a": "b"})
    assert (tmp_path / "tags" / "e.json").read_bytes() == b"[1]"


def test_delete_removes_the_tags(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw("exp_7", factories.raw())
    change_tags(repository.store, "exp_7", {"a": "b"})
    assert repository.delete_experiment("exp_7")
    assert list((tmp_path / "tags").iterdir()) == []

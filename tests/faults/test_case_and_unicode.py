"""Ids that differ only in case or in Unicode form never reach each other's files, on any file system."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from typing import Literal

import pytest

from llm_energy_measure.exceptions import ExperimentIdError, ResultsError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.store import deletion
from llm_energy_measure.results.store.checkpoints import save_checkpoint
from llm_energy_measure.results.store.tags import change_tags, load_tags
from llm_energy_measure.storage.memory import MemoryStore
from tests.support import factories
from tests.support.folding_store import FoldingStore

OWN, OTHER = "Exp", "exp"


def repository_of(*parts: str) -> FileSystemRepository:
    """A repository on a store that ignores case, with these parts of the experiment `Exp`."""
    repository = FileSystemRepository("unused", store=FoldingStore())
    if "raw" in parts:
        repository.save_raw(OWN, factories.raw(OWN))
    if "damaged" in parts:
        repository.store.put(f"raw/{OWN}/process_0.json", b"{")
    if "foreign" in parts:  # results of another tool have no manifest
        repository.save_raw(OWN, factories.raw(OWN))
        repository.store.delete(f"raw/{OWN}/manifest.json")
    if "aggregate" in parts:
        repository.save_aggregated(factories.aggregated(OWN))
    if "tags" in parts:
        change_tags(repository.store, OWN, {"paper": "fig3"})
    if "deleted" in parts:
        repository.store.put(f"raw/.{OWN}~deleted/manifest.json", b"{}")
    return repository


def values(repository: FileSystemRepository) -> dict[str, bytes]:
    assert isinstance(repository.store, MemoryStore)
    return dict(repository.store._values)


PARTS = [
    *(("raw",), ("raw", "aggregate", "tags"), ("damaged",), ("foreign", "tags")),
    *(("aggregate",), ("aggregate", "tags")),
]


@pytest.mark.parametrize("parts", PARTS, ids="+".join)
def test_delete_never_removes_an_experiment_of_another_case(parts: tuple[str, ...]) -> None:
    repository = repository_of(*parts)
    before = values(repository)
    with contextlib.suppress(ExperimentIdError):
        assert repository.delete_experiment(OTHER) is False
    assert values(repository) == before


@pytest.mark.parametrize("parts", PARTS, ids="+".join)
def test_no_call_changes_or_returns_an_experiment_of_another_case(parts: tuple[str, ...]) -> None:
    repository = repository_of(*parts)
    before = values(repository)
    calls: list[Callable[[], object]] = [
        lambda: repository.save_aggregated(factories.aggregated(OTHER)),
        lambda: save_checkpoint(repository.store, OTHER, factories.raw(OTHER)),
        lambda: change_tags(repository.store, OTHER, {"paper": "other"}),
        lambda: repository.save_raw(OTHER, factories.raw(OTHER, 1)),
        lambda: remove_leftovers(repository, check_store(repository, [OTHER])),
    ]
    if "raw" in parts:
        for call in (calls[1], calls[3]):
            with pytest.raises(ExperimentIdError, match="belongs to the experiment 'Exp'"):
                call()
    if "aggregate" in parts:
        with pytest.raises(ExperimentIdError):
            calls[0]()
    if "tags" in parts:
        with pytest.raises(ExperimentIdError, match="they belong to the experiment 'Exp'"):
            calls[2]()
    with contextlib.suppress(ExperimentIdError):
        calls[4]()
    assert {key: data for key, data in values(repository).items() if "rejected" not in key} == before
    for load in (repository.load_all_raw, repository.load_aggregated, repository.load_manifest, repository.list_raw):
        with contextlib.suppress(ResultsError):
            found = load(OTHER)
            assert not found or "damaged" in parts
    assert repository.has_aggregated(OTHER) is False


def test_reads_name_the_owner() -> None:
    repository = repository_of("raw", "aggregate")
    for call in (repository.has_raw, repository.load_all_raw, repository.load_manifest, repository.has_folder):
        with pytest.raises(ExperimentIdError, match="its folder 'exp' belongs to the experiment 'Exp'"):
            call(OTHER)
    assert repository.load_aggregated(OTHER) is None


def test_unfinished_deletion_of_another_case_is_left() -> None:
    repository = repository_of("aggregate", "deleted")
    before = values(repository)
    assert deletion.finish(repository.store, OTHER) is False
    assert values(repository) == before


def test_merge_reports_an_experiment_of_another_case() -> None:
    target, source = repository_of("raw", "aggregate"), FileSystemRepository("unused", store=MemoryStore())
    source.save_raw(OTHER, factories.raw(OTHER))
    source.save_aggregated(factories.aggregated(OTHER))
    before = values(target)
    assert {file.outcome for file in merge_results(target, source)} == {"conflict"}
    assert values(target) == before


def test_own_id_still_reaches_its_files() -> None:
    repository = repository_of("raw", "aggregate", "tags")
    assert [record.experiment_id for record in repository.load_all_raw(OWN)] == [OWN]
    assert load_tags(repository.store, OWN).tags == {"paper": "fig3"}
    assert repository.delete_experiment(OWN)
    assert values(repository) == {}


def test_folder_renamed_to_another_case_can_be_deleted() -> None:
    repository = FileSystemRepository("unused", store=MemoryStore())
    repository.save_raw(OWN, factories.raw(OWN))
    repository.store.move_folder(f"raw/{OWN}", f"raw/{OTHER}")
    assert repository.has_raw(OTHER)
    assert repository.delete_experiment(OTHER)


@pytest.mark.parametrize("store", [MemoryStore, FoldingStore])
@pytest.mark.parametrize("own", ["NFC", "NFD"])
def test_other_unicode_form_of_an_id_reaches_no_file(store: type[MemoryStore], own: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if own == "NFC" else "NFC"
    name = "caf\u00e9 m\u00fcller"
    repository = FileSystemRepository("unused", store=store())
    repository.save_raw(unicodedata.normalize(own, name), factories.raw(unicodedata.normalize(own, name)))
    before = values(repository)
    assert repository.delete_experiment(unicodedata.normalize(other, name)) is False
    assert repository.load_all_raw(unicodedata.normalize(other, name)) == []
    assert values(repository) == before


# Names that Windows cannot open

FORMER = ["CON", "nul", "aux.json", "COM1", "lpt9.tar.gz", "exp.", "a b.", "Prn.x."]


@pytest.mark.parametrize("experiment_id", FORMER)
def test_new_folder_has_a_name_that_windows_can_open(experiment_id: str) -> None:
    repository = FileSystemRepository("unused", store=MemoryStore())
    repository.save_raw(experiment_id, factories.raw(experiment_id))
    [folder] = repository.list_experiments()
    assert folder.partition(".")[0].casefold() not in {"con", "nul", "aux", "com1", "lpt9", "prn"}
    assert not folder.endswith((".", " "))
    assert [record.experiment_id for record in repository.load_all_raw(experiment_id)] == [experiment_id]
    assert repository.load_all_raw(folder) == repository.load_all_raw(experiment_id)


@pytest.mark.parametrize("experiment_id", FORMER)
@pytest.mark.parametrize("part", ["raw", "aggregated"])
def test_folder_of_an_earlier_release_is_found(experiment_id: str, part: str) -> None:
    store = MemoryStore()
    repository = FileSystemRepository("unused", store=store)
    repository.save_raw(experiment_id, factories.raw(experiment_id))
    repository.save_aggregated(factories.aggregated(experiment_id))
    change_tags(store, experiment_id, {"a": "b"})
    [new], former = repository.list_experiments(), experiment_id.replace(" ", "_")
    for key in list(store._values):
        store._values[key.replace(f"/{new}", f"/{former}", 1)] = store._values.pop(key)
    if part == "aggregated":
        store.delete_folder(f"raw/{former}")
    else:
        assert repository.list_experiments() == [former]
        assert [record.experiment_id for record in repository.load_all_raw(experiment_id)] == [experiment_id]
        repository.save_raw(experiment_id, factories.raw(experiment_id, 1))
    assert repository.list_aggregated() == [former]
    for name in (experiment_id, former):
        loaded = repository.load_aggregated(name)
        assert loaded is not None
        assert loaded.experiment_id == experiment_id
        assert load_tags(store, name).tags == {"a": "b"}
    assert {key.split("/")[1] for key in store._values} <= {former, f"{former}.json"}
    assert repository.delete_experiment(experiment_id)
    assert store._values == {}

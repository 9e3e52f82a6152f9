"""Which servers are safe, and that several hosts can record one experiment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore.store
import pytest

from llm_energy_measure.exceptions import ResultExistsError, StorageError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.store import deletion, layout
from llm_energy_measure.storage.objects import ObjectStore
from tests.support import buckets, factories
from tests.support.command import run
from tests.support.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path


class IgnoringProxy(FaultProxy):
    """A server that ignores the conditions of some writes, as some servers do."""

    ignored = "if-none-match"

    def ignores(self, headers: Message) -> bool:
        return self.ignored in headers


@pytest.mark.parametrize("condition", ["if-none-match", "if-match"])
def test_server_that_ignores_conditions_is_refused(
    seaweedfs_port: int, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    with IgnoringProxy(seaweedfs_port) as proxy:
        proxy.ignored = condition
        for name, value in buckets.variables(proxy.url).items():
            monkeypatch.setenv(name, value)
        url = f"s3://{buckets.BUCKET}/{uuid4().hex}"
        with pytest.raises(StorageError, match=f"the server is not safe: .*(?i:{condition})"):
            FileSystemRepository(url).save_raw("exp", factories.raw("exp"))
        assert ObjectStore(url).walk("raw") == []


def test_doctor_says_whether_a_bucket_is_safe(proxy: FaultProxy, url: str) -> None:
    done = run("doctor", "--w-per-core", "4", "-o", url)
    assert (done.status, f"{url}: read, list, write and delete work" in done.err) == (0, True)
    assert ObjectStore(url).walk("raw") == []
    with IgnoringProxy(proxy.port) as ignoring:
        for name, value in buckets.variables(ignoring.url).items():
            os.environ[name] = value  # the fixture restores it
        refused = run("doctor", "--w-per-core", "4", "-o", url)
    assert refused.status == 1
    assert "the server is not safe" in refused.err


def test_refused_result_is_kept_in_the_bucket(url: str) -> None:
    repository = FileSystemRepository(url)
    repository.save_raw("exp", factories.raw("exp"))
    with pytest.raises(ResultExistsError) as refused:
        repository.save_raw("exp", factories.raw("exp", gpu_name="another"))
    assert str(refused.value.kept) == f"{url}/raw/exp/rejected-process_0-1.json.kept"
    assert [place.name for place in repository.list_raw("exp")] == ["process_0.json"]
    repository.save_raw("exp", factories.raw("exp", gpu_name="another"), overwrite=True)
    assert repository.load_raw(repository.list_raw("exp")[0]).gpu_name == "another"
    assert "superseded-process_0-1.json.kept" in [entry.name for entry in repository.store.list("raw/exp")]


def interrupted_deletion(repository: FileSystemRepository) -> None:
    repository.save_raw("exp", factories.raw("exp"))
    repository.save_raw("exp", factories.raw("exp", 1))
    marker = f"{layout.deleted_folder('exp')}/manifest.json"
    repository.store.create(marker, repository.store.get("raw/exp/manifest.json"))


def test_folder_whose_objects_are_gone_hides_nothing(url: str) -> None:
    """SeaweedFS lists a folder for some seconds after its last object was deleted."""
    repository = FileSystemRepository(url)
    interrupted_deletion(repository)
    assert repository.list_experiments() == []
    assert deletion.finish(repository.store, "exp") is True
    repository.save_raw("exp", factories.raw("exp", 3))
    assert repository.list_experiments() == ["exp"]
    assert [place.name for place in repository.list_raw("exp")] == ["process_3.json"]
    assert list(check_store(repository)) == []


def memory(_: Path) -> FileSystemRepository:
    client = obstore.store.MemoryStore()
    return FileSystemRepository(store=ObjectStore("s3://bucket/results", client=client, sleep=lambda _: None))


def test_interrupted_deletion_hides_the_experiment(tmp_path: Path) -> None:
    repository = memory(tmp_path)
    interrupted_deletion(repository)
    assert repository.list_experiments() == []
    assert repository.list_raw("exp") == []
    assert repository.recover_raw("exp").results == []
    assert repository.load_aggregated("exp") is None


def test_id_of_an_unfinished_deletion_is_refused_until_it_is_finished(tmp_path: Path) -> None:
    repository = memory(tmp_path)
    interrupted_deletion(repository)
    repository.store.delete("raw/exp/manifest.json")
    with pytest.raises(ResultExistsError, match="its deletion has not finished"):
        repository.save_raw("exp", factories.raw("exp", 2))
    assert repository.delete_experiment("exp") is False or deletion.finish(repository.store, "exp") is False
    repository.save_raw("exp", factories.raw("exp", 2))
    assert [place.name for place in repository.list_raw("exp")] == ["process_2.json"]

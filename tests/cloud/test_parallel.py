"""Commands that read many objects keep several requests in flight, and give the results of one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.results import FileSystemRepository, aggregate_all, recover_all
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.storage.folder import Folder
from tests.support import factories
from tests.support.buckets import LONG_ONLY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import FaultProxy


def fill(repository: FileSystemRepository, count: int) -> FileSystemRepository:
    for number in range(count):
        for process in range(4):
            repository.save_raw(f"exp_{number:02}", factories.raw(f"exp_{number:02}", process))
    return repository


@LONG_ONLY
def test_aggregates_have_the_bytes_of_those_in_a_directory(proxy: FaultProxy, url: str, tmp_path: Path) -> None:
    local, remote = fill(FileSystemRepository(tmp_path), 30), FileSystemRepository(url)
    assert {merged.outcome for merged in merge_results(remote, local)} == {"copied"}
    proxy.most_in_flight = 0
    for repository in (local, remote):
        assert {outcome.result for outcome in aggregate_all(repository)} == {"aggregated"}
    assert proxy.most_in_flight > 4
    for name in local.list_experiments():
        assert remote.read_aggregated(name) == local.read_aggregated(name)
    assert list(recover_all(remote)) == list(recover_all(local))


def test_prefetched_values_are_those_of_the_store(url: str) -> None:
    repository = fill(FileSystemRepository(url), 2)
    with Folder(repository.store, "raw") as raw:
        raw.prefetch("exp_00")
        raw.prefetch("absent")
        for name in ("exp_00", "exp_01"):
            found = dict(raw.read(name, lambda file: file != "process_1.json"))
            keys = ("manifest.json", "process_0.json", "process_2.json", "process_3.json")
            assert found == {key: repository.store.get(f"raw/{name}/{key}") for key in keys}
        assert list(raw.read("absent", lambda _: True)) == []
        assert raw.is_absent("exp_02")
        assert not raw.is_absent("exp_01")

"""`results sync`: two hosts and a bucket have the same results in the end, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import obstore.store
import pytest

from llm_energy_measure.domain.experiment import Launcher, Manifest, RawProcessResult
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.sync import sync_results
from llm_energy_measure.results.store.checkpoints import save_checkpoint
from llm_energy_measure.results.store.tags import change_tags, load_tags
from llm_energy_measure.storage.objects import ObjectStore
from tests.support import factories
from tests.support.command import run
from tests.support.faulty_store import CrashedError, FaultyStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import FaultProxy


@pytest.fixture
def bucket() -> FileSystemRepository:
    client = obstore.store.MemoryStore()
    return FileSystemRepository("s3://bucket/results", store=ObjectStore("s3://bucket/results", client=client))


def host(folder: Path, *processes: int, attempt: int = 0) -> FileSystemRepository:
    repository = FileSystemRepository(folder)
    repository.begin_experiment(Manifest(experiment_id="exp", expected_processes=4, attempt=attempt), processes[0])
    for process in processes:
        repository.save_raw("exp", record(process, attempt))
    return repository


def record(process: int, attempt: int = 0) -> RawProcessResult:
    return factories.raw("exp", process, launcher=Launcher(name="slurm", attempt=attempt))


def outcomes(
    local: FileSystemRepository, remote: FileSystemRepository, state: dict[str, str] | None = None
) -> set[str]:
    synced = list(sync_results(local, remote, state))
    return {merged.outcome for one in synced for merged in (*one.uploaded, *one.downloaded)}


def test_two_hosts_have_all_results_after_a_sync(bucket: FileSystemRepository, tmp_path: Path) -> None:
    one, two = host(tmp_path / "one", 0, 1), host(tmp_path / "two", 2, 3)
    change_tags(one.store, "exp", {"paper": "one"})
    list(aggregate_all(one, strict=False))
    for repository in (one, two, one):
        assert "conflict" not in outcomes(repository, bucket)
    for repository in (one, two, bucket):
        assert [found.process_index for found in repository.load_all_raw("exp")] == [0, 1, 2, 3]
        assert load_tags(repository.store, "exp").tags == {"paper": "one"}
    [outcome] = aggregate_all(one)
    assert outcome.result == "aggregated", "the first aggregate had two processes"


def test_second_sync_compares_nothing(bucket: FileSystemRepository, tmp_path: Path) -> None:
    local, state = host(tmp_path / "one", 0, 1), dict[str, str]()
    assert outcomes(local, bucket, state) == {"copied", "same"}
    assert list(sync_results(local, bucket, state)) == []
    local.save_raw("exp", record(2))
    assert [one.folder for one in sync_results(local, bucket, state)] == ["exp"]
    bucket.save_raw("exp", record(3))
    assert [one.folder for one in sync_results(local, bucket, state)] == ["exp"]
    assert local.load_all_raw("exp") == bucket.load_all_raw("exp")


def test_different_results_are_a_conflict_and_both_stay(bucket: FileSystemRepository, tmp_path: Path) -> None:
    local, state = host(tmp_path / "one", 0), dict[str, str]()
    bucket.save_raw("exp", factories.raw("exp", 0, gpu_name="another"))
    for _ in range(2):  # a conflict is reported each time
        [synced] = sync_results(local, bucket, state)
        assert {problem.outcome for problem in synced.problems} == {"conflict"}
    assert local.load_all_raw("exp") == [record(0)]
    assert bucket.load_all_raw("exp")[0].gpu_name == "another"


def test_later_attempt_archives_the_earlier_one_everywhere(bucket: FileSystemRepository, tmp_path: Path) -> None:
    one, two = host(tmp_path / "one", 0, 1), host(tmp_path / "two", 2)
    for repository in (one, two):
        outcomes(repository, bucket)
    host(tmp_path / "one", 0, attempt=1)
    for repository in (one, two, one):
        assert not {"conflict", "failed"} & outcomes(repository, bucket)
    for repository in (one, two, bucket):
        assert repository.load_all_raw("exp") == [record(0, attempt=1)]
        earlier = repository.recover_raw("exp", attempt=0).results
        assert [found.process_index for found in earlier] == [0, 1, 2]


def test_newer_checkpoint_replaces_the_older_until_the_result(bucket: FileSystemRepository, tmp_path: Path) -> None:
    local = host(tmp_path / "one", 0)
    for seconds in (10.0, 20.0):
        checkpoint = factories.raw("exp", 1, timestamps=factories.timestamps(duration_sec=seconds))
        save_checkpoint(local.store, "exp", checkpoint)
        assert "conflict" not in outcomes(local, bucket)
        assert bucket.recover_raw("exp").partials[0].timestamps.duration_sec == seconds
    local.save_raw("exp", record(1))
    outcomes(local, bucket)
    for repository in (local, bucket):
        assert [entry.name for entry in repository.store.list("raw/exp")] == [
            *("manifest.json", "process_0.json", "process_1.json")
        ]


@pytest.mark.parametrize("at", range(8))
def test_sync_that_stops_at_any_step_can_be_repeated(bucket: FileSystemRepository, tmp_path: Path, at: int) -> None:
    local = host(tmp_path / "one", 0, 1)
    bucket.save_raw("other", factories.raw("other"))
    faulty = FileSystemRepository("s3://bucket/results", store=FaultyStore(bucket.store, at, "after", "crash"))
    try:
        list(sync_results(local, faulty))
    except CrashedError:
        assert len(local.load_all_raw("exp")) == 2
    assert not {"conflict", "failed"} & outcomes(local, bucket)
    for repository in (local, bucket):
        assert (len(repository.load_all_raw("exp")), len(repository.load_all_raw("other"))) == (2, 1)


def test_command_syncs_with_a_bucket(
    proxy: FaultProxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    host(tmp_path / "one", 0, 1)
    first = run("-o", tmp_path / "one", "results", "sync", url)
    assert (first.status, first.err) == (0, "3 uploaded, 0 downloaded, 0 problems\n")
    before = len(proxy.requests)
    second = run("-o", tmp_path / "one", "results", "sync", url)
    assert (second.status, second.err) == (0, "0 uploaded, 0 downloaded, 0 problems\n")
    assert {method for method, _ in proxy.requests[before:]} == {"GET"}
    assert len(proxy.requests) - before < 10
    fetched = run("-o", tmp_path / "two", "results", "sync", url)
    assert fetched.err == "0 uploaded, 3 downloaded, 0 problems\n"
    FileSystemRepository(tmp_path / "two").save_raw("exp", record(0), overwrite=True)
    assert len(FileSystemRepository(tmp_path / "two").load_all_raw("exp")) == 2

"""Aggregation and verification on the workers of a Dask scheduler on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch import executors
from llm_energy_measure.results.batch.executors import WorkerFacts, dask_workers
from llm_energy_measure.results.batch.verify import verify_experiments
from tests.support import buckets, factories
from tests.support.command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

distributed: Any = pytest.importorskip("distributed", reason="distributed is not installed (pip install distributed)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def scheduler(cluster: Any) -> str:
    return str(cluster.scheduler_address).replace("tcp://", "dask://")


def fill(folder: Path, count: int = 60) -> FileSystemRepository:
    repository = FileSystemRepository(folder)
    for number in range(count):
        for process in range(2):
            repository.save_raw(f"exp_{number:02}", factories.raw(f"exp_{number:02}", process))
    return repository


def aggregates(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "aggregated").glob("*.json")}


def test_workers_make_the_bytes_of_one_process(scheduler: str, tmp_path: Path) -> None:
    one, many = fill(tmp_path / "one"), fill(tmp_path / "many")
    assert run("-o", one.base_path, "aggregate", "--all").status == 0
    done = run("-o", many.base_path, "aggregate", "--all", "--executor", scheduler)
    assert done.status == 0, done.err
    assert aggregates(many.base_path) == aggregates(one.base_path)
    assert len(aggregates(many.base_path)) == 60
    verified = [
        run("-o", place.base_path, "results", "verify", "--all", "--json", *how).json()
        for place, how in ((one, ()), (many, ("--executor", scheduler)))
    ]
    assert verified[0] == verified[1]
    assert [path.name for path in many.base_path.iterdir() if "token" in path.name] == []


def test_any_executor_verifies_in_order(tmp_path: Path) -> None:
    repository = fill(tmp_path, 5)
    with ThreadPoolExecutor(3) as threads:
        found = list(verify_experiments(repository, repository.list_experiments(), executor=threads))
    assert found == list(verify_experiments(repository, repository.list_experiments()))
    assert [one.experiment_id for one in found] == repository.list_experiments()


class SlowRepository(FileSystemRepository):
    """A repository whose reads take long enough for a worker to be killed during a batch."""

    def folder_of(self, experiment_id: str) -> str:
        time.sleep(0.02)
        (self.base_path / f"pid-{os.getpid()}").touch()
        return super().folder_of(experiment_id)


def test_batch_of_a_killed_worker_runs_again(cluster: Any, scheduler: str, tmp_path: Path) -> None:
    expected = fill(tmp_path / "one")
    list(aggregate_all(expected))
    slow = SlowRepository(fill(tmp_path / "many").base_path)
    killed: list[int] = []

    def kill() -> None:
        workers = {worker.pid for worker in cluster.workers.values()}
        while not killed:
            for path in slow.base_path.glob("pid-*"):
                pid = int(path.name.removeprefix("pid-"))
                if pid in workers:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=kill, daemon=True)
    with dask_workers(scheduler, slow) as workers:
        thread.start()
        outcomes = list(aggregate_all(slow, executor=workers.executor, jobs=workers.threads))
    thread.join(30)
    assert killed
    assert [outcome.error for outcome in outcomes] == [None] * 60
    assert aggregates(slow.base_path) == aggregates(expected.base_path)


def test_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    place = f"dask://127.0.0.1:{buckets.free_port()}"
    with (
        pytest.raises(ConfigurationError, match=rf"{place}.*does not answer within 0.5 s"),
        dask_workers(place, fill(tmp_path, 1), timeout_sec=0.5),
    ):
        pass


class OwnDisk(FileSystemRepository):
    """A repository on a disk that only this machine has: another process finds another directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FileSystemRepository, (self.base_path / "elsewhere",)


def test_worker_that_does_not_see_the_results_is_named(scheduler: str, tmp_path: Path) -> None:
    repository = OwnDisk(fill(tmp_path, 1).base_path)
    with (
        pytest.raises(ConfigurationError, match=r"does not see .*; use a directory that all machines share, or a buc"),
        dask_workers(scheduler, repository),
    ):
        pass


def test_worker_with_another_version_is_named(scheduler: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"has version 0.1.0 .*and this process version 9.9.9"),
        dask_workers(scheduler, fill(tmp_path, 1), version="9.9.9"),
    ):
        pass


def test_scheduler_without_workers_is_named(tmp_path: Path) -> None:
    with distributed.LocalCluster(n_workers=0, processes=True, host="127.0.0.1", dashboard_address=":0") as empty:
        place = str(empty.scheduler_address).replace("tcp://", "dask://")
        with (
            pytest.raises(ConfigurationError, match="no workers; start some with 'dask worker"),
            dask_workers(place, fill(tmp_path, 1)),
        ):
            pass


@pytest.mark.parametrize("text", ["127.0.0.1:8786", "dask://node", "tcp://node:1", "dask://"])
def test_other_address_is_wrong_usage(tmp_path: Path, text: str) -> None:
    fill(tmp_path, 1)
    done = run("-o", tmp_path, "aggregate", "--all", "--executor", text)
    assert done.status == 2
    assert "dask://HOST:PORT" in done.err


def test_facts_of_a_worker_say_whether_it_sees_the_token(tmp_path: Path) -> None:
    repository = fill(tmp_path, 1)
    repository.store.create("token", b"1")
    assert executors.facts_of_worker(repository, "token", b"1").sees_token
    assert not executors.facts_of_worker(repository, "token", b"2").sees_token
    assert isinstance(executors.facts_of_worker(repository, "absent", b"2"), WorkerFacts)

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

from llm_energy_measure.cli.import_saver import ExecutorSaver, Saver
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.importers import Entry
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch import executors
from llm_energy_measure.results.batch.executors import WorkerFacts, dask_workers
from llm_energy_measure.results.batch.verify import verify_all
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


def table(path: Path, energies: range) -> Path:
    path.write_text("name,joules\n" + "".join(f"run_{number},{joules}\n" for number, joules in enumerate(energies)))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "raw").rglob("*.json*")}


def test_workers_import_the_bytes_of_one_process(scheduler: str, tmp_path: Path) -> None:
    """The second table has other energies under the same ids, so all its rows are conflicts."""
    tables = table(tmp_path / "a.csv", range(100, 160)), table(tmp_path / "b.csv", range(200, 260))
    mapping = ("--map", "experiment_id=name", "--map", "energy_j=joules", "--json")
    one = run("-o", tmp_path / "one", "import", *tables, *mapping)
    many = run("-o", tmp_path / "many", "import", *tables, *mapping, "--executor", scheduler)
    again = run("-o", tmp_path / "many", "import", *tables, *mapping, "--executor", scheduler)
    assert (many.status, many.out.replace("/many/", "/one/"), many.err.replace("/many/", "/one/")) == (
        *(one.status, one.out, one.err),
    )
    assert "60 kept" in many.err
    assert "60 refused" in many.err
    assert "60 already stored" in again.err
    assert files(tmp_path / "many") == files(tmp_path / "one")
    assert len(files(tmp_path / "one")) == 180, "a manifest, a result and a rejected record of each"


def test_any_executor_verifies_in_order(tmp_path: Path) -> None:
    repository = fill(tmp_path, 5)
    with ThreadPoolExecutor(3) as threads:
        found = list(verify_all(repository, repository.list_experiments(), executor=threads))
    assert found == list(verify_all(repository, repository.list_experiments()))
    assert [one.experiment_id for one in found] == repository.list_experiments()


class SlowRepository(FileSystemRepository):
    """A repository whose reads take long enough for a worker to be killed during a batch."""

    def folder_of(self, experiment_id: str) -> str:
        time.sleep(0.02)
        (self.base_path / f"pid-{os.getpid()}").touch()
        return super().folder_of(experiment_id)


def kill_a_worker(cluster: Any, folder: Path, killed: list[int]) -> threading.Thread:
    """Start a thread that kills the first worker that creates a file `pid-N`."""

    def kill() -> None:
        workers = {worker.pid for worker in cluster.workers.values()}
        while not killed:
            for path in folder.glob("pid-*"):
                pid = int(path.name.removeprefix("pid-"))
                if pid in workers:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def test_batch_of_a_killed_worker_runs_again(cluster: Any, scheduler: str, tmp_path: Path) -> None:
    expected = fill(tmp_path / "one")
    list(aggregate_all(expected))
    slow = SlowRepository(fill(tmp_path / "many").base_path)
    killed: list[int] = []
    with dask_workers(scheduler, slow) as workers:
        thread = kill_a_worker(cluster, slow.base_path, killed)
        outcomes = list(aggregate_all(slow, executor=workers.executor, jobs=workers.threads))
    thread.join(30)
    assert killed
    assert [outcome.error for outcome in outcomes] == [None] * 60
    assert aggregates(slow.base_path) == aggregates(expected.base_path)


def test_verdicts_are_the_same_if_a_worker_is_killed(cluster: Any, scheduler: str, tmp_path: Path) -> None:
    repository = fill(tmp_path / "results", 100)
    list(aggregate_all(repository))
    repository.store.put("raw/exp_07/process_1.json", b"{")
    names = repository.list_experiments()
    expected = list(verify_all(repository, names))
    assert {one.verdict for one in expected} == {"undetermined", "stale"}
    slow, killed = SlowRepository(repository.base_path), list[int]()
    with dask_workers(scheduler, slow) as workers:
        thread = kill_a_worker(cluster, slow.base_path, killed)
        found = list(verify_all(slow, names, executor=workers.executor, jobs=workers.threads))
    thread.join(30)
    assert killed
    assert found == expected


def slowly(folder: Path, work: Any, batch: Any) -> Any:
    """Do the work in two steps, so that a worker can be killed when a part of its batch is saved."""
    half = len(batch) // 2
    work(batch[:half])
    (folder / f"pid-{os.getpid()}").touch()
    time.sleep(0.2)
    return work(batch)


class SlowExecutor:
    """An executor whose batches take long enough for a worker to be killed during one of them."""

    def __init__(self, executor: Any, folder: Path) -> None:
        self.executor = executor
        self.folder = folder

    def submit(self, work: Any, batch: Any) -> Any:
        return self.executor.submit(slowly, self.folder, work, batch)


def test_import_of_a_killed_worker_is_saved_again(cluster: Any, scheduler: str, tmp_path: Path) -> None:
    groups = [
        [(factories.raw(name), Entry(file="a.csv", outcome="kept", code="whole", message="", experiment_id=name))]
        for name in (f"exp_{number:02}" for number in range(60))
    ]
    list(Saver(FileSystemRepository(tmp_path / "one"), overwrite=False).save_groups(iter(groups)))
    many = FileSystemRepository(tmp_path / "many")
    killed: list[int] = []
    with dask_workers(scheduler, many) as workers:
        executor: Any = SlowExecutor(workers.executor, many.base_path)
        saver = ExecutorSaver(many, overwrite=False, executor=executor, jobs=workers.threads)
        thread = kill_a_worker(cluster, many.base_path, killed)
        saved = list(saver.save_groups(iter(groups)))
    thread.join(30)
    assert killed
    assert [pairs for pairs, _ in saved] == groups
    assert {entry.outcome for pairs in groups for _, entry in pairs} == {"kept"}
    assert files(many.base_path) == files(tmp_path / "one")
    assert len(files(many.base_path)) == 120


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

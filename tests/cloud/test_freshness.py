"""In a bucket, a digest of (key, size, ETag) decides without a read whether an aggregate is up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.buckets import LONG_ONLY
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import FaultProxy


def aggregated(repository: FileSystemRepository) -> list[str]:
    return [outcome.result for outcome in aggregate_all(repository)]


@pytest.fixture
def repository(url: str) -> FileSystemRepository:
    """Return five experiments whose aggregates were made."""
    repository = FileSystemRepository(url)
    for number in range(5):
        repository.save_raw(f"exp_{number}", factories.raw(f"exp_{number}"))
    assert aggregated(repository) == ["aggregated"] * 5
    return repository


def test_unchanged_experiments_are_not_read(proxy: FaultProxy, repository: FileSystemRepository) -> None:
    before = len(proxy.requests)
    assert aggregated(repository) == ["current"] * 5
    requests = proxy.requests[before:]
    assert len(requests) <= 4
    assert all(method == "GET" and "list-type" in path for method, path in requests)


def test_aggregate_that_was_found_current_is_not_read_again(
    proxy: FaultProxy, repository: FileSystemRepository
) -> None:
    for entry in repository.store.list("aggregated"):
        if not entry.name.endswith(".json"):
            repository.store.delete(f"aggregated/{entry.name}")
    assert aggregated(repository) == ["current"] * 5
    before = len(proxy.requests)
    assert aggregated(repository) == ["current"] * 5
    assert all("list-type" in path for _, path in proxy.requests[before:])


def test_new_result_makes_the_aggregate_stale(repository: FileSystemRepository) -> None:
    repository.save_raw("exp_2", factories.raw("exp_2", 1))
    assert aggregated(repository) == ["current", "current", "aggregated", "current", "current"]


def test_replaced_result_makes_the_aggregate_stale(repository: FileSystemRepository) -> None:
    repository.save_raw("exp_2", factories.raw("exp_2", gpu_name="another"), overwrite=True)
    assert aggregated(repository)[2] == "aggregated"


def test_aggregate_that_another_program_replaced_is_read(repository: FileSystemRepository) -> None:
    key = "aggregated/exp_2.json"
    data = repository.store.get(key)
    repository.store.put(key, data.replace(b"baseline", b"baselone"))
    assert repository.store.get(key) != data
    assert aggregated(repository)[2] == "aggregated"


@LONG_ONLY
def test_list_reads_only_changed_experiments(
    proxy: FaultProxy, repository: FileSystemRepository, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def read() -> set[str]:
        before = len(proxy.requests)
        assert len(run("-o", url, "results", "list", "--all", "--json").json()) == 5
        paths = [path for method, path in proxy.requests[before:] if "list-type" not in path]
        return {name for name in repository.list_experiments() for path in paths if name in path}

    assert len(read()) == 5
    assert read() == set()
    repository.save_raw("exp_3", factories.raw("exp_3", 1))
    assert read() == {"exp_3"}
    run("-o", url, "results", "tag", "exp_1", "paper=one")
    assert read() == {"exp_1"}


@LONG_ONLY
def test_proofs_are_no_results_and_end_with_the_experiment(
    repository: FileSystemRepository, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert repository.list_aggregated() == [f"exp_{number}" for number in range(5)]
    assert run("-o", url, "results", "check").out == ""
    assert len(run("-o", url, "results", "list", "--json").json()) == 5
    for name in repository.list_experiments():
        repository.save_raw(name, factories.raw(name, 1))
    assert aggregated(repository) == ["aggregated"] * 5
    names = [entry.name for entry in repository.store.list("aggregated")]
    assert len(names) == 10, "one proof per experiment"
    assert repository.delete_experiment("exp_0") is True
    assert [name for name in names if "exp_0" in name] != []
    assert [entry.name for entry in repository.store.list("aggregated") if "exp_0" in entry.name] == []

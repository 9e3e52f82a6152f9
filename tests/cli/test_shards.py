"""`--shard I/N`: N jobs together do the work of one command, each experiment once."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 3


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    repository = FileSystemRepository(tmp_path / "twelve")
    for number in range(12):
        repository.save_raw(f"exp_{number}", factories.raw(f"exp_{number}"))
    return repository.base_path


def aggregates(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results / "aggregated").glob("*.json")}


def test_aggregate_shards_together_equal_one_run(twelve: Path) -> None:
    names: list[list[str]] = []
    for number in range(1, COUNT + 1):
        done = run("-o", twelve, "aggregate", "--all", "--shard", f"{number}/{COUNT}", "--json")
        assert done.status == 0
        names.append([outcome["experiment_id"] for outcome in done.json()])
    assert sorted(name for part in names for name in part) == sorted(f"exp_{number}" for number in range(12))
    assert all(names)
    found = aggregates(twelve)
    assert run("-o", twelve, "aggregate", "--all", "--force").status == 0
    assert aggregates(twelve) == found


def test_verify_shards_together_equal_one_run(twelve: Path) -> None:
    whole = run("-o", twelve, "results", "verify", "--all", "--json").json()
    parts = [
        experiment
        for number in range(1, COUNT + 1)
        for experiment in run(
            "-o", twelve, "results", "verify", "--all", "--shard", f"{number}/{COUNT}", "--json"
        ).json()
    ]
    assert sorted(parts, key=lambda experiment: experiment["experiment_id"]) == sorted(
        whole, key=lambda experiment: experiment["experiment_id"]
    )


def table(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "energy_j"])
        writer.writerows([f"run {number}", 100 + number] for number in range(12))
        writer.writerow(["run 12", "unknown"])
    return path


MAP = ("--map", "experiment_id=run", "--map", "energy_j=energy_j")


def test_import_shards_together_equal_one_run(tmp_path: Path) -> None:
    source = table(tmp_path / "table.csv")
    assert run("-o", tmp_path / "one", "import", source, *MAP).status == 0
    counts = []
    for number in range(1, COUNT + 1):
        done = run("-o", tmp_path / "parts", "import", source, *MAP, "--shard", f"{number}/{COUNT}", "--json")
        assert done.status == 0
        counts.append(done.json()["kept"])
    assert sum(counts) == 12
    one, parts = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.json")}
        for name in ("one", "parts")
    )
    assert one == parts
    assert len(one) == 24


def test_shard_without_records_is_no_failure_of_an_import(tmp_path: Path) -> None:
    source = table(tmp_path / "table.csv")
    done = [run("-o", tmp_path / "x", "import", source, *MAP, "--shard", f"{number}/500") for number in range(1, 6)]
    assert {one.status for one in done} == {0}


@pytest.mark.parametrize("command", [("aggregate",), ("results", "verify")])
def test_shard_with_ids_is_wrong_usage(twelve: Path, command: tuple[str, ...]) -> None:
    done = run("-o", twelve, *command, "exp_1", "--shard", "1/2")
    assert done.status == 2
    assert "--shard selects from all experiments" in done.err


@pytest.mark.parametrize("text", ["0/3", "4/3", "3"])
def test_shard_that_does_not_exist_is_wrong_usage(twelve: Path, text: str) -> None:
    done = run("-o", twelve, "aggregate", "--all", "--shard", text)
    assert done.status == 2
    assert f"cannot select the shard {text}" in done.err.replace("'", "")

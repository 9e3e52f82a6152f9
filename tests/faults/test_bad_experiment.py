"""One experiment with moved or replaced files: each command names it, continues with the others, and exits with 1."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support.command import run
from tests.support.faults_of_records import honest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def three_experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three") / "results"
    repository = FileSystemRepository(folder)
    for name in ("a", "b", "x"):
        for record in honest():
            repository.save_raw(name, msgspec.structs.replace(record, experiment_id=name))
    list(aggregate_all(repository))
    return folder


@pytest.fixture
def results(three_experiments: Path, tmp_path: Path) -> Path:
    return shutil.copytree(three_experiments, tmp_path / "results")


def rename(results: Path) -> None:
    (results / "raw" / "x").rename(results / "raw" / "y")
    (results / "aggregated" / "x.json").rename(results / "aggregated" / "y.json")


def put_pipe(results: Path) -> None:
    (results / "aggregated" / "x.json").unlink()
    os.mkfifo(results / "aggregated" / "x.json")


def put_link(results: Path) -> None:
    """Replace the aggregate by a link to a file outside, with a ctime that differs from its mtime."""
    path, outside = results / "aggregated" / "x.json", results.parent / "outside.json"
    path.rename(outside)
    path.with_name("y.json").symlink_to(outside)
    path.with_name("y.json").rename(path)


def put_broken_link(results: Path) -> None:
    (results / "aggregated" / "x.json").unlink()
    (results / "aggregated" / "x.json").symlink_to(results / "absent")


def put_folder(results: Path) -> None:
    (results / "aggregated" / "x.json").unlink()
    (results / "aggregated" / "x.json").mkdir()


FAULTS = [rename, put_pipe, put_link, put_broken_link]
# Each of these commands reads the aggregate of each experiment. The second part is what the output has of the others.
COMMANDS = [
    ("results list --json", '"a"'),
    ("results list --rehash --json", '"b"'),
    ("results export --to -", "\na,"),
    ("results repeats --json", '"a"'),
    ("results sql SELECT/**/count(*)/**/as/**/n/**/from/**/experiments --format json", '"n": 2'),
    ("results verify --all --json", '"b"'),
    ("results check --json", "aggregate.unreadable"),
    ("-v aggregate --all --force", "b: 4 of 4 processes"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("fault", FAULTS)
def test_command_names_the_bad_experiment_and_continues(
    results: Path, fault: Callable[[Path], None], command: tuple[str, str]
) -> None:
    fault(results)
    outside = results.parent / "outside.json"
    before = outside.read_bytes() if outside.exists() else None
    line, text_of_others = command
    done = run("-o", results, *line.split())
    assert done.status == 1
    assert text_of_others in done.out
    name = "y" if fault is rename else "x"
    assert any(text in done.out + done.err for text in (f"{name}.json", f'"{name}"', f"'{name}'", f"{name}: "))
    assert "bug" not in done.err
    assert (outside.read_bytes() if outside.exists() else None) == before


@pytest.mark.parametrize("fault", [*FAULTS[1:], put_folder])
def test_aggregate_all_reports_what_has_the_name_of_an_aggregate(results: Path, fault: Callable[[Path], None]) -> None:
    fault(results)
    done = run("-o", results, "aggregate", "--all")
    assert done.status == 1
    assert f"{os.sep}x.json: it is " in done.err
    assert "2 skipped, 1 failed" in done.err


def test_verify_names_the_folder_of_a_renamed_experiment(results: Path) -> None:
    rename(results)
    found = verify_experiment(FileSystemRepository(results), "y")
    assert (found.experiment_id, found.verdict, found.total_energy_j) == ("y", "unreadable", None)
    messages = [finding.message for finding in found.findings if finding.outcome == "failed"]
    assert messages[0] == "the file is the aggregate of 'x'"
    assert "process_0.json: it is a result of another experiment, 'x'" in messages[1]


def test_folder_with_the_name_of_a_result_is_no_result(results: Path) -> None:
    path = results / "raw" / "x" / "process_1.json"
    path.unlink()
    path.mkdir()
    repository = FileSystemRepository(results)
    assert [file.name for file in repository.list_raw("x")] == ["process_0.json", "process_2.json", "process_3.json"]
    listed = run("-o", results, "results", "list", "--json").json()
    assert {row["experiment_id"]: row["verdict"] for row in listed} == {"a": "complete", "b": "complete", "x": "stale"}
    done = run("-o", results, "aggregate", "--all")
    assert (done.status, "missing process 1" in done.err) == (1, True)
    assert [one["code"] for one in run("-o", results, "results", "check", "--json").json()][:1] == ["raw.not_a_file"]


@pytest.mark.parametrize("fault", [put_pipe, put_link, put_folder])
def test_experiment_without_a_regular_aggregate_can_be_deleted(results: Path, fault: Callable[[Path], None]) -> None:
    fault(results)
    assert run("-o", results, "results", "delete", "x", "--yes").status == 0
    names = [row["experiment_id"] for row in json.loads(run("-o", results, "results", "list", "--json").out)]
    assert names == ["a", "b"]

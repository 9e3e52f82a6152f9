"""Each command reads results from a bucket, and gives the answer that it gives for a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.buckets import IS_LONG
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


SHORT_COMMANDS = (
    "results list",
    "results show llama_c0 --json",
    "results verify --all",
    "results export --to -",
    "aggregate torn --no-strict",
    "results delete llama_c1 --yes",
    "results list --all",
)
ALL_COMMANDS = (
    "results list",
    "results list --all --json",
    "results show llama_c0",
    "results show llama_c0 --json",
    "results show torn --raw",
    "results verify --all",
    "results verify llama_c0 --json",
    "results repeats",
    "results compare id=llama_c0 id=llama_c1 --energy plain",
    "results export --to -",
    "results export --raw --to -",
    "results check",
    "results tag llama_c0 paper=one",
    "results list --where tag.paper=one",
    "aggregate --all",
    "aggregate torn --no-strict",
    "results sql 'select count(*) as n from experiments' --format json",
    "results delete llama_c1 --yes",
    "results list --all",
    "results show llama_c1",
)


def fill(repository: FileSystemRepository) -> FileSystemRepository:
    for cycle in range(2):
        for process in range(2):
            name = f"llama_c{cycle}"
            joules = factories.energy(process, total_energy_j=2000.0 + 250 * process + 10 * cycle)
            repository.save_raw(name, factories.raw(name, process, energy_metrics=joules))
    list(aggregate_all(repository))
    repository.save_raw("torn", factories.raw("torn", 1, world_size=3))
    return repository


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_commands_answer_as_for_a_directory(url: str, tmp_path: Path) -> None:
    fill(FileSystemRepository(url))
    fill(FileSystemRepository(tmp_path / "results"))
    for command in ALL_COMMANDS if IS_LONG else SHORT_COMMANDS:
        words = command.replace("'select count(*) as n from experiments'", "QUERY").split()
        arguments = ["select count(*) as n from experiments" if word == "QUERY" else word for word in words]
        found, expected = (run("-o", place, *arguments) for place in (url, tmp_path / "results"))
        assert found.status == expected.status, (command, found)
        assert found.out.replace(url, "DIR") == expected.out.replace(str(tmp_path / "results"), "DIR"), command
        assert found.err.replace(url, "DIR") == expected.err.replace(str(tmp_path / "results"), "DIR"), command


def test_save_returns_a_url_that_load_accepts(url: str) -> None:
    repository = FileSystemRepository(url)
    place = repository.save_raw("exp", factories.raw("exp"))
    assert str(place) == f"{url}/raw/exp/process_0.json"
    assert repository.list_raw("exp") == [place]
    assert repository.load_raw(place) == repository.load_raw(str(place)) == repository.load_all_raw("exp")[0]


@pytest.mark.usefixtures("cache")
def test_merge_copies_between_a_directory_and_a_bucket(url: str, tmp_path: Path) -> None:
    fill(FileSystemRepository(tmp_path / "results"))
    assert run("-o", url, "results", "merge", tmp_path / "results").status == 0
    assert run("-o", tmp_path / "copy", "results", "merge", url).status == 0
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.json")}
        for name in ("results", "copy")
    )
    assert first == second
    assert len(first) > 5


@pytest.mark.usefixtures("cache")
def test_report_and_bundle_are_made_from_a_bucket(url: str, tmp_path: Path) -> None:
    fill(FileSystemRepository(url))
    for command in ("results report --to", "bundle create --to"):
        target = tmp_path / command.split()[0]
        done = run("-o", url, *command.split(), f"{target}.{'html' if 'report' in command else 'zip'}")
        assert done.status == 0, done.err
    assert "unsigned: whole" in run("bundle", "verify", tmp_path / "bundle.zip").out
    assert run("-o", url, "results", "compare", "id=llama_c0", "id=llama_c1", "--energy", "plain").status == 0


def test_bucket_that_does_not_exist_is_one_sentence(url: str) -> None:
    done = run("-o", url.replace("s3://lem", "s3://absent"), "results", "list")
    assert done.status == 1
    assert "s3://absent" in done.err
    assert "404 Not Found; check that the bucket exists" in done.err
    assert done.err.count("\n") == 1

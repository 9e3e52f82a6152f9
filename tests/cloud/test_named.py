"""A command whose arguments name the experiments lists only these experiments of a bucket."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.buckets import IS_LONG
from tests.support.command import Done, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.fault_proxy import FaultProxy

# Each command is also run with an empty catalogue.
COMMANDS = (
    "results compare id=exp_3 id=exp_4 --energy plain",
    "results repeats exp_3 exp_4",
    "results export exp_3 exp_4 --to -",
    "results report exp_3 exp_4 --to FILE",
    "results show exp_3",
    "results verify exp_3 exp_4",
    "results list --all --where 'id in (exp_3, exp_4) and energy > 1'",
    "aggregate exp_3 --force",
)
MORE_COMMANDS = (
    "results compare id=exp_3 'id = exp_4 or id = exp_5' --where 'energy > 1'",
    "results repeats exp_3 exp_4 --where 'energy > 1'",
    "results report --where id=exp_3 --to FILE",
    "results export exp_3 --raw --to -",
    "results export exp_3 --where 'energy > 1' --to -",
    "results show exp_3 --json",
    "results show exp_3 --raw",
    "results plot config.batch_size --where id=exp_3",
    "results verify exp_3 --json",
    "results tag exp_3 paper=one",
    "aggregate exp_3",
    "aggregate torn --no-strict",
    "results show torn",
    "results delete exp_5 --yes",
    "results list --all --where id=exp_5",
)
CHANGES = ("results delete exp_5 --yes", "aggregate torn --no-strict")
"""Commands with another answer the second time."""

COUNT = 7

_TIME = re.compile("20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+")


def fill(repository: FileSystemRepository) -> None:
    for number in range(COUNT):
        for process in (0, 1):
            joules = factories.energy(process, total_energy_j=2000.0 + 250 * process + 10 * number)
            record = factories.raw(f"exp_{number}", process, energy_metrics=joules, effective_config={"batch_size": 1})
            repository.save_raw(f"exp_{number}", record)
    list(aggregate_all(repository))
    repository.save_raw("torn", factories.raw("torn", 1, world_size=3))


def listings_of_all(requests: list[tuple[str, str]], url: str) -> set[str]:
    """Return the folders of the bucket that requests list from the first name."""
    prefix = url.rpartition("/")[2]
    queries = [parse_qs(urlsplit(path).query) for _, path in requests]
    found = {query["prefix"][0] for query in queries if "list-type" in query and "start-after" not in query}
    return found & {f"{prefix}/{name}/" for name in ("raw", "aggregated", "tags")}


def test_named_experiments_are_listed_alone(
    proxy: FaultProxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / url.rpartition("/")[2]  # a report has only this name
    places = {"local": directory, "cold": url, "warm": url}
    for place in (url, directory):
        fill(FileSystemRepository(place))

    def done(command: str, kind: str) -> Done:
        target = tmp_path / f"{kind}.html"
        found = run("-o", places[kind], *shlex.split(command.replace("FILE", str(target))))
        page = target.read_text() if "FILE" in command else ""
        texts = (found.out + page, found.err)
        out, err = (text.replace(str(places[kind]), "DIR").replace(str(target), "FILE") for text in texts)
        return Done(found.status, _TIME.sub("TIME", out), err)

    for number, command in enumerate(COMMANDS + (MORE_COMMANDS if IS_LONG else ())):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache_{number}"))
        expected = done(command, "local")
        for kind in ("cold",) if command in CHANGES else ("cold", "warm"):
            if kind == "warm":
                run("-o", url, "results", "list", "--all")
            before = len(proxy.requests)
            assert done(command, kind) == expected, (command, kind)
            assert listings_of_all(proxy.requests[before:], url) == set(), (command, kind)


def test_named_experiment_that_changed_or_disappeared_is_read_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repository = FileSystemRepository(url)
    fill(repository)

    def verdicts(*names: str) -> dict[str, str]:
        condition = " or ".join(f"id = {name}" for name in names)
        rows = run("-o", url, "results", "list", "--all", "--where", condition, "--json").json()
        return {row["experiment_id"]: row["status"] for row in rows}

    run("-o", url, "results", "list", "--all")
    assert verdicts("exp_1", "exp_2", "absent") == {"exp_1": "current", "exp_2": "current"}
    repository.save_raw("exp_1", factories.raw("exp_1", 2))
    repository.save_raw("absent", factories.raw("absent"))
    repository.delete_experiment("exp_2")
    assert verdicts("exp_1", "exp_2", "absent") == {"exp_1": "stale", "absent": "pending"}
    assert len(run("-o", url, "results", "list", "--all", "--json").json()) == COUNT + 1

"""Old names of commands, options and values, which are accepted for one release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.results.repository import FileSystemRepository
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


def test_cycles_runs_repeats_and_names_it_on_stderr(results: Path) -> None:
    old = run("-o", results, "results", "cycles", "--energy", "plain", "--json")
    new = run("-o", results, "results", "repeats", "--energy", "plain", "--json")
    assert (old.status, old.out) == (new.status, new.out)
    assert new.err == ""
    assert old.err == (
        "warning: 'results cycles' has a new name: use 'results repeats'; the old name works in this release only\n"
    )


def test_old_names_are_not_listed_in_help() -> None:
    assert "cycles" not in run("results", "--help").out
    assert "--sweep" not in run("results", "check", "--help").out


def test_an_old_name_at_the_wrong_place_suggests_the_new_one() -> None:
    assert "did you mean 'llm-energy-measure results repeats'?" in run("cycles").err


def test_conditions_with_foreign_find_external_experiments(tmp_path: Path) -> None:
    FileSystemRepository(tmp_path).save_aggregated(factories.aggregated("theirs"))
    for condition in (
        "verdict = foreign",
        "status = 'foreign'",
        "verdict in (foreign, stale)",
        "verdict ~ foreign",
        "verdict = external",
    ):
        [row] = run("-o", tmp_path, "results", "list", "--where", condition, "--json").json()
        assert (row["experiment_id"], row["verdict"], row["status"]) == ("theirs", "external", "external")
    assert run("-o", tmp_path, "results", "list", "--where", "verdict != foreign", "--json").json() == []

"""The command line on real results of which one file was lost, as they so often are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tests.support.command import as_process, run

if TYPE_CHECKING:
    from pathlib import Path

LOST = "0001_c0/process_0.json"


def test_list_names_the_lost_file_and_shows_the_rest(baseline: Path) -> None:
    done = as_process("-o", baseline, "results", "list")
    assert done.status == 1
    assert f"{LOST} is unreadable: the file is empty (0 bytes)" in done.err
    assert "0001_c0" in done.out
    assert "0001_c1" in done.out


def test_show_names_the_lost_file_and_shows_the_rest(baseline: Path) -> None:
    done = as_process("-o", baseline, "results", "show", "0001_c0")
    assert done.status == 1
    assert f"{LOST} is unreadable: the file is empty (0 bytes)" in done.err
    assert "0 of 1" in done.out


def test_aggregate_names_the_lost_file_and_aggregates_the_rest(baseline: Path) -> None:
    theirs = {path.name: path.read_bytes() for path in (baseline / "aggregated").iterdir()}
    done = as_process("-o", baseline, "aggregate", "--all", "--force")
    assert done.status == 1
    assert "process_0.json: the file is empty (0 bytes)" in done.err
    assert "1 aggregated, 0 skipped, 1 failed" in done.err
    assert done.out.startswith("0001_c1: 1 of 1 processes, 1.981 kJ")

    folder = baseline / "aggregated"
    assert (folder / "0001_c0.json").read_bytes() == theirs["0001_c0.json"], "the old aggregate stays"
    assert (folder / "superseded-0001_c1-1.json").read_bytes() == theirs["0001_c1.json"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "0001_c0.json",
        "0001_c1.json",
        "superseded-0001_c1-1.json",
    ]
    ours, before = json.loads((folder / "0001_c1.json").read_bytes()), json.loads(theirs["0001_c1.json"])
    assert ours["total_energy_j"] == pytest.approx(before["total_energy_j"], rel=1e-12)


def test_without_force_the_aggregates_of_another_tool_stay(baseline: Path) -> None:
    done = run("-o", baseline, "-v", "aggregate", "--all")
    assert (done.status, done.out) == (0, "")
    assert "0 aggregated, 2 skipped, 0 failed" in done.err
    assert "0001_c1 was derived by another tool" in done.err
    done = run("-o", baseline, "aggregate", "0001_c1")
    assert (done.status, done.out) == (0, "0001_c1 was derived by another tool; --force replaces it\n")


def test_an_aggregate_made_now_lists_what_its_checks_found(baseline: Path) -> None:
    run("-o", baseline, "aggregate", "--all", "--force")
    rows = run("-o", baseline, "results", "list", "--json").json()
    assert [(row["experiment_id"], row["verdict"]) for row in rows] == [("0001_c0", "external"), ("0001_c1", "failed")]


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_json_prints_the_fields_of_the_file_itself(baseline: Path, kind: str) -> None:
    if kind == "raw":
        [shown] = run("-o", baseline, "results", "show", "0001_c1", "--raw", "--json").json()
        path = baseline / "raw" / "0001_c1" / "process_0.json"
    else:
        shown = run("-o", baseline, "results", "show", "0001_c1", "--json").json()
        path = baseline / "aggregated" / "0001_c1.json"
    assert shown == json.loads(path.read_bytes())
    assert list(shown) == list(json.loads(path.read_bytes()))


def test_cycles_are_those_of_the_tool_that_wrote_them(baseline: Path) -> None:
    [group] = run("-o", baseline, "results", "repeats", "--json").json()
    theirs = json.loads((baseline / "multi_cycle" / "0001.json").read_bytes())["statistics"]
    assert group["name"] == "0001"
    assert group["energy_j"]["mean"] == pytest.approx(theirs["energy_mean_j"], rel=1e-12)
    assert group["energy_j"]["cv"] == pytest.approx(theirs["energy_cv"], rel=1e-9)


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_every_real_file_and_every_file_we_write_is_as_the_printed_schema_says(
    real_data: Path, baseline: Path, results: Path, kind: str
) -> None:
    validator = jsonschema.Draft202012Validator(run("schema", kind).json())
    for folder in (baseline, results):
        run("-o", folder, "aggregate", "--all", "--no-strict", "--force")
    pattern = "raw/*/process_*.json" if kind == "raw" else "aggregated/*.json"
    files = [path for path in (real_data / "v2_results").glob(f"*/{pattern}") if path.stat().st_size]
    ours = [path for folder in (baseline, results) for path in folder.glob(pattern) if path.stat().st_size]
    assert len(files) == 10
    assert len(ours) > 5
    for path in files + ours:
        validator.validate(json.loads(path.read_bytes()))

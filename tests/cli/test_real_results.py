"""The commands on real results, of which one file is empty; this is the most common damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tests.support.command import as_process, run

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = "0001_c0/process_0.json"


def test_list_reports_the_empty_file_and_lists_all_experiments(baseline: Path) -> None:
    done = as_process("-o", baseline, "results", "list")
    assert done.status == 1
    assert f"{EMPTY} is unreadable: the file is empty (0 bytes)" in done.err
    assert "0001_c0" in done.out
    assert "0001_c1" in done.out


def test_show_reports_the_empty_file(baseline: Path) -> None:
    done = as_process("-o", baseline, "results", "show", "0001_c0")
    assert done.status == 1
    assert f"{EMPTY} is unreadable: the file is empty (0 bytes)" in done.err
    assert "0 of 1" in done.out


def test_aggregate_reports_the_empty_file_and_continues(baseline: Path) -> None:
    theirs = {path.name: path.read_bytes() for path in (baseline / "aggregated").iterdir()}
    done = as_process("-v", "-o", baseline, "aggregate", "--all", "--force")
    assert done.status == 1
    assert "process_0.json: the file is empty (0 bytes)" in done.err
    assert "1 aggregated, 0 skipped, 1 failed" in done.err
    assert done.out.startswith("0001_c1: 1 of 1 processes, 1.981 kJ")

    folder = baseline / "aggregated"
    assert (folder / "0001_c0.json").read_bytes() == theirs["0001_c0.json"], "the old aggregate is kept"
    assert (folder / "superseded-0001_c1-1.json.kept").read_bytes() == theirs["0001_c1.json"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "0001_c0.json",
        "0001_c1.json",
        "superseded-0001_c1-1.json.kept",
    ]
    ours, before = json.loads((folder / "0001_c1.json").read_bytes()), json.loads(theirs["0001_c1.json"])
    assert ours["total_energy_j"] == pytest.approx(before["total_energy_j"], rel=1e-12)


def test_aggregate_keeps_external_aggregates_without_force(baseline: Path) -> None:
    done = run("-o", baseline, "-v", "aggregate", "--all")
    assert (done.status, done.out) == (0, "")
    assert "0 aggregated, 2 skipped, 0 failed" in done.err
    assert "0001_c1 was aggregated by another tool" in done.err
    done = run("-o", baseline, "aggregate", "0001_c1")
    assert (done.status, done.out) == (
        0,
        "0001_c1 was aggregated by another tool; use --force to replace its aggregate\n",
    )


def test_list_shows_the_verdict_of_a_new_aggregate(baseline: Path) -> None:
    run("-o", baseline, "aggregate", "--all", "--force")
    rows = run("-o", baseline, "results", "list", "--json").json()
    assert [(row["experiment_id"], row["verdict"]) for row in rows] == [
        ("0001_c0", "external"),
        ("0001_c1", "complete"),
    ]


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_show_json_prints_the_stored_fields(baseline: Path, kind: str) -> None:
    if kind == "raw":
        [shown] = run("-o", baseline, "results", "show", "0001_c1", "--raw", "--json").json()
        path = baseline / "raw" / "0001_c1" / "process_0.json"
    else:
        shown = run("-o", baseline, "results", "show", "0001_c1", "--json").json()
        path = baseline / "aggregated" / "0001_c1.json"
    assert shown == json.loads(path.read_bytes())
    assert list(shown) == list(json.loads(path.read_bytes()))


def test_repeats_match_the_statistics_of_the_original_tool(baseline: Path) -> None:
    document = run("-o", baseline, "results", "repeats", "--energy", "plain", "--metrics", "energy", "--json").json()
    [group] = document["groups"]
    theirs = json.loads((baseline / "multi_cycle" / "0001.json").read_bytes())["statistics"]
    assert group["experiment_ids"] == ["0001_c0", "0001_c1"]
    assert group["statistics"]["energy"]["mean"] == pytest.approx(theirs["energy_mean_j"], rel=1e-12)
    assert group["statistics"]["energy"]["cv"] == pytest.approx(theirs["energy_cv"], rel=1e-9)


@pytest.mark.parametrize("kind", ["raw", "aggregated"])
def test_real_files_and_our_files_match_the_printed_schema(
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

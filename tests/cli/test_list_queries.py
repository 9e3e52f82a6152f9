"""Queries of `results list`: conditions, order, groups, totals, and the time of the scan."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


def ids(results: Path, *arguments: str) -> list[str]:
    return [row["experiment_id"] for row in run("-o", results, "results", "list", "--json", *arguments).json()]


def test_where_filters_by_any_column(results: Path) -> None:
    run("-o", results, "results", "tag", "llama_c1", "paper=fig3")
    assert ids(results, "--where", "energy_j > 4250 and model ~ LLAMA") == ["llama_c1", "llama_c2"]
    assert ids(results, "--where", "tag.paper = fig3") == ["llama_c1"]
    assert ids(results, "--all", "--where", "verdict = pending and gpu ~ a100") == ["mistral", "torn"]
    assert ids(results, "--all", "--where", "date = 2026-01-16 and not id in (llama_c0, torn)", "--sort", "id") == [
        *("llama_c1", "llama_c2", "mistral"),
    ]
    assert ids(results, "--where", "precision = float16", "--sort", "total_energy_j", "--reverse", "--limit", "1") == [
        "llama_c2"
    ]
    done = run("-o", results, "results", "list", "--where", "energy_j > 4250", "--limit", "1")
    assert done.err.startswith("1 of 2 experiments; 2 not aggregated yet")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--where", "colour = red"], ["--where", "energy_j >"], ["--sort", "colour"], ["--by", "model,colour"]),
        *(["--by", "model", "--sort", "date"], ["--where", "model ~ \udcff"]),
    ],
    ids=" ".join,
)
def test_invalid_conditions_and_columns_are_wrong_usage(results: Path, arguments: list[str]) -> None:
    done = run("-o", results, "results", "list", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("Error: ") == 1


def test_by_and_totals_print_totals(results: Path) -> None:
    [llama, mistral] = run("-o", results, "results", "list", "--all", "--by", "model", "--json").json()
    assert (llama["by"], llama["experiments"], llama["total_energy_j"], llama["unknown_energy"]) == (
        *({"model": "meta-llama/Llama-3.2-1B"}, 4, 4250.0 + 4270 + 4290, 1),
    )
    assert (mistral["experiments"], mistral["total_energy_j"], mistral["tokens_per_joule"]) == (1, None, None)
    [total] = run("-o", results, "results", "list", "--totals", "--json").json()
    assert (total["experiments"], total["total_tokens"], total["by"]) == (3, 3 * 16484, {})
    done = run("-o", results, "results", "list", "--all", "--by", "model,status")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "model status experiments energy tokens tokens/J without energy lower bounds"
    assert "meta-llama/Llama-3.2-1B current 3 ≤ 12.81 kJ 49,452 ≥ 3.86 0 0" in lines
    assert done.err == "5 experiments\n"


def test_a_model_that_is_not_utf8_is_refused(results: Path) -> None:
    run("-o", results, "results", "list")
    before = (results / ".catalogue.sqlite").stat().st_ino
    done = run("-o", results, "results", "list", "--model", "\udcff")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "not valid UTF-8" in done.err
    assert (results / ".catalogue.sqlite").stat().st_ino == before


def test_groups_sort_by_a_figure_and_report_the_limit(results: Path) -> None:
    run("-o", results, "aggregate", "mistral")

    def groups(*arguments: str) -> list[str]:
        found = run("-o", results, "results", "list", "--all", "--json", *arguments).json()
        return ["/".join(map(str, group["by"].values())) for group in found]

    assert groups("--by", "model , model") == ["meta-llama/Llama-3.2-1B", "mistralai/Mistral-7B"]
    ids = ["llama_c0", "llama_c1", "llama_c2", "mistral", "torn"]
    assert groups("--by", "id") == ids
    assert groups("--by", "id", "--reverse") == ids[::-1]
    assert groups("--by", "id", "--sort", "energy") == ["mistral", *ids[:3], "torn"], "unknown values come last"
    assert groups("--by", "id", "--sort", "energy_j", "--reverse") == [
        "llama_c2",
        "llama_c1",
        "llama_c0",
        "mistral",
        "torn",
    ]
    done = run("-o", results, "results", "list", "--all", "--by", "id,id", "--limit", "2")
    assert (done.status, done.err) == (0, "2 of 5 groups, of 5 experiments\n")
    assert done.out.split()[:2] == ["id", "experiments"]


def test_a_list_without_a_scan_reports_the_time_of_the_last_scan(many_results: Path) -> None:
    results = many_results
    first = run("-o", results, "results", "list").err
    assert "reading 2,005 experiments into the catalogue" in first
    assert "as of" not in first
    for name in ("raw", "aggregated"):
        os.utime(results / name, (1_700_000_000, 1_700_000_000))
    assert "as of" not in run("-o", results, "results", "list").err
    done = run("-o", results, "results", "list", "--json", "--limit", "1")
    assert len(done.json()) == 1
    assert done.err.startswith("1 of 3 experiments; 2,002 not aggregated yet")
    assert "; as of 20" in done.err
    FileSystemRepository(results).save_raw("llama_c0", factories.raw("llama_c0", 2))
    done = run("-o", results, "results", "list", "--where", "verdict = stale")
    assert done.out == ""
    assert "; as of 20" in done.err
    assert "(--refresh scans all experiments again)" in done.err
    done = run("-o", results, "results", "list", "--where", "verdict = stale", "--refresh")
    assert done.out.count("llama_c0") == 1
    assert "as of" not in done.err


def test_groups_sort_by_a_group_column(results: Path) -> None:
    for name, run_number in (("llama_c0", "9"), ("llama_c1", "10"), ("llama_c2", "low")):
        run("-o", results, "results", "tag", name, f"run={run_number}")

    def order(*arguments: str) -> list[tuple[str | None, ...]]:
        rows = run("-o", results, "results", "list", "--all", "--json", *arguments).json()
        return [tuple(row["by"].values()) for row in rows]

    assert order("--by", "tag.run") == [("9",), ("10",), ("low",), (None,)]
    by = ("--by", "status,tag.run")
    assert order(*by, "--sort", "tag.run") == [
        *(("current", "9"), ("current", "10"), ("current", "low"), ("pending", None)),
    ]
    assert [row[1] for row in order(*by, "--sort", "tag.run", "--reverse")] == ["10", "9", "low", None]
    assert order("--by", "model_name", "--sort", "MODEL", "--reverse")[0] == ("mistralai/Mistral-7B",)


def test_the_table_and_conditions_use_dates_in_utc(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    west = timezone(timedelta(hours=-9))
    for name, hour in (("early", 12), ("late", 22)):
        start = datetime(2026, 1, 16, hour, tzinfo=west)
        repository.save_raw(name, factories.raw(name, timestamps=factories.timestamps(start)))
    done = run("-o", tmp_path, "results", "list", "--all", "--where", "date = 2026-01-17")
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["late"]
    assert done.out.rstrip().endswith("2026-01-17 07:00")


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00+09:00", "9999-12-31T23:59:00-09:00"])
def test_a_date_that_utc_cannot_represent_is_unknown(results: Path, start: str) -> None:
    repository = FileSystemRepository(results)
    moment = datetime.fromisoformat(start)
    stamps = factories.timestamps(moment, end=moment + timedelta(seconds=40.5))
    repository.save_raw("odd", factories.raw("odd", timestamps=stamps))
    run("-o", results, "aggregate", "odd")
    assert ids(results, "--where", "date is unknown") == ["odd"]
    assert run("-o", results, "results", "list", "--by", "date", "--energy", "plain").out.count("\n") == 4
    done = run("-o", results, "results", "list")
    [row] = [line for line in done.out.splitlines() if line.startswith("odd ")]
    assert (done.status, row.split()[-1]) == (0, "-")
    query = "select month from experiments where experiment_id = 'odd'"
    assert run("-o", results, "results", "sql", query, "--format", "json").json() == [{"month": "unknown"}]


def test_list_creates_no_file_in_an_empty_directory(tmp_path: Path) -> None:
    run("-o", tmp_path, "results", "list")
    assert list(tmp_path.iterdir()) == []


def test_quiet_list_does_not_announce_a_long_scan(many_results: Path) -> None:
    assert "reading" not in run("-q", "-o", many_results, "results", "list", "--rehash").err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_aggregate_all_gives_the_same_result_with_several_workers(results: Path, jobs: str) -> None:
    done = run("-v", "-o", results, "aggregate", "--all", "--no-strict", "--jobs", jobs)
    assert done.status == 0
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["mistral", "torn"]
    assert done.err.splitlines()[-1] == "2 aggregated, 3 skipped, 0 failed"
    done = run("-o", results, "aggregate", "--all", "--json", "--jobs", jobs)
    found = done.json()
    assert [(row["experiment_id"], row["result"]) for row in found] == [
        *((name, "current") for name in ("llama_c0", "llama_c1", "llama_c2", "mistral")),
        ("torn", "failed"),  # strict mode refuses the lower bound of the first command
    ]
    assert done.status == 1
    assert found[0]["total_energy_j"] == 4250.0


def test_aggregate_all_works_on_a_terminal(results: Path) -> None:
    done = on_terminal("-v", "-o", results, "aggregate", "--all", "--no-strict", "--rehash", columns=120)
    assert done.status == 0
    assert "mistral: 2 of 2 processes, 2.221 kJ to 4.193 kJ" in done.shown
    assert "2 aggregated, 3 skipped, 0 failed" in done.shown

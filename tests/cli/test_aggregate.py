"""`aggregate`: which experiments it aggregates, skips or refuses, and that it continues after a failure."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


def aggregate_of(results: Path, name: str) -> bytes:
    return (results / "aggregated" / f"{name}.json").read_bytes()


def test_a_pending_experiment_is_aggregated(results: Path) -> None:
    done = run("-o", results, "aggregate", "mistral")
    assert (done.status, done.err) == (0, "")
    assert done.out == "mistral: 2 of 2 processes, 2.221 kJ to 4.193 kJ (undetermined), 16,484 tokens\n"
    assert json.loads(aggregate_of(results, "mistral"))["total_energy_j"] == 4193.0


def test_a_current_experiment_is_skipped_with_a_message(results: Path) -> None:
    before = (results / "aggregated" / "llama_c0.json").stat()
    done = run("-o", results, "aggregate", "llama_c0")
    assert (done.status, done.out, done.err) == (0, "llama_c0 is up to date\n", "")
    after = (results / "aggregated" / "llama_c0.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_force_aggregates_a_current_experiment_again(results: Path) -> None:
    before = (results / "aggregated" / "llama_c0.json").stat().st_ino
    done = run("-o", results, "aggregate", "llama_c0", "--force")
    assert done.out == "llama_c0: 2 of 2 processes, 2.25 kJ to 4.25 kJ (undetermined), 16,484 tokens\n"
    assert (results / "aggregated" / "llama_c0.json").stat().st_ino != before


def test_all_aggregates_pending_and_stale_experiments_and_counts_them(results: Path) -> None:
    FileSystemRepository(results).save_raw("llama_c1", factories.raw("llama_c1", 2))
    done = run("-v", "-o", results, "aggregate", "--all")
    assert done.status == 1, "torn is incomplete"
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["llama_c1", "mistral"]
    assert done.err.splitlines()[-1] == "2 aggregated, 2 skipped, 1 failed"
    assert json.loads(aggregate_of(results, "llama_c1"))["aggregation"]["num_processes"] == 3


def test_all_prints_a_summary_and_quiet_only_errors(results: Path) -> None:
    shutil.copytree(results, results.with_name("copy"))
    done = run("-o", results, "aggregate", "--all", "--no-strict")
    assert (done.status, done.out) == (0, "")
    verdicts, findings, counts = done.err.splitlines()
    assert verdicts == "verdicts: 1 partial, 1 undetermined"
    assert findings.startswith("findings: ")
    assert findings.endswith("; 'llm-energy-measure results verify --all' explains them")
    assert counts == "2 aggregated, 3 skipped, 0 failed"
    assert run("-q", "-o", results, "aggregate", "--all", "--force", "--no-strict").err == ""
    quiet = run("-q", "-o", results.with_name("copy"), "aggregate", "--all")
    assert (quiet.status, quiet.out, quiet.err.count("\n")) == (1, "", 1)
    assert quiet.err.startswith("error: cannot aggregate 'torn' strictly")


def test_all_prints_ten_errors_and_the_number_of_the_others(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for number in range(12):
        repository.save_raw(f"e{number}", factories.raw(f"e{number}", world_size=2))
    quiet = run("-q", "-o", tmp_path, "aggregate", "--all")
    *errors, last = quiet.err.splitlines()
    assert (quiet.status, len(errors)) == (1, 10)
    assert all(line.startswith("error: cannot aggregate 'e") for line in errors)
    assert last == "error: 2 more experiments failed; -v prints each reason"
    detailed = run("-v", "-o", tmp_path, "aggregate", "--all")
    assert (detailed.status, detailed.err.count("error: ")) == (1, 12)
    listed = run("-o", tmp_path, "aggregate", "--all", "--json").json()
    assert sum("1 of 2 processes" in row["error"] for row in listed) == 12


def test_all_succeeds_in_an_empty_directory(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "aggregate", "--all")
    assert (done.status, done.out, done.err) == (0, "", "0 aggregated, 0 skipped, 0 failed\n")


def test_globs_select_experiments(results: Path) -> None:
    done = run("-o", results, "aggregate", "--force", "llama_c[01]", "mistral", "nope")
    assert [line.partition(":")[0] for line in done.out.splitlines()] == ["llama_c0", "llama_c1", "mistral"]
    assert "error: experiment 'nope' not found" in done.err
    done = run("-o", results, "aggregate", "x*")
    assert (done.status, done.err.partition(": ")[2].partition(":")[0]) == (1, "no experiment matches 'x*'")


def test_unreadable_file_is_sent_to_check(results: Path) -> None:
    (results / "raw" / "mistral" / "process_1.json").write_text("{")
    done = run("-o", results, "aggregate", "mistral")
    assert "; run 'llm-energy-measure results check', or accept a lower bound (--no-strict, strict=False)" in done.err
    [finding] = run("-o", results, "results", "check", "mistr*", "--json").json()
    assert finding["code"] == "raw.torn"
    assert finding["advice"] == "it ends too early to save its sections; run the process again"


def test_incomplete_experiments_are_refused_by_default(results: Path) -> None:
    for arguments in (["torn"], ["torn", "--strict"], ["torn", "--force"]):
        done = run("-o", results, "aggregate", *arguments)
        assert (done.status, done.out) == (1, "")
        assert done.err.count("\n") == 1
        assert done.err.startswith(
            "error: cannot aggregate 'torn' strictly: 1 of 3 processes have results, "
            "missing processes 0, 2 (expected number from "
        )
        assert done.err.endswith("; run the missing processes, or accept a lower bound (--no-strict, strict=False)\n")
    assert not (results / "aggregated" / "torn.json").exists()


def test_no_strict_saves_a_lower_bound_with_a_warning(results: Path) -> None:
    done = run("-o", results, "aggregate", "torn", "--no-strict")
    assert done.status == 0
    assert done.out == "torn: 1 of 3 processes, at least 2.221 kJ, 8,292 tokens\n"
    assert "warning: torn: partial: 1 of 3 processes have results, missing processes 0, 2" in done.err
    document = json.loads(aggregate_of(results, "torn"))
    assert document["is_lower_bound"] is True
    assert document["completeness"]["missing"] == [0, 2]


def test_a_failed_experiment_keeps_its_aggregate_and_stops_no_other(results: Path) -> None:
    before = aggregate_of(results, "llama_c0")
    for process in range(2):
        (results / "raw" / "llama_c0" / f"process_{process}.json").write_bytes(b"\0" * 100)
    done = run("-o", results, "aggregate", "--all", "--no-strict", "--rehash")
    assert done.status == 1
    assert "error: cannot aggregate 'llama_c0': process_0.json: the file contains only 100 blank bytes" in done.err
    assert "2 aggregated, 2 skipped, 1 failed" in done.err
    assert aggregate_of(results, "llama_c0") == before


def test_a_sum_beyond_a_double_fails_only_its_experiment(results: Path) -> None:
    beyond = factories.energy(total_energy_j=1.7e308)
    for record in factories.raws(2, "beyond", energy_metrics=beyond):
        FileSystemRepository(results).save_raw("beyond", record)
    done = run("-o", results, "aggregate", "--all", "--no-strict")
    assert done.status == 1
    assert "error: cannot aggregate 'beyond'" in done.err
    assert "this is a bug" not in done.err
    assert "2 aggregated, 3 skipped, 1 failed" in done.err


def test_a_partial_aggregate_with_an_unreadable_file_is_current(results: Path) -> None:
    (results / "raw" / "mistral" / "process_1.json").write_bytes(b"{")
    done = run("-o", results, "aggregate", "mistral", "--no-strict")
    assert done.status == 0
    assert "warning: mistral/process_1.json is unreadable: it is not valid JSON" in done.err
    assert run("-o", results, "aggregate", "mistral", "--no-strict").out == "mistral is up to date\n"
    assert run("-o", results, "aggregate", "mistral").status == 1, "a current lower bound is still refused"


def test_expected_processes_is_checked_and_remembered(results: Path) -> None:
    done = run("-o", results, "aggregate", "mistral", "--expected-processes", "4")
    assert done.status == 1
    assert "2 of 4 processes have results, missing processes 2, 3 (expected number from argument)" in done.err
    done = run("-o", results, "aggregate", "torn", "--expected-processes", "1", "--no-strict")
    assert done.status == 0
    run("-o", results, "aggregate", "mistral", "--expected-processes", "3", "--no-strict")
    FileSystemRepository(results).save_raw("mistral", factories.raw("mistral", 2, model_name="mistralai/Mistral-7B"))
    assert run("-o", results, "aggregate", "mistral").out.startswith("mistral: 3 of 3 processes")


def test_json_has_one_object_per_experiment(results: Path) -> None:
    done = run("-o", results, "aggregate", "mistral", "torn", "llama_c0", "nope", "--json")
    assert done.status == 1
    outcomes = done.json()
    assert [(o["experiment_id"], o["result"]) for o in outcomes] == [
        ("mistral", "aggregated"),
        ("torn", "failed"),
        ("llama_c0", "current"),
        ("nope", "failed"),
    ]
    assert outcomes[0]["total_energy_j"] == 4193.0
    assert outcomes[1]["error"].startswith("cannot aggregate 'torn' strictly")
    assert "1 aggregated, 1 skipped, 2 failed" in done.err


def test_warnings_are_printed_again_for_a_named_experiment(results: Path) -> None:
    for index in range(2):
        FileSystemRepository(results).save_raw("twice", factories.raw("twice", index, gpu_id=0))
    for _ in range(2):
        done = run("-o", results, "aggregate", "twice")
        assert (done.status, done.err.count("warning")) == (0, 1)
        assert done.err == "warning: twice: GPU 0 appears in multiple processes\n"
    assert "GPU 0" not in run("-o", results, "aggregate", "--all").err


@pytest.mark.parametrize("damage", ["manifest.json", "aggregate"])
def test_a_damaged_manifest_or_aggregate_stops_no_command(results: Path, damage: str) -> None:
    if damage == "aggregate":
        (results / "aggregated" / "llama_c1.json").write_bytes(aggregate_of(results, "llama_c1")[:500])
    else:
        (results / "raw" / "mistral" / "manifest.json").write_bytes(b'{"experiment_id": ')
    done = run("-o", results, "results", "list", "--all", "--energy", "plain")
    assert done.status == 1
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == [
        "llama_c0",
        "llama_c1",
        "llama_c2",
        "mistral",
        "torn",
    ]
    done = run("-o", results, "aggregate", "--all", "--no-strict", "--rehash")
    if damage == "aggregate":
        assert "3 aggregated, 2 skipped, 0 failed" in done.err
        assert (results / "aggregated" / "superseded-llama_c1-1.json.kept").exists(), "the unreadable aggregate is kept"
    else:
        assert "warning: mistral/manifest.json is unreadable: it is not valid JSON" in done.err
        assert "2 aggregated, 3 skipped, 0 failed" in done.err


def test_the_manifest_sets_the_expected_processes(results: Path) -> None:
    (results / "raw" / "mistral" / "manifest.json").write_text('{"experiment_id": "mistral", "expected_processes": 4}')
    done = run("-o", results, "aggregate", "mistral")
    assert done.status == 1
    assert "2 of 4 processes have results, missing processes 2, 3 (expected number from manifest)" in done.err


def test_mixed_backends_need_an_option(results: Path) -> None:
    repository = FileSystemRepository(results)
    for index, backend in enumerate(("vllm", "pytorch")):
        repository.save_raw("mixed", factories.raw("mixed", index, backend=backend))
    assert run("-o", results, "aggregate", "mixed").status == 1
    assert run("-o", results, "aggregate", "mixed", "--allow-mixed-backends").status == 0
    assert run("-o", results, "aggregate", "mixed", "-f", "--allow-mixed-backends").out.startswith("mixed: 2 of 2")
    listed = run("-o", results, "results", "list", "-a", "--json").json()
    assert {"mistral", "mixed"} <= {row["experiment_id"] for row in listed}

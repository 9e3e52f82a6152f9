"""`results list` and `results show`."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


def ids(results: Path, *arguments: str) -> list[str]:
    return [row["experiment_id"] for row in run("-o", results, "results", "list", "--json", *arguments).json()]


def spaced(line: str) -> str:
    """Return a line of a table with one space between words."""
    return " ".join(line.split())


# list


def test_list_has_aggregated_experiments_and_all_adds_pending_ones(results: Path) -> None:
    assert ids(results) == ["llama_c0", "llama_c1", "llama_c2"]
    assert ids(results, "--all") == ["llama_c0", "llama_c1", "llama_c2", "mistral", "torn"]


def test_list_prints_a_table(results: Path) -> None:
    done = run("-o", results, "results", "list", "--all")
    assert done.status == 0
    header, _, *rows = done.out.splitlines()
    assert spaced(header) == "id model processes energy tokens tokens/s/process tokens/J verdict warnings date"
    assert spaced(rows[0]) == (
        "llama_c0 meta-llama/Llama-3.2-1B 2/2 ≤ 4.25 kJ 16,484 867.5 ≥ 3.879 undetermined 2 2026-01-16 19:39"
    )
    assert spaced(rows[3]) == "mistral mistralai/Mistral-7B 2/2 - - - - pending 0 2026-01-16 19:39"
    assert spaced(rows[4]) == "torn meta-llama/Llama-3.2-1B 1/3 - - - - pending 0 2026-01-16 19:39"
    assert "\x1b" not in done.out


def test_list_json_is_in_base_units(results: Path) -> None:
    row = run("-o", results, "results", "list", "--json").json()[0]
    assert row == {
        "experiment_id": "llama_c0",
        "status": "current",
        "verdict": "undetermined",
        "model_name": "meta-llama/Llama-3.2-1B",
        "backend": "pytorch",
        "found_processes": 2,
        "expected_processes": 2,
        "total_energy_j": 4250.0,
        "partial_energy_j": None,
        "attributed_energy_j": None,
        "attributed_bounds_j": [2250.0, 4250.0],
        "attribution_factor": None,
        "attribution_status": "undetermined",
        "attribution_basis": [],
        "total_tokens": 16484,
        "avg_tokens_per_second": 867.5,
        "tokens_per_joule": 16484 / 4250,
        "attributed_tokens_per_joule": None,
        "method": "sum_energy_avg_throughput",
        "is_lower_bound": False,
        "start_time": "2026-01-16T19:39:58.225937Z",
        "config_name": "baseline",
        "precision": ["float16"],
        "hosts": [],
        "gpus": ["NVIDIA A100-PCIE-40GB"],
        "tags": {},
        "note": None,
        "warnings": [],
        "failed": [],
        "warning_codes": ["attribution.scope_unknown", "attribution.hosts_unknown"],
        "problems": [],
    }


SORTED = {
    "id": ["big_c2", "big_c10", "none", "small"],
    "model": ["none", "small", "big_c10", "big_c2"],
    "processes": ["small", "big_c10", "big_c2", "none"],
    "energy": ["small", "big_c2", "big_c10", "none"],
    "tokens": ["small", "none", "big_c2", "big_c10"],
    "throughput": ["big_c10", "big_c2", "small", "none"],
    "efficiency": ["small", "none"],
    "verdict": ["none"],
    "date": ["big_c2", "small", "none", "big_c10"],
}


@pytest.fixture(scope="module")
def distinct(tmp_path_factory: pytest.TempPathFactory) -> FileSystemRepository:
    """External aggregates that differ in every figure. In one of them, the figures are unknown."""
    repository = FileSystemRepository(tmp_path_factory.mktemp("distinct"))
    start = factories.START
    experiments: dict[str, dict[str, Any]] = {
        "big_c10": {"total_energy_j": 9e9, "total_tokens": 900, "avg_tokens_per_second": 1.0, "model_name": "z",
                    "process_results": factories.raws(2, "big_c10"), "end_time": None,
                    "start_time": start.replace(tzinfo=None, year=2027)},
        "big_c2": {"total_energy_j": 8e9, "total_tokens": 800, "avg_tokens_per_second": 2.0, "model_name": "z",
                   "process_results": factories.raws(3, "big_c2"), "start_time": start.replace(year=2020)},
        "small": {"total_energy_j": 1.0, "total_tokens": 1, "avg_tokens_per_second": 3.0, "model_name": "b",
                  "process_results": factories.raws(1, "small"), "start_time": start.replace(year=2021)},
        "none": {"total_energy_j": None, "total_tokens": 5, "avg_tokens_per_second": None, "model_name": "a",
                 "process_results": factories.raws(4, "none"), "start_time": start.replace(year=2022)},
    }  # fmt: skip
    for name, changes in experiments.items():
        repository.save_aggregated(factories.aggregated(name, **changes))
    return repository


@pytest.mark.parametrize("key", SORTED)
def test_list_sorts_by_each_key_with_unknown_values_last(distinct: FileSystemRepository, key: str) -> None:
    found = ids(distinct.base_path, "--sort", key)
    assert sorted(found) == sorted(SORTED["id"])
    wanted = SORTED[key]
    assert [name for name in found if name in wanted] == wanted
    reverse = ids(distinct.base_path, "--sort", key, "--reverse")
    if key in ("energy", "throughput"):
        assert found[-1] == reverse[-1] == "none"
        assert reverse[:3] == found[:3][::-1]
    else:
        assert sorted(reverse) == sorted(found)


def test_limit_reports_the_number_of_all_experiments(results: Path) -> None:
    done = run("-o", results, "results", "list", "--limit", "2", "--sort", "energy", "--reverse", "--json")
    assert [row["experiment_id"] for row in done.json()] == ["llama_c2", "llama_c1"]
    assert "2 of 3 experiments" in run("-o", results, "results", "list", "--limit", "2").err
    done = run("-o", results, "results", "list", "--limit", "0")
    assert (done.status, done.out) == (0, "")


def test_model_ignores_case(results: Path) -> None:
    assert ids(results, "--all", "--model", "MISTRAL") == ["mistral"]
    assert ids(results, "--model", "mistral") == []
    assert len(ids(results, "--all", "--model", "llama-3.2")) == 4


def test_model_still_reports_unreadable_experiments(results: Path) -> None:
    for process in range(2):
        (results / "raw" / "mistral" / f"process_{process}.json").write_bytes(b"null")
    done = run("-o", results, "results", "list", "--all", "--model", "mistral")
    assert (done.status, done.out) == (1, "")
    assert "mistral/process_1.json is unreadable: it contains null" in done.err


def test_list_of_an_empty_directory_is_empty(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "results", "list")
    assert (done.status, done.out, done.err) == (0, "", "0 experiments\n")
    assert run("-o", tmp_path, "results", "list", "--json").json() == []
    done = run("-o", tmp_path, "results", "list", "--where", "model = SmolLM2")
    assert done.err == '0 experiments; = compares the whole text; for a part of it, write "model ~ SmolLM2"\n'


def test_limit_counts_the_problems_of_experiments_that_it_hides(results: Path) -> None:
    for name in ("llama_c0", "llama_c2"):
        (results / "raw" / name / "process_0.json").write_bytes(b"[]")
    done = run("-o", results, "results", "list", "--limit", "1", "--rehash")
    assert done.status == 1
    assert done.err.splitlines()[:2] == [
        "warning: llama_c0/process_0.json is unreadable: it contains a list, not a JSON object",
        "warning: 1 more problem not shown; omit --limit to see all",
    ]
    assert "llama_c2/process_0.json" in run("-o", results, "results", "list", "--limit", "9").err


def test_list_marks_a_lower_bound(results: Path) -> None:
    assert run("-o", results, "aggregate", "torn", "--no-strict").status == 0
    row = next(line for line in run("-o", results, "results", "list").out.splitlines() if line.startswith("torn"))
    assert "1/3" in row
    assert "≥ 2.221 kJ" in row
    assert "partial" in row


def test_verdicts_follow_changes_of_the_files(results: Path) -> None:
    def verdicts() -> dict[str, str]:
        rows = run("-o", results, "results", "list", "--all", "--json").json()
        return {row["experiment_id"]: row["verdict"] for row in rows}

    assert verdicts() == dict.fromkeys(("llama_c0", "llama_c1", "llama_c2"), "undetermined") | dict.fromkeys(
        ("mistral", "torn"), "pending"
    )
    FileSystemRepository(results).save_raw("llama_c0", factories.raw("llama_c0", 2))
    (results / "aggregated" / "llama_c1.json").write_bytes(b'{"experiment_id": "llama_c1", ')
    document = json.loads((results / "aggregated" / "llama_c2.json").read_bytes())
    external = {name: value for name, value in document.items() if not name.endswith("_sha256")}
    (results / "aggregated" / "llama_c2.json").write_text(json.dumps({**external, "sources": None}))
    for index in range(2):
        of_host = factories.energy(index, **dict.fromkeys(("gpu_scope", "cpu_scope", "ram_scope"), "host"))
        twice = factories.raw("twice", index, host="node-1", energy_metrics=of_host)
        FileSystemRepository(results).save_raw("twice", twice)
        tokens = factories.inference(output_tokens=10**6)
        FileSystemRepository(results).save_raw("tokens", factories.raw("tokens", index, inference_metrics=tokens))
    zero = factories.compute(peak_memory_mb=0.0)
    FileSystemRepository(results).save_raw("zeros", factories.raw("zeros", compute_metrics=zero))
    run("-o", results, "aggregate", "twice", "zeros", "tokens")
    assert verdicts() == {
        "llama_c0": "stale",
        "llama_c1": "unreadable",
        "llama_c2": "external",
        "mistral": "pending",
        "torn": "pending",
        "twice": "over-counted",
        "zeros": "complete",
        "tokens": "failed",
    }


# show


def test_show_prints_a_summary_and_the_processes(results: Path) -> None:
    done = run("-o", results, "results", "show", "llama_c0")
    assert (done.status, done.err) == (0, "")
    fields = dict(line.split("  ", 1) for line in done.out.partition("\n\n")[0].splitlines())
    shown = {name: value.strip() for name, value in fields.items()}
    assert shown["verdict"] == "undetermined"
    assert shown["processes"] == "2 of 2"
    assert (shown["energy"], shown["plain sum"]) == ("2.25 kJ to 4.25 kJ", "4.25 kJ")
    assert shown["tokens"] == "16,484"
    assert shown["throughput"] == "867.5 token/s (mean per process)"
    assert shown["total throughput"] == "1735 token/s"
    table = done.out.partition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in table[2:]] == ["0", "1"]


def test_show_uses_one_unit_for_both_energies_per_token(tmp_path: Path) -> None:
    energy = factories.energy(total_energy_j=8.0, gpu_energy_j=8.0, cpu_energy_j=0.0, ram_energy_j=0.0)
    FileSystemRepository(tmp_path).save_raw("a", factories.raw("a", world_size=1, energy_metrics=energy))
    run("-o", tmp_path, "aggregate", "a")
    lines = run("-o", tmp_path, "results", "show", "a").out.splitlines()
    shown = {line[:18].strip(): line[18:].split()[1] for line in lines if line.startswith(("energy per", "per output"))}
    assert shown == {"energy per token": "mJ/token", "per output token": "mJ/token"}


def test_show_has_a_row_for_a_checkpoint_and_a_time_without_inference(tmp_path: Path) -> None:
    results = shutil.copytree("examples/results", tmp_path / "results")
    table = run("-o", results, "results", "show", "smollm2_b1_crash").out.partition("\n\n")[2].splitlines()
    assert [line[:14].split() for line in table[2:]] == [["0"], ["1"], ["2", "(checkpoint)"], ["3"]]
    bare = factories.raw("bare", world_size=1, inference_metrics=None)
    FileSystemRepository(results).save_raw("bare", bare)
    last = run("-o", results, "results", "show", "bare").out.splitlines()[-1]
    assert f"{bare.timestamps.duration_sec:g} s" in last


def test_show_of_a_pending_experiment_advises_to_aggregate(results: Path) -> None:
    done = run("-o", results, "results", "show", "mistral")
    assert done.status == 0
    assert "pending" in done.out
    assert "not aggregated yet; run 'llm-energy-measure aggregate mistral'" in done.err
    done = run("-o", results, "results", "show", "mistral", "--json")
    assert (done.status, done.out) == (0, "null\n")
    assert done.err == "not aggregated yet; run 'llm-energy-measure aggregate mistral'\n"


def test_show_of_a_stale_experiment_advises_to_aggregate(results: Path) -> None:
    FileSystemRepository(results).save_raw("llama_c0", factories.raw("llama_c0", 2))
    done = run("-o", results, "results", "show", "llama_c0")
    assert done.status == 0
    assert "verdict           stale" in done.out
    assert "changed or removed after the aggregation; run 'llm-energy-measure aggregate llama_c0'" in done.err


def test_an_unknown_energy_is_not_shown_as_a_lower_bound(tmp_path: Path) -> None:
    unknown = factories.energy(total_energy_j=None, gpu_energy_j=None, cpu_energy_j=None, ram_energy_j=None)
    FileSystemRepository(tmp_path).save_raw("dark", factories.raw("dark", energy_metrics=unknown))
    assert run("-o", tmp_path, "aggregate", "dark").out == "dark: 1 of 1 processes, unknown energy, 8,192 tokens\n"
    assert re.search("energy +-\n", run("-o", tmp_path, "results", "show", "dark").out)
    for listed in ([], ["--totals"]):
        done = run("-o", tmp_path, "results", "list", *listed)
        assert (done.status, "≥" in done.out) == (0, False)


def test_a_partial_total_counts_in_groups_as_a_lower_bound(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    parts = factories.energy(total_energy_j=None, gpu_energy_j=200.0, cpu_energy_j=40.0, ram_energy_j=None)
    whole = factories.energy(total_energy_j=60.0, gpu_energy_j=60.0, cpu_energy_j=None, ram_energy_j=None)
    repository.save_raw("parts", factories.raw("parts", energy_metrics=parts))
    repository.save_raw("whole", factories.raw("whole", energy_metrics=whole))
    run("-o", tmp_path, "aggregate", "--all")
    [group] = run("-o", tmp_path, "results", "list", "--totals", "--json").json()
    assert (group["total_energy_j"], group["attributed_high_j"]) == (300.0, 300.0)
    assert (group["unknown_energy"], group["lower_bounds"]) == (0, 1)
    assert group["tokens_per_joule"] == group["attributed_tokens_per_joule"] == 8192 / 60
    for kind in ("attributed", "plain"):
        assert "≥ 300 J" in run("-o", tmp_path, "results", "list", "--by", "model", "--energy", kind).out
    sorted_rows = run("-o", tmp_path, "results", "list", "--sort", "energy").out.splitlines()[2:]
    assert [row.split()[0] for row in sorted_rows] == ["whole", "parts"]


def test_show_without_raw_files_advises_to_delete(results: Path) -> None:
    """A deletion during the aggregation leaves this state, and so does a user who moves the folder away."""
    shutil.rmtree(results / "raw" / "llama_c0")
    done = run("-o", results, "results", "show", "llama_c0")
    assert done.status == 0
    assert "run 'llm-energy-measure aggregate" not in done.err
    assert "run 'llm-energy-measure results delete llama_c0' to delete it" in done.err
    assert run("-o", results, "results", "delete", "llama_c0", "--yes").status == 0
    assert run("-o", results, "results", "show", "llama_c0").status == 1


def test_show_marks_a_lower_bound(results: Path) -> None:
    run("-o", results, "aggregate", "torn", "--no-strict")
    done = run("-o", results, "results", "show", "torn")
    assert "at least 2.221 kJ" in done.out
    assert "partial: 1 of 3 processes have results, missing processes 0, 2" in done.out


def test_show_raw_prints_every_field_of_each_process(results: Path) -> None:
    done = run("-o", results, "results", "show", "llama_c0", "--raw")
    assert [line for line in done.out.splitlines() if not line.startswith(" ")] == ["process 0", "process 1"]
    assert "  total_energy_j        2000 J\n" in done.out
    assert "  latency_per_token_ms  1.16 ms\n" in done.out


def test_show_json_prints_the_stored_file(results: Path) -> None:
    path = results / "aggregated" / "llama_c0.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "a later field": [1, {"deep": None}]}))
    assert run("-o", results, "results", "show", "llama_c0", "--json").json()["a later field"] == [1, {"deep": None}]


def test_show_raw_json_prints_the_stored_files(results: Path) -> None:
    path = results / "raw" / "mistral" / "process_0.json"
    path.write_text("\ufeff" + json.dumps({**json.loads(path.read_bytes()), "later": 1e300, "energy": 2.0}))
    shown = run("-o", results, "results", "show", "mistral", "--raw", "--json").json()
    assert [process["process_index"] for process in shown] == [0, 1]
    assert shown[0]["later"] == 1e300
    assert shown[0] == json.loads(path.read_text(encoding="utf-8-sig"))


def test_show_accepts_an_id_or_a_folder_name(results: Path) -> None:
    FileSystemRepository(results).save_raw("exp/with/slashes", factories.raw("exp/with/slashes"))
    for name in ("exp/with/slashes", "exp_with_slashes"):
        assert "experiment  exp/with/slashes" in run("-o", results, "results", "show", name).out
    done = run("-o", results, "results", "show", "exp/with_slashes")
    assert (done.status, done.out) == (1, "")
    assert "its folder 'exp_with_slashes' belongs to the experiment 'exp/with/slashes'" in done.err


def test_show_of_a_torn_aggregate_prints_the_processes(results: Path) -> None:
    (results / "aggregated" / "llama_c1.json").write_bytes(b'{"experiment_id": "llama_c1", ')
    done = run("-o", results, "results", "show", "llama_c1")
    assert done.status == 1
    assert "aggregated/llama_c1.json is unreadable: it is not valid JSON" in done.err
    assert "2 of 2" in done.out
    assert "2.01 kJ" in done.out

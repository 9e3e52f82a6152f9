"""Import of real files of other tools and of real legacy folders."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support.imports import outcomes, read_all

if TYPE_CHECKING:
    from pathlib import Path


KWH = 3.6e6
LEGACY = ["0109", "0110", "0111", "0112", "0113", "0118", "0129", "0146", "3b_0008", "3b_0088"]


def codes(entries: list[importers.Entry]) -> Counter[str]:
    return Counter(entry.code for entry in entries)


# Legacy folders


@pytest.mark.parametrize("name", LEGACY)
def test_energy_of_a_legacy_folder_equals_the_tools_own_total(real_data: Path, name: str) -> None:
    folder = real_data / "legacy_v1" / name
    records, entries = read_all(folder)
    assert codes(entries) == {"whole": len(records)}
    assert [record.launcher and record.launcher.local_rank for record in records] == list(range(len(records)))
    [path] = folder.glob("*_7_global_energy_results.json")
    own = json.loads(path.read_bytes())["global_experiment_results"]["total_energy_joules"]
    result = aggregate_results(name, records, strict=True)
    assert result.total_energy_j == pytest.approx(own, rel=1e-9, abs=0)
    assert result.is_lower_bound is False


def test_list_of_legacy_folders_is_complete(real_data: Path) -> None:
    found = sorted(path.name for path in (real_data / "legacy_v1").iterdir() if path.is_dir())
    assert found == sorted([*LEGACY, "3b_0211", "3b_0213"])


def test_empty_file_with_the_total_costs_no_energy(real_data: Path) -> None:
    records, entries = read_all(real_data / "legacy_v1" / "3b_0211")
    assert [(record.experiment_id, record.process_index) for record in records] == [("3b_0211", i) for i in range(4)]
    assert codes(entries) == {"part_unreadable": 1, "whole": 3}
    assert aggregate_results("3b_0211", records, strict=True).is_lower_bound is False


def test_folder_of_empty_files_is_refused(real_data: Path) -> None:
    records, entries = read_all(real_data / "legacy_v1" / "3b_0213")
    assert records == []
    assert codes(entries) == {"empty_file": 4}
    assert all("3b_0213/0213_6_local_energy_results_process_" in entry.file for entry in entries)


def test_energy_window_follows_from_the_modelled_cpu_power(real_data: Path) -> None:
    records, _ = read_all(real_data / "legacy_v1" / "0112")
    windows = [record.energy_metrics.duration_sec or 0.0 for record in records]
    assert windows == pytest.approx([23.3, 35.7, 32.9, 30.3], abs=0.05)
    powers = [
        (record.energy_metrics.gpu_energy_j or 0.0) / window for record, window in zip(records, windows, strict=True)
    ]
    assert all(590 < power < 820 + 5 for power in powers)


def test_import_of_all_folders_gives_one_experiment_each(real_data: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for record in read_all(real_data / "legacy_v1")[0]:
        repository.save_raw(record.experiment_id, record)
    assert repository.list_experiments() == sorted([*LEGACY, "3b_0211"])


# CodeCarbon


def parses(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def test_each_run_of_the_bigscience_log_counts_once(real_data: Path) -> None:
    path = real_data / "peers" / "codecarbon" / "bigscience_emissions_first_1000_rows.csv"
    with path.open(newline="") as file:
        rows = dict(enumerate(csv.DictReader(file), start=2))
    complete = {line: row for line, row in rows.items() if parses(row["duration"]) and parses(row["energy_consumed"])}
    # Lines 314 and 769 lack the first characters, and line 761 breaks off at "Linu". Their energies are intact.
    assert {314, 761, 769} < set(complete)
    records, entries = read_all(path)
    assert len(entries) == len(rows) == 1000
    assert {entry.row for entry in entries if entry.code == "torn"} == set(rows) - set(complete)
    greatest: dict[str, float] = {}
    for row in complete.values():
        greatest[row["run_id"]] = max(greatest.get(row["run_id"], 0.0), float(row["energy_consumed"]))
    found = {record.effective_config["codecarbon"]["run_id"]: record for record in records}
    assert len(found) == len(records) == len(greatest) == 4
    for run, energy_kwh in greatest.items():
        assert found[run].energy_metrics.total_energy_j == energy_kwh * KWH
    plain_sum_j = sum(float(row["energy_consumed"]) for row in complete.values()) * KWH
    assert plain_sum_j > 20 * sum(record.energy_metrics.total_energy_j or 0 for record in records)
    # In one run, the last row by time comes before rows with less energy. The report says so.
    assert codes(entries)["out_of_order"] == 43
    assert any("includes the energy of this row" in entry.message and entry.row == 770 for entry in entries)


def test_damaged_codecarbon_file_is_repaired(real_data: Path) -> None:
    path = real_data / "peers" / "codecarbon" / "locally_generated_corrupted_by_codecarbon_3.3.0.csv"
    records, entries = read_all(path)
    assert outcomes(entries) == [
        (2, "kept", "no_energy"),
        (3, "repaired", "realigned"),
        (4, "repaired", "realigned"),
    ]
    for record in records:
        rest = record.effective_config["codecarbon"]
        assert (rest["tracking_mode"], rest["on_cloud"], rest["ram_total_size"]) == ("machine", "N", 0.0)
        assert (rest["pue"], rest["country_name"], rest["cpu_model"]) == (0.0, "France", "c")
        assert record.energy_metrics.total_energy_j is None  # nothing was measured: all powers are 0
    assert records[2].gpu_name == "A100"
    assert [record.effective_config["codecarbon"].get("gpu_count") for record in records] == [None, None, 1.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("examples_emissions.csv", {"whole": 12, "power_contradicts_energy": 7, "partial_total": 2, "cumulative": 7}),
        ("llenergymeasure_emissions.csv.bak", {"gpu_count_differs": 78}),
        ("ambroise012_emissions.csv", {"whole": 103}),
        ("emissions_invalid_headers.csv", {"whole": 1}),
    ],
)
def test_other_codecarbon_files(real_data: Path, name: str, expected: dict[str, int]) -> None:
    records, entries = read_all(real_data / "peers" / "codecarbon" / name)
    assert codes(entries) == expected
    if name.endswith(".bak"):
        assert all(len(record.energy_metrics.devices or []) == 4 for record in records)


def test_file_of_another_tool_with_codecarbons_name_is_unknown(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "peers" / "codecarbon" / "ambroise012_eval_emission.csv"
    with pytest.raises(ImportFormatError) as raised:
        importers.read(path)
    assert "pruning_type, sparsity_ratio, emissions, perplexity" in raised.value.found
    assert "it has none of the formats legacy, older-record, llenergymeasure, codecarbon" in raised.value.found
    (tmp_path / path.name).write_bytes(path.read_bytes())
    records, entries = read_all(tmp_path)
    assert (records, codes(entries)) == ([], {"unknown_format": 1})


# Other tools


def test_optimum_benchmark(real_data: Path) -> None:
    records, entries = read_all(real_data / "peers" / "optimum_benchmark")
    assert codes(entries) == {"incomplete_run": 1, "duplicate": 1, "whole": 5}
    interrupted, *complete = records
    assert interrupted.status == "interrupted"
    found = {record.experiment_id.rpartition("-")[2]: record for record in complete}
    assert set(found) == {"load_dataset", "preprocess_dataset", "load_model", "prefill", "decode"}
    folder = real_data / "peers" / "optimum_benchmark" / "benchlab_2025-05-30-14-49-15"
    generate = json.loads((folder / "generate_codecarbon.json").read_bytes())["energy_consumed"] * KWH
    parts = [found[phase].energy_metrics.total_energy_j or 0.0 for phase in ("prefill", "decode")]
    assert sum(parts) == pytest.approx(generate, rel=1e-12)
    assert {record.energy_metrics.total_scope for record in records} == {"host"}


def test_ml_energy(real_data: Path) -> None:
    records, entries = read_all(real_data / "peers" / "ml_energy")
    assert codes(entries) == {"no_energy": 19}
    assert len({record.experiment_id for record in records}) == 19
    assert all(record.energy_metrics.energy_per_token_j for record in records)
    assert {record.energy_metrics.total_energy_j for record in records} == {None}


def test_vllm(real_data: Path) -> None:
    records, entries = read_all(real_data / "peers" / "vllm")
    assert codes(entries) == {"run_failed": 1, "no_energy": 1}
    failed, good = records
    assert (failed.status, failed.inference_metrics) == ("failed", None)
    assert good.inference_metrics is not None
    assert good.inference_metrics.total_tokens == 384


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("A40+resnet18+gpu0,1,2,3.csv", 4), ("A40+resnet18+gpu0.csv", 1), ("V100+resnet18+gpu0,1.csv", 2)],
)
def test_zeus(real_data: Path, name: str, gpus: int) -> None:
    path = real_data / "peers" / "zeus" / name
    records, entries = read_all(path)
    assert codes(entries) == {"whole": len(path.read_text().splitlines()) - 1}
    for record, row in zip(records, csv.reader(path.read_text().splitlines()[1:]), strict=True):
        assert len(record.energy_metrics.devices or []) == gpus
        assert record.energy_metrics.total_energy_j == sum(map(float, row[3:]))
        assert record.timestamps.start is None


def test_perun_without_an_energy_sensor(real_data: Path) -> None:
    for name in ("app.json", "app.hdf5"):
        records, entries = read_all(real_data / "peers" / "perun" / name)
        assert records == []
        assert codes(entries).keys() == {"no_sensor"}
        assert "CPU_USAGE_0" in entries[0].message


def test_report_names_each_file_of_each_tool(real_data: Path) -> None:
    _, entries = read_all(real_data / "peers")
    reported = {entry.file for entry in entries}
    parts = {"benchmark_config.json", "generate_codecarbon.json"}
    for path in sorted((real_data / "peers").rglob("*")):
        if path.is_file() and path.name not in parts and not path.name.endswith("_codecarbon.json"):
            assert str(path) in reported


def test_imported_records_can_be_stored_and_loaded(real_data: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    for record in read_all(real_data / "peers")[0]:
        path = repository.save_raw(record.experiment_id, record)
        assert repository.save_raw(record.experiment_id, record) == path
        assert repository.load_raw(path) == record

"""Inputs of `tests/data/cases` that once gave a wrong answer. Each test has the name of its case."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.results import aggregate_results
from tests.support.imports import codes, outcomes, read_all

CASES = Path(__file__).parents[1] / "data" / "cases"
KWH = 3.6e6


def test_cc_torn_last_row() -> None:
    [record], entries = read_all(CASES / "cc_torn_last_row" / "emissions.csv")
    assert outcomes(entries) == [
        (2, "refused", "cumulative"),
        (3, "refused", "cumulative"),
        (4, "repaired", "damaged_cells"),
    ]
    assert "the total is cpu + gpu + ram" in entries[-1].message
    assert record.energy_metrics.total_energy_j == pytest.approx(0.492 * KWH)
    assert record.energy_metrics.duration_sec == 3600.0
    assert record.status is None


def test_cc_wrap_total_falls() -> None:
    [record], entries = read_all(CASES / "cc_wrap_total_falls" / "emissions.csv")
    assert outcomes(entries) == [(2, "refused", "cumulative"), (3, "repaired", "counter_fell")]
    assert "line 3 is a later row of the same run" in entries[0].message
    assert "includes" not in entries[0].message
    energy = record.energy_metrics
    assert (energy.cpu_energy_j, energy.duration_sec) == (None, 3900.0)
    assert energy.gpu_energy_j == pytest.approx(1.404e6)
    assert energy.total_energy_j == pytest.approx(0.403 * KWH)
    assert "cpu_energy fell from 0.12 to 0.05728 kWh in line 3" in (record.energy_measurement_warning or "")
    assert aggregate_results(record.experiment_id, [record]).is_lower_bound is True


def test_cc_total_in_wh() -> None:
    [record], [entry] = read_all(CASES / "cc_total_in_wh" / "emissions.csv")
    assert (entry.outcome, entry.code) == ("kept", "components_disagree")
    assert "energy_consumed is 72 kWh, but its components sum to 0.072 kWh" in entry.message
    assert (record.energy_measurement_warning or "") in entry.message


def test_cc_sheet_hour_one_digit() -> None:
    records, entries = read_all(CASES / "cc_sheet_hour_one_digit" / "emissions.csv")
    assert codes(entries) == ["whole", "whole"]
    assert [record.timestamps.end and record.timestamps.end.hour for record in records] == [9, 10]


def test_cc_cpu_power_kw_energy_right() -> None:
    [record], [entry] = read_all(CASES / "cc_cpu_power_kw_energy_right" / "emissions.csv")
    assert (entry.outcome, entry.code) == ("kept", "power_contradicts_energy")
    assert "cpu_power is 0.06 W, but cpu_energy implies a mean of 60 W" in entry.message
    assert record.energy_metrics.cpu_energy_j == pytest.approx(0.01 * KWH)


def test_zeus_impossible_gpu() -> None:
    _, entries = read_all(CASES / "zeus_impossible_gpu" / "log.csv")
    assert outcomes(entries) == [(2, "kept", "implausible_power"), (3, "kept", "whole")]
    assert "gpu0_energy is 5e+09 J in 10 s, which is 5e+08 W" in entries[0].message


def test_trtllm_energy_ignored() -> None:
    [record], [entry] = read_all(CASES / "trtllm_energy_ignored" / "bench.json")
    energy = record.energy_metrics
    assert (entry.outcome, entry.code) == ("kept", "whole")
    assert (energy.total_energy_j, energy.gpu_energy_j, energy.gpu_scope) == (30000.0, 30000.0, "device")
    assert (energy.duration_sec, energy.gpu_power_w) == (50.0, 600.0)
    assert record.inference_metrics is not None
    assert record.inference_metrics.output_tokens == 20000
    assert (record.origin and record.origin.tool) == "trtllm"


def test_cc_four_ranks() -> None:
    records, entries = read_all(CASES / "cc_four_ranks" / "emissions.csv")
    assert outcomes(entries) == [(line, "kept", "grouped") for line in range(2, 6)]
    assert "4 runs measured the same machine at the same time" in entries[0].message
    assert [(record.experiment_id, record.process_index) for record in records] == [
        ("codecarbon-bench-rank0", index) for index in range(4)
    ]
    result = aggregate_results("codecarbon-bench-rank0", records)
    assert (result.attribution_status, result.attributed_energy_j) == ("undetermined", None)
    assert result.attributed_bounds_j == pytest.approx((907.2e3, 4 * 907.2e3))
    # The rows show neither the host nor the GPUs that each process read. With both, the energy counts once.
    records, _ = read_all(CASES / "cc_four_ranks" / "emissions.csv", host="node-1")
    result = aggregate_results("codecarbon-bench-rank0", records, assume=Assumptions(gpu_scope="host"))
    assert result.attributed_energy_j == pytest.approx(907.2e3)


@pytest.mark.parametrize("as_folder", [True, False])
def test_cc_four_ranks_with_a_file_for_each_rank(tmp_path: Path, *, as_folder: bool) -> None:
    header, *rows = (CASES / "cc_four_ranks" / "emissions.csv").read_text().splitlines()
    paths = [tmp_path / f"emissions-{rank}.csv" for rank in range(4)]
    for path, row in zip(paths, rows, strict=True):
        path.write_text(f"{header}\n{row}\n")
    records, entries = read_all(tmp_path if as_folder else paths)
    assert outcomes(entries) == [(2, "kept", "grouped")] * 4
    assert [(record.experiment_id, record.process_index) for record in records] == [
        ("codecarbon-bench-rank0", index) for index in range(4)
    ]
    result = aggregate_results("codecarbon-bench-rank0", records)
    assert result.attributed_bounds_j == pytest.approx((907.2e3, 4 * 907.2e3))


def test_cc_four_ranks_counts_a_copy_of_a_file_once(tmp_path: Path) -> None:
    header, *rows = (CASES / "cc_four_ranks" / "emissions.csv").read_text().splitlines()
    for name, kept in (("a", rows[:2]), ("b", rows[:2]), ("c", rows[:1])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *kept]) + "\n")
    records, _ = read_all(tmp_path)
    assert {(record.experiment_id, record.process_index) for record in records} == {
        ("codecarbon-bench-rank0", 0),
        ("codecarbon-bench-rank0", 1),
    }


def test_cc_tasks_and_run_in_separate_arguments() -> None:
    folder = CASES / "cc_tasks_and_run"
    [record], entries = read_all([folder / "emissions_base_r1.csv", folder / "emissions.csv"])
    assert sorted(codes(entries)) == ["task_of_run", "task_of_run", "whole"]
    assert record.energy_metrics.total_energy_j == pytest.approx(311.04e3)


def test_cc_tasks_and_run() -> None:
    [record], entries = read_all(CASES / "cc_tasks_and_run")
    assert codes(entries) == ["whole", "task_of_run", "task_of_run"]
    assert "emissions.csv, line 2" in entries[1].message
    assert record.energy_metrics.total_energy_j == pytest.approx(311.04e3)
    phases = {phase.name: phase.total_energy_j for phase in record.phases or []}
    assert phases == pytest.approx({"load model": 25.92e3, "query model": 259.2e3})
    records, entries = read_all(CASES / "cc_tasks_and_run" / "emissions_base_r1.csv")
    assert codes(entries) == ["task_without_run"] * 2
    assert all("includes the energy of the task" in (record.energy_measurement_warning or "") for record in records)


def test_nvsmi() -> None:
    [record], [entry] = read_all(CASES / "nvsmi" / "power.csv")
    energy = record.energy_metrics
    assert energy.total_energy_j == pytest.approx(6100.0)
    assert (entry.code, energy.total_scope) == ("whole", "device")
    assert [(device.gpu_id, device.energy_j) for device in energy.devices or []] == [(0, 3000.0), (1, 3100.0)]
    assert (energy.total_provenance, energy.duration_sec) == ("integrated", 10.0)

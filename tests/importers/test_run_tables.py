"""Import of run tables of experiment-runner, and of logs of EnergiBridge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import RawProcessResult
from tests.support.imports import codes, outcomes, read_all

DATA = Path(__file__).parents[1] / "data" / "benchmarks"


def read_table(tmp_path: Path, header: str, *rows: str, **options: Any) -> Any:
    path = tmp_path / "run_table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_all(path, **options)


def energies(records: list[RawProcessResult]) -> list[float | None]:
    return [record.energy_metrics.total_energy_j for record in records]


def test_only_rows_that_are_done_are_runs() -> None:
    records, entries = read_all(DATA / "run_table.csv")
    assert outcomes(entries)[3] == (5, "refused", "no_measurement")
    assert energies(records) == pytest.approx([3600.0, 3960.0, 7200.0])
    assert [record.energy_metrics.gpu_energy_j for record in records] == pytest.approx([2880.0, 3240.0, 6480.0])
    assert records[0].energy_metrics.duration_sec == 10.0


def test_factors_are_configuration_and_data_are_not() -> None:
    records, _ = read_all(DATA / "run_table.csv")
    assert [record.effective_config for record in records] == [
        {"model": "llama", "length": 100, "cycle_id": 0},
        {"model": "llama", "length": 100, "cycle_id": 1},
        {"model": "qwen", "length": 100, "cycle_id": 0},
    ]
    assert [record.config_name for record in records] == ["run_0", "run_0", "run_1"]


def test_energy_without_a_unit_is_refused_until_it_is_mapped() -> None:
    records, [entry] = read_all(DATA / "run_table_no_units.csv")
    assert (records, entry.code) == ([], "missing_field")
    assert "the unit of energy, GPU Energy is unknown" in entry.message
    mapping = ["energy_j=energy", "gpu_energy_j=[GPU Energy]*1000", "duration_sec=execution_time"]
    [record], entries = read_all(DATA / "run_table_no_units.csv", mapping=mapping)
    assert codes(entries) == ["whole", "no_measurement"]
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.gpu_energy_j) == (500.0, 400.0)
    assert record.effective_config == {"treatment": "a"}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("energy_J", 2.0),
        ("Energy (kJ)", 2000.0),
        ("energy [kWh]", 7.2e6),
        ("energy_mJ", 0.002),
        ("Energy (MWh)", 7.2e9),
        ("energy_mWh", 7.2),
        ("energy_KWH", 7.2e6),
        ("energy_joules", 2.0),
        ("dram_energy_J", None),
    ],
)
def test_unit_in_the_name_of_a_column_is_used(tmp_path: Path, column: str, expected: float | None) -> None:
    [record], _ = read_table(tmp_path, f"__run_id,__done,{column}", "run_0,DONE,2")
    assert record.energy_metrics.total_energy_j == expected
    assert record.energy_metrics.ram_energy_j == (2.0 if expected is None else None)


@pytest.mark.parametrize("column", ["energy_mj", "Energy (Mj)", "energy_mwh", "ENERGY_MWH"])
def test_unit_that_can_be_milli_or_mega_is_refused(tmp_path: Path, column: str) -> None:
    records, [entry] = read_table(tmp_path, f"__run_id,__done,{column}", "run_0,DONE,2")
    assert (records, entry.code) == ([], "missing_field")
    assert f"the unit of {column} is unknown" in entry.message


def test_two_columns_with_one_energy_are_refused(tmp_path: Path) -> None:
    records, [entry] = read_table(tmp_path, "__run_id,__done,energy_J,total_energy_kJ", "run_0,DONE,2,0.002")
    assert (records, entry.code) == ([], "ambiguous_column")


def test_energy_of_a_remote_run_is_that_of_the_client(tmp_path: Path) -> None:
    [record], [entry] = read_table(tmp_path, "__run_id,__done,method,energy_J", "run_0,DONE,remote,2")
    assert entry.code == "client_energy"
    assert "client" in (record.energy_measurement_warning or "")


def bridge(tmp_path: Path, old: str, new: str) -> tuple[RawProcessResult, importers.Entry]:
    path = tmp_path / "log.csv"
    path.write_text((DATA / "energibridge.csv").read_text().replace(old, new))
    [record], [entry] = read_all(path)
    return record, entry


def test_energibridge_has_counters_and_powers() -> None:
    [record], [entry] = read_all(DATA / "energibridge.csv")
    energy = record.energy_metrics
    assert (entry.code, energy.cpu_energy_j, energy.ram_energy_j, energy.gpu_energy_j) == ("whole", 250.0, 50.0, 2500.0)
    assert (energy.total_energy_j, energy.total_scope, energy.total_provenance) == (2800.0, None, None)
    assert (energy.cpu_scope, energy.cpu_provenance, energy.gpu_scope) == ("host", "measured", "device")
    assert [(one.gpu_id, one.energy_j) for one in energy.devices or []] == [(0, 1500.0), (1, 1000.0)]
    assert (energy.duration_sec, record.timestamps.duration_sec) == (5.0, 5.0)
    assert record.timestamps.start is not None
    assert record.timestamps.start.timestamp() == 1_770_000_000
    assert entry.power_log is not None
    assert [len(trace.times) for trace in entry.power_log.traces] == [6, 6]


def test_window_of_energibridge_is_interpolated() -> None:
    start, end = "2026-02-02T02:40:01.500+00:00", "2026-02-02T02:40:04+00:00"
    [record], [entry] = read_all(DATA / "energibridge.csv", window=(start, end))
    energy = record.energy_metrics
    assert (energy.cpu_energy_j, energy.ram_energy_j, energy.gpu_energy_j) == (125.0, 25.0, 1250.0)
    assert entry.power_log is not None
    assert [trace.times[0] for trace in entry.power_log.traces] == [-0.5, -0.5]
    for window in ((start, "2026-02-02T02:41:00+00:00"), (start[:-6], end[:-6])):
        records, [entry] = read_all(DATA / "energibridge.csv", window=window)
        assert (records, entry.code) == ([], "impossible_value")


def test_counter_that_falls_is_unknown(tmp_path: Path) -> None:
    record, entry = bridge(tmp_path, ",1200,", ",12,")
    energy = record.energy_metrics
    assert (entry.code, energy.cpu_energy_j, energy.total_energy_j) == ("counter_fell", None, 2550.0)
    assert energy.is_lower_bound


def test_counter_that_falls_across_an_edge_of_the_window_is_unknown(tmp_path: Path) -> None:
    rows = [f"1000,{1_770_000_000_000 + 1000 * second},{joules}" for second, joules in enumerate((100, 200, 0, 100))]
    (tmp_path / "log.csv").write_text("\n".join(["Delta,Time,PACKAGE_ENERGY (J)", *rows]))
    for start, found in {"01.500": None, "02.000": 100.0}.items():
        window = (f"2026-02-02T02:40:{start}+00:00", "2026-02-02T02:40:03+00:00")
        [record], _ = read_all(tmp_path / "log.csv", window=window)
        assert record.energy_metrics.cpu_energy_j == found


def test_system_power_is_the_total(tmp_path: Path) -> None:
    rows = [f"1000,{1_770_000_000_000 + 1000 * second},50,30,20" for second in range(5)]
    path = tmp_path / "log.csv"
    header = "Delta,Time,SYSTEM_POWER (Watts),CPU_POWER (Watts),GPU_POWER (Watts)"
    path.write_text("\n".join([header, *rows]))
    [record], _ = read_all(path)
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j) == (200.0, 120.0, 80.0)
    assert (energy.total_scope, energy.total_provenance) == ("host", "integrated")

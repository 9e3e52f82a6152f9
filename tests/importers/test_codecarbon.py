"""Import of CodeCarbon's emissions.csv: columns by name, cumulative runs, and damaged rows."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers.codecarbon_rows import LAYOUTS
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.verification.verdicts import verdict_of
from tests.support.imports import codes, outcomes, read_all
from tests.support.peers import CELLS, LATEST, cells, line

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

KWH = 3.6e6


def import_lines(
    tmp_path: Path, *lines: str, group_by: str | None = None
) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    path = tmp_path / "table.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_all(path, group_by=group_by)


@pytest.mark.parametrize("version", LAYOUTS)
def test_columns_of_each_version_are_found_by_name(tmp_path: Path, version: str) -> None:
    layout = LAYOUTS[version]
    [record], [entry] = import_lines(tmp_path, ",".join(layout), line(layout))
    assert (entry.row, entry.outcome, entry.code) == (2, "kept", "whole")
    assert record.energy_metrics.total_energy_j == KWH
    assert record.energy_metrics.emissions_kg_co2 == 7e-08
    assert record.timestamps.start is not None
    assert record.timestamps.end is not None
    assert record.timestamps.end.isoformat() == "2026-01-24T14:31:35"
    assert (record.timestamps.end - record.timestamps.start).total_seconds() == 10.0
    assert (record.config_name, record.model_name, record.host, record.gpu_id) == ("llama", None, None, None)
    if "gpu_energy" in layout:
        assert record.energy_metrics.gpu_energy_j == 0.5 * KWH
    shuffled = tuple(sorted(layout))
    [same], _ = import_lines(tmp_path, ",".join(shuffled), line(shuffled))
    assert (same.energy_metrics, same.timestamps, same.effective_config) == (
        *(record.energy_metrics, record.timestamps),
        record.effective_config,
    )


def test_record_names_scope_and_provenance_of_each_component(tmp_path: Path) -> None:
    records, _ = import_lines(
        tmp_path,
        ",".join(LATEST),
        line(),
        line(run_id="r2", tracking_mode="process", cpu_power="41.73"),
        line(run_id="r3", gpu_model="Apple M1", gpu_count="1"),
    )
    machine, process, apple = (record.energy_metrics for record in records)
    assert (machine.total_scope, machine.cpu_scope, machine.gpu_scope, machine.ram_scope) == ("host",) * 4
    assert (process.total_scope, process.cpu_scope, process.gpu_scope, process.ram_scope) == (
        *(None, "host", "host"),
        "process",
    )
    assert (machine.cpu_provenance, machine.gpu_provenance, machine.ram_provenance, machine.total_provenance) == (
        *("modelled", "measured", "modelled"),
        None,
    )
    assert (process.cpu_provenance, apple.gpu_provenance) == (None, None)
    assert [device.gpu_name for device in machine.devices or []] == ["NVIDIA A100-PCIE-40GB"] * 4


@pytest.mark.parametrize(
    ("version", "gpu_model", "gpu_count", "scope"),
    [
        ("3.2.1", "4 x NVIDIA A100-PCIE-40GB", "4", "host"),
        ("3.2.1", "4 x NVIDIA A100-PCIE-40GB", "1", None),
        ("2.8.3", "4 x NVIDIA A100-PCIE-40GB", "4", None),
        ("3.2.4", "4 x NVIDIA A100-PCIE-40GB", "4", None),
        ("3.3.0", "1 x NVIDIA H100", "1", "host"),
        ("2.4.1", "8 x NVIDIA A40", "8", "host"),
        ("2.7", "8 x NVIDIA A40", "8", "host"),
        ("", "8 x NVIDIA A40", "8", None),
        ("3.2.1", "3 x A1001 x H100", "4", None),
    ],
)
def test_scope_of_gpu_energy_depends_on_the_version(
    tmp_path: Path, version: str, gpu_model: str, gpu_count: str, scope: str | None
) -> None:
    changes = {"codecarbon_version": version, "gpu_model": gpu_model, "gpu_count": gpu_count}
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(**changes))
    assert (record.energy_metrics.gpu_scope, record.energy_metrics.total_scope) == (scope, scope)
    assert (record.energy_metrics.cpu_scope, record.energy_metrics.ram_scope) == ("host", "host")


def test_gpu_count_below_the_list_of_gpus_is_reported(tmp_path: Path) -> None:
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(gpu_count="1"))
    assert len(record.energy_metrics.devices or []) == 4
    assert (entry.outcome, entry.code) == ("kept", "gpu_count_differs")


def test_gpu_energy_of_zero_is_not_measured(tmp_path: Path) -> None:
    """With a UUID in CUDA_VISIBLE_DEVICES, CodeCarbon reads no GPU."""
    zero = {"gpu_energy": "0.0", "energy_consumed": "0.5"}
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(**zero))
    assert (record.energy_metrics.gpu_energy_j, record.energy_metrics.total_energy_j) == (None, 0.5 * KWH)


def test_cpu_power_of_an_unknown_cpu_is_modelled(tmp_path: Path) -> None:
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(cpu_model="Unknown", cpu_power="42.6317"))
    assert record.energy_metrics.cpu_provenance == "modelled"


def test_pue_in_the_energies_is_stated_in_the_record(tmp_path: Path) -> None:
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(pue="1.5"))
    assert (entry.outcome, entry.code) == ("kept", "pue_included")
    assert "PUE of 1.5" in (record.energy_measurement_warning or "")


def test_component_without_power_and_energy_is_unknown(tmp_path: Path) -> None:
    zero = {"cpu_power": "0.0", "cpu_energy": "0.0", "energy_consumed": "0.75"}
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(**zero))
    assert (record.energy_metrics.cpu_energy_j, record.energy_metrics.cpu_power_w) == (None, None)
    assert record.energy_metrics.total_energy_j == 0.75 * KWH


def test_last_row_of_a_run_counts_and_earlier_rows_are_cumulative(tmp_path: Path) -> None:
    grown = [
        line(timestamp=f"2026-01-24T14:31:{30 + 5 * step}", duration=f"{5.0 + 5 * step}", energy_consumed=f"{step}.5")
        for step in range(3)
    ]
    other = line(run_id="r2", energy_consumed="0.25")
    records, entries = import_lines(tmp_path, ",".join(LATEST), grown[0], other, *grown[1:])
    assert outcomes(entries) == [
        (2, "refused", "cumulative"),
        (3, "kept", "components_disagree"),
        (4, "refused", "cumulative"),
        (5, "kept", "components_disagree"),
    ]
    assert [record.energy_metrics.total_energy_j for record in records] == [0.25 * KWH, 2.5 * KWH]
    assert entries[0].experiment_id == records[1].experiment_id == "codecarbon-llama-r1"
    assert "line 5" in entries[0].message


def test_decreasing_energy_is_a_restart_and_both_parts_count(tmp_path: Path) -> None:
    later = line(timestamp="2026-01-24T15:00:00", energy_consumed="0.5")
    last = line(timestamp="2026-01-24T15:00:10", duration="20.0", energy_consumed="0.75")
    records, entries = import_lines(tmp_path, ",".join(LATEST), line(), later, last)
    assert outcomes(entries)[1:] == [(3, "refused", "cumulative"), (4, "repaired", "restart")]
    assert [record.experiment_id for record in records] == ["codecarbon-llama-r1", "codecarbon-llama-r1-restart1"]
    assert sum(record.energy_metrics.total_energy_j or 0 for record in records) == 1.75 * KWH


def test_rows_out_of_order_are_not_a_restart(tmp_path: Path) -> None:
    """Concurrent writers can write the last row before earlier rows; all of these rows have the same start."""
    middle = line(timestamp="2026-01-24T14:31:30", duration="5.2", energy_consumed="0.5")
    records, entries = import_lines(tmp_path, ",".join(LATEST), line(), middle)
    assert outcomes(entries) == [(2, "kept", "whole"), (3, "refused", "out_of_order")]
    assert [record.energy_metrics.total_energy_j for record in records] == [KWH]


def test_tasks_of_a_run_are_separate_experiments(tmp_path: Path) -> None:
    layout = (*LATEST, "task_name")
    tasks = [line(layout, task_name=name, energy_consumed="1.0") for name in ("load", "generate")]
    records, _ = import_lines(tmp_path, ",".join(layout), *tasks)
    assert [record.experiment_id for record in records] == ["codecarbon-llama-r1-load", "codecarbon-llama-r1-generate"]


def test_each_row_without_a_run_id_is_an_experiment(tmp_path: Path) -> None:
    rows = [line(run_id="", experiment_id="", timestamp=f"2026-01-24T14:31:3{second}") for second in range(3)]
    records, _ = import_lines(tmp_path, ",".join(LATEST), *rows)
    assert len({record.experiment_id for record in records}) == 3
    again, _ = import_lines(tmp_path, ",".join(LATEST), *reversed(rows))
    assert {record.experiment_id for record in again} == {record.experiment_id for record in records}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"run_id": "\u03b1"}, {"run_id": "\u03b2"}),
        ({"run_id": "a/b"}, {"run_id": "a_b"}),
        ({"run_id": "a b"}, {"run_id": "a/b"}),
        ({"run_id": "", "project_name": "x y"}, {"run_id": "", "project_name": "x_y"}),
        ({"run_id": "", "experiment_id": "", "cpu_power": "40.1"}, {"run_id": "", "experiment_id": ""}),
        ({"run_id": "", "project_name": "x"}, {"run_id": "", "project_name": "x."}),
    ],
    ids=str,
)
def test_different_rows_have_different_ids(tmp_path: Path, one: dict[str, str], other: dict[str, str]) -> None:
    records, _ = import_lines(tmp_path, ",".join(LATEST), line(**one), line(**other), group_by="run_id")
    assert len({record.experiment_id for record in records}) == 2
    again, _ = import_lines(tmp_path, ",".join(LATEST), line(**other), line(**one), group_by="run_id")
    assert {record.experiment_id for record in again} == {record.experiment_id for record in records}


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "2-01-24T14:31:35"},
        {"timestamp": ""},
        {"duration": ""},
        {"duration": "machine"},
        {"energy_consumed": "nan"},
        {"energy_consumed": "1_0"},
        {"gpu_power": "N"},
        {"longitude": "Linux"},
        {"tracking_mode": "achine"},
        {"country_iso_code": "3.10"},
        {"on_cloud": ""},
        {"cpu_model": "-71.2"},
    ],
    ids=str,
)
def test_damaged_cell_is_null_if_the_energies_are_intact(tmp_path: Path, changes: dict[str, str]) -> None:
    records, entries = import_lines(tmp_path, ",".join(LATEST), line(run_id="r0"), line(**changes), line(run_id="r2"))
    assert outcomes(entries)[1] == (3, "repaired", "damaged_cells")
    [(name, _)] = changes.items()
    assert name in entries[1].message
    whole, damaged, _ = records
    assert damaged.energy_metrics.total_energy_j == whole.energy_metrics.total_energy_j
    assert name not in damaged.effective_config["codecarbon"]
    if name in ("timestamp", "duration"):
        assert damaged.timestamps.start is None


def test_row_with_several_damaged_cells_needs_a_sum_of_components(tmp_path: Path) -> None:
    damaged = {"longitude": "Linux", "tracking_mode": "N"}
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(**damaged))
    assert (entry.code, record.energy_metrics.total_energy_j) == ("damaged_cells", KWH)
    assert (record.energy_metrics.total_scope, record.gpu_name) == (None, None)
    records, [entry] = import_lines(tmp_path, ",".join(LATEST), line(**damaged, energy_consumed="1.5"))
    assert (records, entry.code) == ([], "torn")


def test_run_with_refused_later_rows_is_partial(tmp_path: Path) -> None:
    later = line(timestamp="2026-01-24T14:41:35", duration="610.0", energy_consumed="x", gpu_energy="N")
    [record, _], entries = import_lines(tmp_path, ",".join(LATEST), line(), later, line(run_id="r2"))
    assert outcomes(entries)[:2] == [(2, "kept", "rows_refused"), (3, "refused", "torn")]
    assert record.status == "partial"
    assert "line 3" in (record.energy_measurement_warning or "")
    assert verdict_of(aggregate_results(record.experiment_id, [record])) == "partial"


def test_row_padded_with_commas_is_torn(tmp_path: Path) -> None:
    torn = ",".join([*cells()[:6], *[""] * (len(LATEST) - 6)])
    tail = ",".join(["hine", "N", *[""] * (len(LATEST) - 2)])
    records, entries = import_lines(tmp_path, ",".join(LATEST), torn, tail)
    assert records == []
    assert outcomes(entries) == [(2, "refused", "torn"), (3, "refused", "torn")]


def test_blank_energy_is_unknown_and_not_zero(tmp_path: Path) -> None:
    blank = {"energy_consumed": "", "cpu_energy": "", "emissions": "", "cpu_power": ""}
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(**blank))
    assert (record.energy_metrics.cpu_energy_j, record.energy_metrics.total_energy_j) == (None, 0.75 * KWH)
    assert (entry.outcome, entry.code) == ("repaired", "partial_total")
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(**blank, ram_energy=""))
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.gpu_energy_j) == (None, 0.5 * KWH)
    assert (entry.outcome, entry.code) == ("kept", "no_energy")


def test_power_is_kept_if_the_energy_is_blank(tmp_path: Path) -> None:
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(gpu_energy="", cpu_energy=""))
    assert (record.energy_metrics.gpu_power_w, record.energy_metrics.cpu_power_w) == (180000.5, 90000.5)
    assert (record.energy_metrics.gpu_energy_j, record.energy_metrics.cpu_provenance) == (None, None)


def test_duplicate_column_refuses_the_file(tmp_path: Path) -> None:
    twice = (*LATEST, "energy_consumed")
    records, [entry] = import_lines(tmp_path, ",".join(twice), f"{line()},2.0")
    assert (records, entry.code, "energy_consumed" in entry.message) == ([], "ambiguous_column", True)
    records, [entry] = import_lines(tmp_path, ",".join(LATEST), line(), f"{','.join(LATEST)},duration", f"{line()},9.0")
    assert (records, entry.code, "duration" in entry.message) == ([], "ambiguous_column", True)


def test_negative_component_costs_this_component_and_the_total(tmp_path: Path) -> None:
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(gpu_energy="-0.5"))
    energy = record.energy_metrics
    assert (entry.outcome, entry.code) == ("repaired", "damaged_cells")
    assert (energy.gpu_energy_j, energy.cpu_energy_j, energy.total_energy_j) == (None, 0.25 * KWH, 0.5 * KWH)
    assert "the total is only cpu + ram" in (record.energy_measurement_warning or "")


@pytest.mark.parametrize(
    "changes",
    [{"duration": "1e200"}, {"duration": "1e12"}, {"timestamp": "0001-01-01T00:00:05"}, {"duration": "7e10"}],
    ids=str,
)
def test_start_outside_the_calendar_is_null(tmp_path: Path, changes: dict[str, str]) -> None:
    [_, record, _], entries = import_lines(
        tmp_path, ",".join(LATEST), line(run_id="r0"), line(**changes), line(run_id="r2")
    )
    assert entries[1].code == "damaged_cells"
    assert (record.timestamps.start, record.energy_metrics.total_energy_j) == (None, KWH)


@pytest.mark.parametrize("stamp", ["01.03.2026 10:00", "3/1/2026 10:00:00"])
def test_time_with_several_meanings_is_null(tmp_path: Path, stamp: str) -> None:
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(timestamp=stamp))
    assert (entry.outcome, entry.code) == ("kept", "no_time")
    assert (record.timestamps.start, record.timestamps.end, record.timestamps.duration_sec) == (None, None, 10.0)
    assert record.energy_metrics.total_energy_j == KWH
    assert record.effective_config["codecarbon"]["timestamp"] == stamp


@pytest.mark.parametrize("component", ["cpu", "gpu", "ram"])
def test_component_that_falls_is_unknown_from_there_on(tmp_path: Path, component: str) -> None:
    rows = [
        {"duration": f"{10.0 + 10 * step}", "timestamp": f"2026-01-24T14:31:{35 + 10 * step}", "energy_consumed": ""}
        | {f"{name}_energy": f"{0.5 + step}" for name in ("cpu", "gpu", "ram")}
        for step in range(3)
    ]
    rows[1][f"{component}_energy"] = "0.25"
    [record], entries = import_lines(tmp_path, ",".join(LATEST), *(line(**row) for row in rows))
    assert entries[-1].code == "counter_fell"
    assert getattr(record.energy_metrics, f"{component}_energy_j") is None
    assert record.energy_metrics.total_energy_j == 5.0 * KWH


def test_reset_of_all_counters_leaves_a_partial_run(tmp_path: Path) -> None:
    reset = {"cpu_energy": "0.1", "gpu_energy": "0.1", "ram_energy": "0.1", "energy_consumed": "0.3"}
    later = line(timestamp="2026-01-24T14:31:55", duration="30.0", **reset)
    [record], entries = import_lines(tmp_path, ",".join(LATEST), line(), later)
    assert outcomes(entries) == [(2, "kept", "rows_refused"), (3, "refused", "counter_fell")]
    assert (record.status, record.energy_metrics.total_energy_j) == ("partial", KWH)


def test_energy_before_a_reset_is_missing_if_the_counters_rise_again(tmp_path: Path) -> None:
    parts = ("cpu_energy", "gpu_energy", "ram_energy")
    reset = {**dict.fromkeys(parts, "0.1"), "energy_consumed": "0.3", "duration": "30.0"}
    risen = {**dict.fromkeys(parts, "2.0"), "energy_consumed": "6.0", "duration": "60.0"}
    times = ("2026-01-24T14:31:55", "2026-01-24T14:32:25")
    rows = [line(timestamp=time, **changes) for time, changes in zip(times, (reset, risen), strict=True)]
    [record], entries = import_lines(tmp_path, ",".join(LATEST), line(), *rows)
    assert outcomes(entries) == [
        (2, "refused", "cumulative"),
        (3, "refused", "counter_fell"),
        (4, "kept", "counter_fell"),
    ]
    assert (record.status, record.energy_metrics.total_energy_j) == ("partial", 6 * KWH)
    assert "the energy before line 3 is missing" in (record.energy_measurement_warning or "")


def test_rounded_total_does_not_contradict_its_components(tmp_path: Path) -> None:
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), line(energy_consumed="1.00005"))
    assert (entry.code, record.energy_measurement_warning) == ("components_rounded", None)


def test_row_is_realigned_if_only_one_alignment_fits(tmp_path: Path) -> None:
    omitted = ("gpu_count", "gpu_model", "longitude", "latitude")
    short = ",".join(CELLS[name] for name in LATEST if name not in omitted)
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), short)
    assert (entry.outcome, entry.code) == ("repaired", "realigned")
    assert (record.gpu_name, record.energy_metrics.devices) == (None, None)
    assert record.energy_metrics.cpu_scope == "host"
    assert record.effective_config["codecarbon"]["ram_total_size"] == 503.5
    assert record.effective_config["codecarbon"]["pue"] == 1.0


def test_uncertain_cell_of_a_realigned_row_is_unknown(tmp_path: Path) -> None:
    """The missing cell can be longitude or latitude."""
    short = ",".join(CELLS[name] for name in LATEST if name != "latitude")
    [record], [entry] = import_lines(tmp_path, ",".join(LATEST), short)
    assert entry.code == "realigned"
    assert not {"longitude", "latitude"} & set(record.effective_config["codecarbon"])
    assert record.energy_metrics.total_energy_j == KWH


@pytest.mark.parametrize("missing", ["duration", "gpu_energy", "cpu_power", "energy_consumed", "run_id"])
def test_row_without_an_essential_cell_is_refused(tmp_path: Path, missing: str) -> None:
    short = ",".join(CELLS[name] for name in LATEST if name != missing)
    records, [entry] = import_lines(tmp_path, ",".join(LATEST), short)
    assert (records, entry.code) == ([], "shifted")


@pytest.mark.parametrize("version", [version for version in LAYOUTS if version != "3.3.0"])
def test_row_of_another_version_is_recognised_by_its_types(tmp_path: Path, version: str) -> None:
    layout = LAYOUTS[version]
    [first, second], entries = import_lines(tmp_path, ",".join(LATEST), line(run_id="r0"), line(layout))
    assert (entries[1].outcome, entries[1].code) == ("repaired", "other_layout")
    assert first.energy_metrics.total_energy_j == second.energy_metrics.total_energy_j == KWH


def test_longer_row_is_refused_unless_the_extra_cells_are_blank(tmp_path: Path) -> None:
    records, entries = import_lines(tmp_path, ",".join(LATEST), line() + ",,", line(run_id="r2") + ",x")
    assert outcomes(entries) == [(2, "repaired", "padded"), (3, "refused", "shifted")]
    assert len(records) == 1


def test_spaces_around_cells_are_removed(tmp_path: Path) -> None:
    [record], [entry] = import_lines(tmp_path, ", ".join(LATEST), " , ".join(cells()))
    assert (entry.outcome, entry.code) == ("repaired", "padded")
    assert record.experiment_id == "codecarbon-llama-r1"


def test_second_header_applies_to_the_rows_after_it(tmp_path: Path) -> None:
    older = LAYOUTS["2.4"]
    records, entries = import_lines(
        tmp_path,
        ",".join(LATEST),
        line(),
        ",".join(LATEST),
        line(run_id="r2"),
        ",".join(older),
        line(older, run_id="r3"),
    )
    assert codes(entries) == ["whole", "repeated_header", "whole", "repeated_header", "whole"]
    assert [record.experiment_id[-2:] for record in records] == ["r1", "r2", "r3"]


def test_open_quote_costs_one_row(tmp_path: Path) -> None:
    records, entries = import_lines(tmp_path, ",".join(LATEST), line(region='"que'), line(run_id="r2"))
    assert outcomes(entries) == [(2, "refused", "torn"), (3, "kept", "whole")]
    assert len(records) == 1


def test_quoted_cell_may_contain_commas(tmp_path: Path) -> None:
    [record], _ = import_lines(tmp_path, ",".join(LATEST), line(cpu_model='"AMD, 64 cores"'))
    assert record.effective_config["codecarbon"]["cpu_model"] == "AMD, 64 cores"


def test_cell_of_ten_megabytes_costs_one_row(tmp_path: Path) -> None:
    records, entries = import_lines(tmp_path, ",".join(LATEST), line(region="x" * 10**7), line(run_id="r2"))
    assert outcomes(entries) == [(2, "refused", "torn"), (3, "kept", "whole")]
    assert len(entries[0].message) < 200
    assert len(records) == 1


def test_bytes_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    path.write_bytes(f"{','.join(LATEST)}\n{line(region='@')}\n".encode().replace(b"@", b"\xeele"))
    [_], entries = read_all(path)
    assert outcomes(entries) == [(2, "repaired", "undecodable_text")]


def test_byte_order_mark_and_carriage_returns_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{','.join(LATEST)}\r\n{line()}\r\n\r\n".encode())
    records, entries = read_all(path)
    assert [record.experiment_id for record in records] == ["codecarbon-llama-r1"]
    assert codes(entries) == ["whole"]


def test_host_and_gpu_uuids_of_the_caller_are_used(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    path.write_text(f"{','.join(LATEST)}\n{line()}\n", encoding="utf-8")
    uuids = [f"GPU-{index}" for index in range(4)]
    [record] = importers.read(path, host="node-1", gpu_uuids=uuids)
    assert (record.host, record.gpu_uuid) == ("node-1", None)
    assert [device.gpu_uuid for device in record.energy_metrics.devices or []] == uuids
    [record] = importers.read(path, gpu_uuids=uuids[:2])
    assert [device.gpu_uuid for device in record.energy_metrics.devices or []] == [None] * 4


RANKS = [f"rank-{index}" for index in range(4)]


def test_rows_of_one_machine_and_time_are_processes_of_one_experiment(tmp_path: Path) -> None:
    rows = [line(run_id=run) for run in RANKS]
    records, entries = import_lines(tmp_path, ",".join(LATEST), *rows[:2], line(run_id="r2"), *rows[2:])
    assert codes(entries) == ["grouped", "grouped", "whole", "grouped", "grouped"]
    assert [record.process_index for record in records if record.experiment_id == "codecarbon-llama-rank-0"] == [
        *range(4)
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"experiment_id": "e2"}, "overlaps_run"),
        ({"project_name": "other"}, "overlaps_run"),
        ({"cpu_model": "Xeon"}, "whole"),
        ({"timestamp": "2026-01-24T15:31:35"}, "whole"),
        ({"timestamp": "2026-01-24T14:31:41"}, "whole"),
    ],
)
def test_rows_that_differ_are_separate_experiments(tmp_path: Path, changes: dict[str, str], code: str) -> None:
    rows = line(run_id="rank-0"), line(**({"run_id": "rank-1"} | changes))
    records, entries = import_lines(tmp_path, ",".join(LATEST), *rows)
    assert {record.process_index for record in records} == {0}
    assert codes(entries) == ["whole", code]


def test_default_experiment_id_and_project_are_no_evidence(tmp_path: Path) -> None:
    default = {"experiment_id": "5b0fa12a-3dd7-45bb-9766-cc326314d9f1", "project_name": "codecarbon"}
    rows = [line(run_id=run, **default) for run in RANKS]
    records, entries = import_lines(tmp_path, ",".join(LATEST), *rows)
    assert len({record.experiment_id for record in records}) == 4
    assert codes(entries) == ["whole", *["overlaps_run"] * 3]
    records, _ = import_lines(tmp_path, ",".join(LATEST), *rows, group_by="experiment_id")
    assert [record.process_index for record in records] == [0, 1, 2, 3]
    records, [entry] = import_lines(tmp_path, ",".join(LATEST), *rows, group_by="rank")
    assert (records, entry.code) == ([], "missing_field")


def test_duration_shorter_than_the_tasks_is_unknown(tmp_path: Path) -> None:
    """CodeCarbon restarts the duration of a run at each task."""
    (tmp_path / "emissions.csv").write_text(f"{','.join(LATEST)}\n{line(duration='1.0')}\n")
    layout = ("task_name", *LATEST)
    tasks = [line(layout, task_name=name, duration="2.0") for name in ("load", "generate")]
    (tmp_path / "emissions_base_r1.csv").write_text("\n".join([",".join(layout), *tasks]) + "\n")
    [record], entries = read_all(tmp_path)
    assert codes(entries) == ["no_time", "task_of_run", "task_of_run"]
    assert (record.timestamps.start, record.energy_metrics.duration_sec) == (None, None)


def test_task_belongs_to_the_start_of_the_tracker_that_contains_it(tmp_path: Path) -> None:
    """A run id can have two rows with energies of their own, because its tracker started twice."""
    first, second = {"timestamp": "2026-03-01T10:00:00"}, {"timestamp": "2026-03-01T12:00:00"}
    rows = [line(**first, energy_consumed="2.0"), line(**second, energy_consumed="1.0")]
    (tmp_path / "emissions.csv").write_text("\n".join([",".join(LATEST), *rows]) + "\n")
    layout = ("task_name", *LATEST)
    times = {"load": "2026-03-01T09:59:50", "generate": "2026-03-01T11:59:50", "unload": "2026-03-01T12:00:30"}
    tasks = [line(layout, task_name=name, timestamp=time, duration="1.0") for name, time in times.items()]
    (tmp_path / "emissions_base_r1.csv").write_text("\n".join([",".join(layout), *tasks]) + "\n")
    records, entries = read_all(tmp_path)
    assert [[phase.name for phase in record.phases or []] for record in records] == [["load"], ["generate", "unload"]]
    assert [entry.experiment_id for entry in entries if entry.code == "task_of_run"] == [
        records[number].experiment_id for number in (0, 1, 1)
    ]


def european(text: str) -> bytes:
    """Return a table as a European spreadsheet saves it."""
    semicolons = text.replace(",", ";")
    return b"\xef\xbb\xbf" + re.sub(r"(?<![0-9.])([0-9]+)[.]([0-9]+)(?![0-9.])", r"\1,\2", semicolons).encode()


def test_table_of_a_european_spreadsheet_is_read(tmp_path: Path) -> None:
    text = f"{','.join(LATEST)}\r\n{line()}\r\n{line(run_id='r2')}\r\n"
    path = tmp_path / "emissions.csv"
    path.write_bytes(european(text))
    records, entries = read_all(path)
    assert codes(entries) == ["decimal_comma"] * 2
    assert [record.energy_metrics.total_energy_j for record in records] == [KWH, KWH]
    assert records[0].origin is not None
    assert records[0].origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", [";x", ";1.234"])
def test_ambiguous_european_table_is_not_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "emissions.csv"
    text = european(f"{','.join(LATEST)}\n{line()}\n").rstrip()
    path.write_bytes(text + b";x" if damage == ";x" else text.replace(b";128;", b";1.234;"))
    with pytest.raises(ImportFormatError, match="semicolons"):
        read_all(path)

"""The energy of a run from a power log: the window of the run decides which samples count."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.importers.energy_join import EnergyJoin, EnergySource
from tests.support import peers
from tests.support.imports import read_all

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure import importers
    from llm_energy_measure.domain.experiment import RawProcessResult


def log(tmp_path: Path, *, seconds: int = 120, zone: str = "", gap: range = range(0)) -> list[EnergySource]:
    """Return the source of a log that begins at 16:07:00 on the day of `peers.vllm_result`, with 100 W and 200 W."""
    rows = [
        f"2026-08-16 16:{7 + second // 60:02}:{second % 60:02}{zone},{gpu},{100 * (1 + gpu)}"
        for second in range(seconds + 1)
        if second not in gap
        for gpu in (0, 1)
    ]
    path = tmp_path / "power.csv"
    path.write_text("\n".join(["timestamp,index,power_w", *rows]))
    [record], [entry] = read_all(path)
    return [EnergySource(record, entry.power_log)]


def joined(
    tmp_path: Path, sources: list[EnergySource], *runs: dict[str, Any], **options: Any
) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    folder = tmp_path / "runs"
    folder.mkdir()
    for number, changes in enumerate(runs):
        peers.write_json(folder / f"{number}.json", peers.vllm_result(label=f"run {number}", **changes))
    records, _ = read_all(folder)
    window = options.pop("window", (None, None))
    return read_all(folder, join=EnergyJoin(sources, records, window), **options)


def test_window_of_a_run_decides_which_samples_count(tmp_path: Path) -> None:
    [record], [entry] = joined(tmp_path, log(tmp_path), {"date": "20260816-160810", "duration": 50.0})
    assert (entry.outcome, entry.code) == ("repaired", "energy_joined")
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.duration_sec, energy.gpu_power_w) == (15_000.0, 50.0, 300.0)
    assert [(device.gpu_id, device.energy_j) for device in energy.devices or []] == [(0, 5000.0), (1, 10_000.0)]
    assert entry.power_log is not None
    assert [(trace.times[0], trace.times[-1]) for trace in entry.power_log.traces] == [(0.0, 50.0), (0.0, 50.0)]


@pytest.mark.parametrize("stated", [False, True])
def test_counter_of_a_log_is_read_in_the_window_of_a_run(tmp_path: Path, *, stated: bool) -> None:
    begin = int(datetime(2026, 8, 16, 16, 7, tzinfo=UTC).timestamp())
    rows = [f"{begin + second},0,{1000 + 300 * second}" for second in range(121)]
    (tmp_path / "energy.csv").write_text("\n".join(["timestamp,gpu,total_energy_consumption", *rows]))
    window = [
        datetime(2026, 8, 16, 16, 7, 20, 500_000, tzinfo=UTC),
        datetime(2026, 8, 16, 16, 8, 10, 500_000, tzinfo=UTC),
    ]
    edges = tuple(edge.isoformat() for edge in window) if stated else (None, None)
    [record], [entry] = read_all(tmp_path / "energy.csv", window=edges)
    run = {"date": "20260816-180810", "duration": 50.0}
    [found], [of_run] = joined(tmp_path, [EnergySource(record, entry.power_log)], run, window=tuple(window))
    assert (of_run.code, found.energy_metrics.total_energy_j) == ("energy_joined", 15_000.0)
    assert found.energy_metrics.total_provenance == "measured"


def test_one_log_gives_energy_to_runs_that_follow_each_other(tmp_path: Path) -> None:
    runs = [{"date": f"20260816-1608{second}", "duration": 30.0} for second in ("00", "30")]
    records, _ = joined(tmp_path, log(tmp_path), *runs)
    assert [record.energy_metrics.total_energy_j for record in records] == [9000.0, 9000.0]


def test_runs_that_overlap_do_not_share_a_log(tmp_path: Path) -> None:
    runs = [{"date": f"20260816-1608{second}", "duration": 30.0} for second in ("00", "20")]
    records, entries = joined(tmp_path, log(tmp_path), *runs)
    assert [record.energy_metrics.total_energy_j for record in records] == [None, None]
    assert {entry.code for entry in entries} == {"energy_unjoined"}


def test_gap_in_the_window_is_stated_in_the_joined_record(tmp_path: Path) -> None:
    runs = [
        {"date": "20260816-160745", "duration": 40.0},
        {"date": "20260816-160810", "duration": 20.0},
    ]
    records, _ = joined(tmp_path, log(tmp_path, gap=range(20, 40)), *runs)
    assert ["gaps of up to 21.0 s" in (record.energy_measurement_warning or "") for record in records] == [True, False]


def test_run_outside_the_log_is_not_joined(tmp_path: Path) -> None:
    [record], [entry] = joined(tmp_path, log(tmp_path), {"date": "20260816-160950", "duration": 60.0})
    assert (record.energy_metrics.total_energy_j, entry.code) == (None, "energy_unjoined")
    assert "the run lasted from 2026-08-16T16:08:50 to 2026-08-16T16:09:50" in entry.message
    assert "and the power log from 2026-08-16T16:07:00 to 2026-08-16T16:09:00" in entry.message


def test_stated_window_joins_times_with_and_without_a_zone(tmp_path: Path) -> None:
    sources = log(tmp_path, zone="+00:00")
    [record], [entry] = joined(tmp_path, sources, {"date": "20260816-180810", "duration": 50.0})
    assert (record.energy_metrics.total_energy_j, entry.code) == (None, "energy_unjoined")
    assert "with --from and --to" in entry.message


@pytest.mark.parametrize(("duration", "expected"), [(50.0, 15_000.0), (20.0, None)])
def test_stated_window_has_to_have_the_length_of_the_run(
    tmp_path: Path, duration: float, expected: float | None
) -> None:
    start = log(tmp_path, zone="+00:00")
    first = start[0].record.timestamps.start
    assert first is not None
    window = (first.replace(second=20), first.replace(minute=8, second=10))
    runs = [{"date": "20260816-180810", "duration": duration}]
    folder = tmp_path / "runs"
    folder.mkdir()
    peers.write_json(folder / "0.json", peers.vllm_result(**runs[0]))
    records, _ = read_all(folder)
    [record], _ = read_all(folder, join=EnergyJoin(start, records, window))
    assert record.energy_metrics.total_energy_j == expected


def test_stated_window_gives_a_run_without_times_its_energy(tmp_path: Path) -> None:
    sources = log(tmp_path)
    line = {"backend": "sglang", "duration": 50.0, "completed": 3, "total_output_tokens_retokenized": 5}
    path = peers.write_json(tmp_path / "run.json", {**line, "total_input_tokens": 9, "total_output_tokens": 5})
    [record], [entry] = read_all(path, join=EnergyJoin(sources, read_all(path)[0]))
    assert (record.energy_metrics.total_energy_j, entry.code) == (None, "energy_unjoined")
    assert "the run has no start and end, so state them with --from and --to" in entry.message
    window = (datetime(2026, 8, 16, 16, 7, 20), datetime(2026, 8, 16, 16, 8, 10))
    [record], [entry] = read_all(path, join=EnergyJoin(sources, read_all(path)[0], window))
    assert (record.energy_metrics.total_energy_j, entry.code) == (15_000.0, "energy_joined")
    assert (record.timestamps.start, record.timestamps.end) == window

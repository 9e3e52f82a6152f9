"""Power logs of each tool: the same power gives the same energy in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from llm_energy_measure import importers
    from llm_energy_measure.domain.experiment import RawProcessResult

DATA = Path(__file__).parents[1] / "data" / "power_logs"
EPOCH = 1_770_000_000
LOCAL = ("2026-04-01T10:00:00", "2026-04-01T10:00:10")


def read(name: str, **options: object) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    return read_all(DATA / name, **options)


def energies(record: RawProcessResult) -> dict[int | None, float | None]:
    """Return the energy of each GPU in joules, without the rounding of a float."""
    devices = record.energy_metrics.devices or []
    return {device.gpu_id: None if device.energy_j is None else round(device.energy_j, 6) for device in devices}


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("nvidia_smi.csv", {}, "whole"),
        ("nvidia_smi_nounits.csv", {}, "whole"),
        (
            "nvidia_smi_noheader.csv",
            {"columns": ["timestamp", "name", "index", "power.draw", "power.limit"]},
            "whole",
        ),
        ("nvidia_smi_noheader_nounits.csv", {"columns": ["timestamp", "index", "power.draw"]}, "whole"),
        ("dmon_date_time.txt", {}, "whole"),
        ("dmon.txt", {"window": LOCAL}, "whole"),
        ("dmon.csv", {}, "whole"),
        ("dcgmi_power_epoch.txt", {}, "whole"),
        ("amd_smi_monitor.csv", {}, "whole"),
        ("amd_smi_metric.csv", {}, "whole"),
        ("wide.csv", {}, "whole"),
        ("inferencex.csv", {}, "whole"),
    ],
)
def test_each_layout_gives_the_energy_of_each_gpu(name: str, options: dict[str, object], code: str) -> None:
    [record], [entry] = read(name, **options)
    assert (entry.code, energies(record)) == (code, {0: 3000.0, 1: 3100.0})
    energy = record.energy_metrics
    assert energy.total_energy_j == pytest.approx(6100.0)
    assert energy.duration_sec == pytest.approx(10.0)
    assert (energy.total_scope, energy.total_provenance, energy.gpu_scope) == ("device", "integrated", "device")
    assert all(reading.samples == 11 for reading in energy.sensors or [])
    assert record.timestamps.start is not None


def test_log_without_header_needs_the_names_of_its_columns() -> None:
    records, [entry] = read("nvidia_smi_noheader.csv")
    assert (records, entry.code) == ([], "missing_field")
    assert "--columns timestamp,index,power.draw" in entry.message
    records, [entry] = read("nvidia_smi_noheader.csv", columns=["index", "power.draw"])
    assert (records, entry.code) == ([], "missing_field")


def test_log_without_times_needs_the_window() -> None:
    records, [entry] = read("dmon.txt")
    assert (records, entry.code) == ([], "missing_field")
    assert "--from and --to" in entry.message


def test_counter_of_dcgm_is_read_and_its_power_is_not_added() -> None:
    [record], [entry] = read("dcgmi_counter.txt")
    energy = record.energy_metrics
    assert (entry.code, energies(record)) == ("whole", {0: 3000.0, 1: 3100.0})
    assert (energy.total_provenance, energy.duration_sec, record.timestamps.start) == ("measured", None, None)
    assert entry.power_log is None


def test_counter_of_amd_is_the_difference_of_its_values(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},{gpu},{1000 + (300 + 10 * gpu) * second}" for second in range(11) for gpu in (0, 1)]
    text = "\n".join(["timestamp,gpu,total_energy_consumption", *rows])
    (tmp_path / "energy.csv").write_text(text)
    [record], [entry] = read_all(tmp_path / "energy.csv")
    assert (entry.code, energies(record)) == ("whole", {0: 3000.0, 1: 3100.0})
    assert (record.energy_metrics.total_provenance, record.energy_metrics.duration_sec) == ("measured", 10.0)
    (tmp_path / "energy.csv").write_text(text.replace(",0,4000", ",0,40"))
    [record], [entry] = read_all(tmp_path / "energy.csv")
    assert (entry.code, energies(record)) == ("counter_fell", {0: None, 1: 3100.0})
    assert record.energy_metrics.total_energy_j == 3100.0


def test_counter_that_falls_across_an_edge_of_the_window_is_unknown(tmp_path: Path) -> None:
    values = (1000, 2000, 0, 1000, 2000)
    rows = [f"2026-04-01T10:00:{second}0Z,0,{joules}" for second, joules in enumerate(values)]
    (tmp_path / "energy.csv").write_text("\n".join(["timestamp,gpu,total_energy_consumption", *rows]))
    for window, found in {("15", "40"): None, ("00", "15"): None, ("20", "40"): 2000.0, ("00", "10"): 1000.0}.items():
        edges = tuple(f"2026-04-01T10:00:{second}Z" for second in window)
        [record], [entry] = read_all(tmp_path / "energy.csv", window=edges)
        assert (energies(record), entry.code) == ({0: found}, "whole" if found else "counter_fell")


def test_window_that_ends_before_its_start_is_refused() -> None:
    window = ("2026-04-01T10:01:00", "2026-04-01T10:00:00")
    records, [entry] = read("dmon.txt", window=window)
    assert (records, entry.code) == ([], "impossible_value")


def test_telemetry_of_aiperf_counts_each_gpu_once(tmp_path: Path) -> None:
    [record], [entry] = read("aiperf_telemetry.jsonl")
    energy = record.energy_metrics
    assert (entry.code, energies(record), record.host) == ("whole", {0: 3000.0, 1: 3100.0}, "node-1")
    assert [device.gpu_uuid for device in energy.devices or []] == ["GPU-0", "GPU-1"]
    assert (energy.total_provenance, energy.duration_sec) == ("measured", 10.0)
    window = ("2026-02-02T02:40:02+00:00", "2026-02-02T02:40:04.500+00:00")
    [record], [entry] = read("aiperf_telemetry.jsonl", window=window)
    assert energies(record) == {0: 750.0, 1: 775.0}
    assert entry.power_log is not None
    assert [len(trace.times) for trace in entry.power_log.traces] == [4, 4]
    (tmp_path / "cut.jsonl").write_text((DATA / "aiperf_telemetry.jsonl").read_text()[:-50])
    [record], [entry] = read_all(tmp_path / "cut.jsonl")
    assert entry.code == "damaged_cells"


def test_servers_are_hosts_and_their_sum_is_no_third_one() -> None:
    records, entries = read("servers.csv")
    assert codes(entries) == ["whole", "whole"]
    assert len({record.experiment_id for record in records}) == 1
    found = [(record.process_index, record.host, record.energy_metrics.total_energy_j) for record in records]
    assert found == [(0, "n1", 11000.0), (1, "n2", 22000.0)]
    energy = records[0].energy_metrics
    assert (energy.total_scope, energy.gpu_energy_j, energy.devices) == ("host", None, None)


def test_hosts_in_a_log_are_processes_of_one_experiment(tmp_path: Path) -> None:
    header = "schema_version,timestamp_unix,scrape_seq,hostname,gpu_index,gpu_uuid,power_w"
    rows = [f"1,{EPOCH + second},{second},{host},0,GPU-{host},100" for second in range(5) for host in ("a", "b")]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    records, _ = read_all(tmp_path / "log.csv")
    assert [(record.host, record.gpu_id, record.gpu_uuid) for record in records] == [
        ("a", 0, "GPU-a"),
        ("b", 0, "GPU-b"),
    ]
    assert [record.energy_metrics.total_energy_j for record in records] == [400.0, 400.0]


@pytest.mark.parametrize(("cell", "energy"), [("100W", 200.0), ("100 W", 200.0), ("100 mW", None), ("0.1 kW", None)])
def test_only_watts_are_read_as_watts(tmp_path: Path, cell: str, energy: float | None) -> None:
    rows = [f"2026/04/01 10:00:0{second}.000, 0, {cell}" for second in range(3)]
    (tmp_path / "log.csv").write_text("\n".join(["timestamp, index, power.draw [W]", *rows]))
    records, _ = read_all(tmp_path / "log.csv")
    assert [record.energy_metrics.total_energy_j for record in records] == ([] if energy is None else [energy])


def test_two_draw_columns_are_one_power(tmp_path: Path) -> None:
    header = "timestamp, index, power.draw.instant [W], power.draw.average [W], power.draw [W], power.limit [W]"
    rows = [f"2026/04/01 10:00:0{second}.000, 0, 90 W, 95 W, 100 W, 400 W" for second in range(3)]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    [record], _ = read_all(tmp_path / "log.csv")
    assert record.energy_metrics.total_energy_j == 200.0
    assert record.effective_config == {"power-log": {"power_column": "power.draw [W]"}}


def test_samples_keep_temperature_clock_and_throttle_reasons(tmp_path: Path) -> None:
    header = "timestamp, index, power.draw [W], temperature.gpu, clocks.sm [MHz], clocks_event_reasons.active"
    rows = [f"2026/04/01 10:00:0{second}.000, 0, 100 W, {40 + second}, 1410 MHz, 0x{second}" for second in range(3)]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    _, [entry] = read_all(tmp_path / "log.csv")
    assert entry.power_log is not None
    [trace] = entry.power_log.traces
    assert (trace.device, list(trace.times), list(trace.powers)) == ("0", [0.0, 1.0, 2.0], [100.0] * 3)
    assert (list(trace.temperatures or []), list(trace.clocks or [])) == ([40.0, 41.0, 42.0], [1410.0] * 3)
    assert list(trace.throttles or []) == ["0x0", "0x1", "0x2"]

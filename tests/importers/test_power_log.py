"""Import of power logs: the energy is the integral of the samples of each GPU."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from llm_energy_measure import importers
    from llm_energy_measure.domain.experiment import RawProcessResult

EPOCH = 1_770_000_000


def read_log(tmp_path: Path, text: str, **options: object) -> tuple[list[RawProcessResult], list[importers.Entry]]:
    path = tmp_path / "power.csv"
    path.write_text(text)
    return read_all(path, **options)


def energies(record: RawProcessResult) -> list[float | None]:
    return [device.energy_j for device in record.energy_metrics.devices or []]


@pytest.mark.parametrize(
    ("header", "unit"),
    [("power.draw [W]", " W"), ("power.draw [W]", ""), ("power.draw.instant [W]", " W"), ("power_w", "")],
)
def test_units_are_in_the_header_or_in_the_cells(tmp_path: Path, header: str, unit: str) -> None:
    rows = [f"2026/04/01 10:00:0{second}.000, {gpu}, {100 + gpu}.00{unit}" for second in range(5) for gpu in (0, 1)]
    [record], [entry] = read_log(tmp_path, "\n".join([f"timestamp, index, {header}", *rows]) + "\n")
    assert (entry.code, energies(record)) == ("whole", [400.0, 404.0])
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.total_scope, energy.total_provenance) == (804.0, "device", "integrated")
    assert [reading.sampling_rate_hz for reading in energy.sensors or []] == [1.0, 1.0]


def test_one_column_per_gpu_and_one_power_column_are_read(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},100,{'' if second == 2 else 200}" for second in range(5)]
    [record], _ = read_log(tmp_path, "\n".join(["timestamp,GPU0,GPU1", *rows]))
    assert energies(record) == [400.0, 800.0]
    rows = [f"2026-04-01T10:00:0{second}+00:00,50" for second in range(5)]
    [record], _ = read_log(tmp_path, "\r\n".join(["timestamp,power_draw_W", *rows]))
    assert (energies(record), record.gpu_id) == ([200.0], None)
    assert record.timestamps.start is not None
    assert record.timestamps.start.isoformat() == "2026-04-01T10:00:00+00:00"


def test_missing_power_is_not_zero(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},{gpu},{'[N/A]' if gpu else 100}" for second in range(4) for gpu in (0, 1)]
    [record], [entry] = read_log(tmp_path, "\n".join(["timestamp,index,power.draw [W]", *rows]))
    assert (entry.code, energies(record)) == ("partial_total", [300.0])
    assert "GPU 1 has no power" in (record.energy_measurement_warning or "")


def test_repeated_header_and_cut_last_line_are_left_out(tmp_path: Path) -> None:
    header = "timestamp,index,power.draw [W]"
    rows = [f"{EPOCH + second},0,100" for second in range(3)]
    [record], [entry] = read_log(tmp_path, "\n".join([header, *rows[:2], header, rows[2], f"{EPOCH + 3},0"]))
    assert (entry.code, energies(record)) == ("damaged_cells", [200.0])


def test_gap_is_stated_in_the_record(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},0,100" for second in (0, 1, 2, 10, 11)]
    [record], [entry] = read_log(tmp_path, "\n".join(["timestamp,index,power_w", *rows]))
    assert (entry.code, energies(record)) == ("sampling_gap", [1100.0])
    assert [reading.problems for reading in record.energy_metrics.sensors or []] == [["sampling_gap"]]
    assert "gaps of up to 8.0 s" in (record.energy_measurement_warning or "")


def test_window_cuts_the_log_and_has_to_be_inside(tmp_path: Path) -> None:
    rows = [f"2026/04/01 10:00:{second:02},0,{10 * second}" for second in range(11)]
    text = "\n".join(["timestamp,index,power.draw [W]", *rows])
    [record], _ = read_log(tmp_path, text, window=("2026-04-01T10:00:02.5", "2026-04-01T10:00:07.5"))
    assert energies(record) == [pytest.approx(250.0)]
    records, [entry] = read_log(tmp_path, text, window=("2026-04-01T09:00:00", None))
    assert (records, entry.code) == ([], "impossible_value")


def test_rows_without_a_gpu_and_logs_without_a_header_are_refused(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},100" for second in range(3) for _ in range(2)]
    records, entries = read_log(tmp_path, "\n".join(["timestamp,power.draw [W]", *rows]))
    assert (records, codes(entries)) == ([], ["missing_field"])
    records, entries = read_log(
        tmp_path, "2026/04/01 10:00:00.000, 0, 300.00 W\n2026/04/01 10:00:01.000, 0, 300.00 W\n"
    )
    assert (records, codes(entries)) == ([], ["missing_field"])


def test_log_whose_clock_went_back_is_refused(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},0,100" for second in (0, 1, 2, -3598, -3597)]
    records, [entry] = read_log(tmp_path, "\n".join(["timestamp,index,power_w", *rows]))
    assert (records, entry.code) == ([], "impossible_value")
    assert "went back by 3600 s" in entry.message


@given(st.sampled_from([0.1, 0.5, 1.0, 5.0, 10.0]), st.floats(50, 400), st.floats(0, 300), st.floats(60, 600))
def test_energy_of_a_simulated_trace_is_within_the_error_of_the_trapezoid(
    step: float, mean: float, swing: float, period: float
) -> None:
    omega, count = 2 * math.pi / period, int(600 / step)
    powers = [(number * step, mean + 300 + swing * math.sin(omega * number * step)) for number in range(count + 1)]
    rows = [f"{EPOCH + moment:.3f},0,{power!r}" for moment, power in powers]
    with tempfile.TemporaryDirectory() as folder:
        [record], _ = read_log(Path(folder), "\n".join(["timestamp,index,power_w", *rows]))
    length = count * step
    true_j = (mean + 300) * length + swing / omega * (1 - math.cos(omega * length))
    bound_j = length * step**2 / 12 * swing * omega**2
    assert abs((record.energy_metrics.total_energy_j or 0) - true_j) <= bound_j + 1e-3 * true_j / length + 1e-3

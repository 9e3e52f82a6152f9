"""Import of power logs: the energy is the integral of the samples of each GPU."""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
import random
import statistics
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_energy_measure.domain.power_trace import integrate, median
from llm_energy_measure.importers.report import RefusedInputError
from llm_energy_measure.importers.sample_file import SampleFile, SampleTable, in_order
from llm_energy_measure.results.store.samples import decode_samples, encode_samples
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


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("jitter_ms", [0, 150])
def test_rows_of_several_gpus_without_their_names_are_refused(tmp_path: Path, gpus: int, jitter_ms: int) -> None:
    """nvidia-smi writes the row of each GPU with a time of its own, some milliseconds after the row before."""
    shift = random.Random(gpus)
    start = datetime(2026, 3, 1, 10)
    queries = [start + timedelta(seconds=second, milliseconds=shift.uniform(0, jitter_ms)) for second in range(30)]
    times = [query + timedelta(milliseconds=9 * gpu) for query in queries for gpu in range(gpus)]
    rows = [f"{time:%Y/%m/%d %H:%M:%S.%f}, 100.00 W" for time in times]
    records, entries = read_log(tmp_path, "\n".join(["timestamp, power.draw [W]", *rows, ""]))
    if gpus == 1:
        assert energies(records[0]) == [pytest.approx(100.0 * (times[-1] - times[0]).total_seconds())]
    else:
        assert records == []
        assert f"the rows follow each other in groups of {gpus}, as the rows of {gpus} GPUs do" in entries[0].message


@pytest.mark.parametrize("column", ["index", "uuid", "pci.bus_id", "serial"])
def test_each_column_that_names_the_gpu_is_used(tmp_path: Path, column: str) -> None:
    rows = [f"{EPOCH + second + gpu / 100}, 00000000:{gpu}, {100.0 + gpu} W" for second in range(3) for gpu in (0, 1)]
    [record], _ = read_log(tmp_path, "\n".join([f"timestamp, {column}, power.draw [W]", *rows, ""]))
    assert energies(record) == [pytest.approx(200.0), pytest.approx(202.0)]


def test_uneven_times_of_one_gpu_are_no_rows_of_several(tmp_path: Path) -> None:
    shift = random.Random(7)
    times, now = [], datetime(2026, 3, 1, 10)
    for _ in range(300):
        times.append(now)
        now += timedelta(seconds=shift.expovariate(1.0) + 0.001)
    rows = [f"{time:%Y/%m/%d %H:%M:%S.%f}, 100.00 W" for time in times]
    [record], _ = read_log(tmp_path, "\n".join(["timestamp, power.draw [W]", *rows, ""]))
    assert energies(record) == [pytest.approx(100.0 * (times[-1] - times[0]).total_seconds())]


def test_log_whose_clock_went_back_needs_the_window_of_one_part(tmp_path: Path) -> None:
    rows = [f"{EPOCH + second},0,100" for second in (0, 1, 2, -3598, -3597)]
    records, [entry] = read_log(tmp_path, "\n".join(["timestamp,index,power_w", *rows]))
    assert (records, entry.code) == ([], "impossible_value")
    assert entry.message == (
        "the clock of GPU 0 went back by 3600 s; pass --from and --to of a time span that only the rows before this "
        "step cover, or only the rows after this step"
    )
    window = [datetime.fromtimestamp(EPOCH + second, UTC).isoformat() for second in (0.5, 1.5)]
    [record], [entry] = read_log(tmp_path, "\n".join(["timestamp,index,power_w", *rows]), window=tuple(window))
    assert (entry.code, record.energy_metrics.total_energy_j) == ("whole", 100.0)


@given(
    step=st.sampled_from([0.1, 0.5, 1.0, 5.0, 10.0]),
    mean=st.floats(350, 700),
    swing=st.floats(0, 300),
    period=st.floats(60, 600),
    gap=st.tuples(st.floats(0, 500), st.floats(0, 60)),
    repeats=st.integers(1, 3),
    clock_step=st.sampled_from([0.0, 0.0, -2.5, -0.3, 0.7, 30.0]),
)
def test_energy_of_a_simulated_trace_is_within_the_error_of_the_trapezoid(
    *, step: float, mean: float, swing: float, period: float, gap: tuple[float, float], repeats: int, clock_step: float
) -> None:
    omega, count = 2 * math.pi / period, int(300 / step)
    moments = [number * step for number in range(count + 1)]
    low, high = gap[0], gap[0] + gap[1]
    kept = [moment for moment in moments if not low < moment < high or moment == moments[-1]]
    # The clock is set when half of the run is over; all later times are wrong by the step.
    shown = [moment + (clock_step if moment > moments[-1] / 2 else 0.0) for moment in kept]
    powers = [mean + swing * math.sin(omega * moment) for moment in kept]
    rows = [
        f"{EPOCH + time:.3f},0,{power!r}" for time, power in zip(shown, powers, strict=True) for _ in range(repeats)
    ]
    with tempfile.TemporaryDirectory() as folder:
        [record], _ = read_log(Path(folder), "\n".join(["timestamp,index,power_w", *rows]))
    length = moments[-1]
    true_j = mean * length + swing / omega * (1 - math.cos(omega * length))
    curvature = swing * omega**2
    bound_j = sum((later - earlier) ** 3 for earlier, later in itertools.pairwise(kept)) / 12 * curvature
    bound_j += 2 * (mean + swing) * abs(clock_step) + 2e-3 * (mean + swing)
    assert abs((record.energy_metrics.total_energy_j or 0) - true_j) <= bound_j


@given(st.floats(0.05, 0.45), st.floats(0.55, 0.95), st.integers(0, 2**32))
def test_windows_of_a_log_add_up_and_its_samples_have_their_energy(cut: float, end: float, seed: int) -> None:
    rng = random.Random(seed)
    rows = [f"{EPOCH + second + rng.random() / 2:.6f},0,{rng.uniform(50, 700):.2f}" for second in range(60)]
    edges = [datetime.fromtimestamp(EPOCH + 59 * share, UTC).isoformat() for share in (0.02, cut, end)]
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for window in ((edges[0], edges[1]), (edges[1], edges[2]), (edges[0], edges[2])):
            [record], [entry] = read_log(Path(folder), "\n".join(["timestamp,index,power_w", *rows]), window=window)
            assert entry.power_log is not None
            [trace] = decode_samples(encode_samples(entry.power_log.traces), "samples")
            integral = integrate(trace.times, trace.powers, 0.0, record.timestamps.duration_sec or 0.0)
            assert integral is not None
            assert integral.value == record.energy_metrics.total_energy_j
            found.append(integral.value)
    assert found[0] + found[1] == pytest.approx(found[2], rel=1e-6)


def write_rows(path: Path, rows: int) -> Path:
    text = "NVIDIA A100-SXM4-80GB, Default, P0, 0x0000000000000000, Enabled, Disabled, 00000000:07:00.0" + 200 * "x"
    lines = [f"{EPOCH + row / 8:.3f},{row % 4},{300 + row % 7}.00 W,45,{text}" for row in range(rows)]
    header = "timestamp, index, power.draw [W], temperature.gpu, name, compute_mode, pstate"
    path.write_text("\n".join([f"{header}, throttle, ecc.mode, mig.mode, pci.bus_id", *lines]))
    return path


def cpu_sec(path: Path) -> float:
    began = time.process_time()
    read_all(path)
    return time.process_time() - began


def test_rows_take_linear_time(tmp_path: Path) -> None:
    few, many = write_rows(tmp_path / "few.csv", 2_000), write_rows(tmp_path / "many.csv", 16_000)
    assert min(cpu_sec(many) for _ in range(2)) < 3 * 8 * min(cpu_sec(few) for _ in range(2))


def test_samples_of_a_log_are_not_in_memory(tmp_path: Path) -> None:
    few, many = 6_000, 12_000
    peaks = []
    for rows in (few, many):
        path = write_rows(tmp_path / "power.csv", rows)
        tracemalloc.start()
        read_all(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Time, power, counter, temperature, clock and throttle reason of a row take 48 bytes, and its text 320 bytes.
    assert (peaks[1] - peaks[0]) / (many - few) < 48 / 3


class FullDisk(io.BytesIO):
    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_temporary_folder_is_named() -> None:
    table = SampleTable(SampleFile(FullDisk()), 1)
    with pytest.raises(RefusedInputError, match="No space left on device; set TMPDIR to a folder with free space"):
        table.extend((float(row),) for row in range(2000))


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60))
def test_median_in_constant_memory_is_the_median(values: list[float]) -> None:
    assert median(lambda: values, len(values)) == statistics.median(values)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 9)), max_size=60))
def test_rows_are_put_in_order_as_by_a_stable_sort(rows: list[tuple[int, float]]) -> None:
    many = [(float(first), second) for first, second in rows] * 1_000
    assert list(in_order(many)) == sorted(many, key=itemgetter(0))


@given(st.lists(st.floats(allow_nan=False), max_size=60), st.integers(-70, 70), st.integers(-70, 70))
def test_column_of_a_file_is_a_sequence(numbers: list[float], low: int, high: int) -> None:
    values = numbers * 100
    column = SampleTable(SampleFile(), 2).extend((value, 0.0) for value in values).column(0)
    assert list(column) == values
    assert list(column[low:high]) == values[low:high]
    assert [column[index] for index in range(0, len(values), 97)] == values[::97]
    with pytest.raises(IndexError):
        column[len(values)]

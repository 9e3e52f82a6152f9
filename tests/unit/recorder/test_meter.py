"""The energy of a trace, whatever happens in it: wraps, resets, gaps, losses."""

from __future__ import annotations

import json
import math
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.recorder.meter import Meter
from llm_energy_measure.recorder.sampler import Sampler
from tests.support.replay import ManualClock, Trace, sensor

if TYPE_CHECKING:
    from collections.abc import Sequence

REAL_TRACE = Path(__file__).resolve().parents[2] / "data" / "cpu_seconds_of_two_processes.json"
PATIENCE_SEC = 30.0
RANGE_J = 262_143.328850  # of RAPL on many processors


def replay(points: Sequence[tuple[float, float | None]], **facts: object) -> Meter:
    """A meter that has read every point of a trace."""
    clock = ManualClock()
    meter = Meter(sensor(Trace(clock, points), **facts), gap_sec=1.0)
    for instant, _ in points:
        clock.now = instant
        meter.take(instant)
    return meter


@given(
    start_j=st.floats(0, RANGE_J, exclude_max=True),
    steps=st.lists(st.tuples(st.floats(0.05, 40.0), st.floats(0, 4_999)), min_size=1, max_size=60),
)
def test_a_counter_that_wraps_gives_the_energy_of_the_trace(start_j: float, steps: list[tuple[float, float]]) -> None:
    now, total_j, points = 0.0, start_j, [(0.0, start_j)]
    for pause_sec, watts in steps:
        now += pause_sec
        total_j += watts * pause_sec
        points.append((now, math.fmod(total_j, RANGE_J)))
    meter = replay(points, range_j=RANGE_J)
    assert meter.energy_j == pytest.approx(total_j - start_j, rel=1e-9, abs=1e-6)
    reading = meter.reading()
    assert reading.wraps == int(total_j // RANGE_J)
    assert reading.problems == []
    assert (reading.counter_start_j, reading.counter_end_j) == (points[0][1], points[-1][1])
    assert reading.samples == len(points)


@given(
    start_j=st.floats(0, 1e6),
    runs=st.lists(st.lists(st.floats(0.001, 500.0), min_size=1, max_size=10), min_size=1, max_size=8),
)
def test_a_counter_that_was_reset_gives_what_it_counted(start_j: float, runs: list[list[float]]) -> None:
    """Each reset is seen as it happens: the reading after it is 0."""
    now, points, counted = 0.0, [(0.0, start_j)], 0.0
    for number, run in enumerate(runs):
        value = start_j if number == 0 else 0.0
        if number:
            now += 0.1
            points.append((now, 0.0))
        for joules in run:
            now += 0.1
            value += joules
            counted += joules
            points.append((now, value))
    meter = replay(points)
    assert meter.energy_j == pytest.approx(counted, rel=1e-9, abs=1e-6)
    assert meter.reading().problems == (["counter_reset"] if len(runs) > 1 else [])


def test_a_fall_that_no_wrap_explains_is_a_reset() -> None:
    meter = replay([(0.0, 1000.0), (0.1, 1010.0), (0.2, 5.0)], range_j=RANGE_J)
    assert meter.energy_j == 15.0  # 10 before; 5 since, at least
    assert meter.reading().problems == ["counter_reset"]
    assert meter.reading().wraps == 0


def test_a_pause_in_which_a_counter_may_have_wrapped_unseen_is_told() -> None:
    meter = replay([(0.0, 0.0), (60.0, 10.0)], range_j=RANGE_J)
    assert meter.reading().problems == ["sampling_gap"]
    assert replay([(0.0, 0.0), (60.0, 10.0)]).reading().problems == []


@given(
    mean_w=st.floats(20.0, 400.0),
    swing=st.floats(0.0, 0.9),
    period_sec=st.floats(2.0, 30.0),
    seconds=st.integers(5, 40),
)
def test_power_that_is_sampled_gives_the_energy_of_the_trace(
    mean_w: float, swing: float, period_sec: float, seconds: int
) -> None:
    omega = 2 * math.pi / period_sec
    clock = ManualClock()
    meter = Meter(
        sensor(lambda: mean_w * (1 + swing * math.sin(omega * clock.now)), quantity="power"),
        gap_sec=1.0,
    )
    meter.take(0.0)
    for tick in range(1, seconds * 10 + 1):
        clock.now = tick / 10
        meter.take(clock.now)
    true_j = mean_w * (seconds + swing / omega * (1 - math.cos(omega * seconds)))
    assert meter.energy_j == pytest.approx(true_j, rel=0.01)
    assert meter.reading().sampling_rate_hz == pytest.approx(10.0)
    assert meter.reading().counter_start_j is None


def test_a_gap_in_power_is_bridged_and_told() -> None:
    meter = replay([(0.0, 100.0), (0.5, 100.0), (4.0, 102.0), (4.5, 102.0)], quantity="power")
    assert meter.energy_j == pytest.approx(100 * 0.5 + 101 * 3.5 + 102 * 0.5)
    assert meter.reading().problems == ["sampling_gap"]


@pytest.mark.parametrize("quantity", ["power", "energy"])
def test_one_sample_is_no_energy(quantity: str) -> None:
    assert replay([(0.0, 100.0)], quantity=quantity).energy_j is None


def test_a_sensor_that_answers_late_has_lost_what_came_before() -> None:
    meter = replay([(0.0, None), (0.1, 5.0), (0.2, 9.0)])
    assert meter.energy_j == 4.0
    assert meter.reading().problems == ["sensor_lost"]
    assert (meter.failure, meter.loss) == (None, "at first: OSError: [Errno 5] Input/output error")
    assert replay([(0.0, None), (0.1, 5.0)]).energy_j is None


def test_a_sensor_that_dies_midway_keeps_what_it_counted() -> None:
    meter = replay([(0.0, 5.0), (0.1, 7.0), (0.2, None), (0.3, None)])
    assert meter.energy_j == 2.0
    assert meter.reading().problems == ["sensor_lost"]
    assert meter.failure == "OSError: [Errno 5] Input/output error"


def test_a_sensor_that_comes_back_has_lost_nothing() -> None:
    meter = replay([(0.0, 5.0), (0.1, None), (0.2, 9.0)])
    assert meter.energy_j == 4.0
    assert meter.reading().problems == []


def test_a_sensor_that_never_answers_knows_no_energy() -> None:
    reading = replay([(0.0, None), (0.1, None)]).reading()
    assert (reading.energy_j, reading.samples, reading.problems) == (None, 0, ["sensor_lost"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_no_sensor_can_read_is_a_failure(value: float) -> None:
    meter = replay([(0.0, 5.0), (0.1, value)])
    assert meter.energy_j is None
    assert meter.reading().problems == ["sensor_lost"]


def test_a_sensor_may_raise_anything() -> None:
    def read() -> float:
        raise RuntimeError("GPU is lost")

    meter = Meter(sensor(read), gap_sec=1.0)
    meter.take(0.0)
    assert meter.failure == "RuntimeError: GPU is lost"


def test_a_sampler_adds_up_components_and_reads_nothing_once_it_has_ended() -> None:
    clock = ManualClock()
    cpus = [sensor(lambda: clock.now * 50, instance=f"package-{index}") for index in range(2)]
    sampler = Sampler(
        [*cpus, sensor(lambda: clock.now * 10, component="ram", instance="dram-0")], clock, interval_sec=None
    )
    sampler.begin()
    clock.now = 2.0
    energies = sampler.energies()
    assert (energies.cpu, energies.ram, energies.gpu, energies.total) == (200.0, 20.0, None, 220.0)
    sampler.end()
    clock.now = 3.0
    assert sampler.energies() == energies


def test_a_sensor_of_everything_is_the_total() -> None:
    clock = ManualClock()
    sampler = Sampler([sensor(lambda: clock.now * 300, component="total")], clock, interval_sec=None)
    sampler.begin()
    clock.now = 1.0
    assert sampler.energies().total == 300.0


def test_a_sensor_that_fails_at_an_end_of_a_span_knows_nothing_of_the_span() -> None:
    clock = ManualClock()
    lost = sensor(Trace(clock, [(0.0, 5.0), (1.0, None), (2.0, 9.0)]), component="gpu")
    sampler = Sampler([lost, sensor(lambda: clock.now * 10)], clock, interval_sec=None)
    sampler.begin()
    clock.now = 1.0
    energies = sampler.energies()
    assert (energies.gpu, energies.cpu, energies.total) == (None, 10.0, None)
    clock.now = 2.0
    assert sampler.energies().total == 24.0  # it came back


def test_a_sensor_that_hangs_holds_up_nobody_for_long() -> None:
    clock, gate, is_hanging = ManualClock(), threading.Event(), threading.Event()

    def read() -> float:
        if threading.current_thread() is not threading.main_thread():
            is_hanging.set()
            gate.wait()
        return clock.now * 10

    sampler = Sampler([sensor(read), sensor(lambda: 7.0)], clock, interval_sec=None, patience_sec=0.05)
    sampler.begin()
    clock.now = 1.0
    sampler.take()
    thread = threading.Thread(target=sampler.take)
    thread.start()
    assert is_hanging.wait(PATIENCE_SEC)
    clock.now = 2.0
    assert sampler.energies().total is None
    sampler.end()
    first, second = sampler.readings()
    assert (first.energy_j, first.problems, second.problems) == (10.0, ["sensor_lost"], ["sensor_lost"])
    assert sampler.failures() == {"replay package-0": "a reading has not ended"}
    gate.set()
    thread.join()
    assert sampler.readings()[0].energy_j == 10.0  # the window had ended


def test_a_sensor_that_hung_and_answers_again_has_lost_nothing() -> None:
    clock, gate, is_hanging = ManualClock(), threading.Event(), threading.Event()

    def read() -> float:
        if threading.current_thread() is not threading.main_thread():
            is_hanging.set()
            gate.wait()
        return clock.now * 10

    sampler = Sampler([sensor(read)], clock, interval_sec=None, patience_sec=0.05)
    sampler.begin()
    thread = threading.Thread(target=sampler.take)
    thread.start()
    assert is_hanging.wait(PATIENCE_SEC)
    sampler.take()
    assert sampler.readings()[0].problems == ["sensor_lost"]
    gate.set()
    thread.join()
    clock.now = 2.0
    assert sampler.energies().total == 20.0
    sampler.end()
    assert sampler.readings()[0].problems == []


# A real counter: CPU seconds of `examples/smollm2` under torchrun, read ten times a second, as a trace of 4 W a core.


def real_trace() -> list[tuple[float, float]]:
    return [(instant, seconds * 4.0) for instant, seconds in json.loads(REAL_TRACE.read_bytes())]


def test_a_real_trace_with_wraps_gives_its_energy() -> None:
    points = real_trace()
    true_j = points[-1][1] - points[0][1]
    range_j = 16.25  # of a counter that begins anew every few seconds
    wrapped = [(instant, math.fmod(joules, range_j)) for instant, joules in points]
    meter = replay(wrapped, range_j=range_j, most_power_w=60.0)
    assert meter.energy_j == pytest.approx(true_j, rel=1e-9)
    assert meter.reading().wraps == int(points[-1][1] // range_j) - int(points[0][1] // range_j) > 3
    assert meter.reading().problems == []


def test_a_real_trace_with_resets_and_gaps_gives_what_was_counted() -> None:
    points = real_trace()
    third = len(points) // 3
    base_j = points[third][1]
    # Read as it is reset, at a third; not read at all for the last quarter but one point.
    reset = [*points[:third], *((instant, joules - base_j) for instant, joules in points[third:])]
    meter = replay([*reset[: -len(reset) // 4], reset[-1]])
    counted_j = (points[third - 1][1] - points[0][1]) + (points[-1][1] - base_j)
    assert meter.energy_j == pytest.approx(counted_j, rel=1e-9)
    assert meter.reading().problems == ["counter_reset"]


def test_the_power_of_a_real_trace_sampled_gives_its_energy() -> None:
    """Power over each second of the trace, sampled ten times a second with a gap of three seconds in it."""
    points = real_trace()
    seconds = points[10::10]
    watts = [(later[0], (later[1] - earlier[1]) / (later[0] - earlier[0])) for earlier, later in pairwise(seconds)]
    true_j = sum((b[1] + a[1]) / 2 * (b[0] - a[0]) for a, b in pairwise(watts))
    fine = [
        (a[0] + (b[0] - a[0]) * step / 10, a[1] + (b[1] - a[1]) * step / 10)
        for a, b in pairwise(watts)
        for step in range(10)
    ]
    fine.append(watts[-1])
    gap = [point for point in fine if not 10.0 < point[0] - fine[0][0] < 13.0]
    meter = replay(gap, quantity="power")
    assert meter.energy_j == pytest.approx(true_j, rel=0.01)
    assert meter.reading().problems == ["sampling_gap"]

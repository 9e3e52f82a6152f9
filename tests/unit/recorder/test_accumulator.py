"""Energy from a trace of readings with wraps, resets, gaps and lost readings."""

from __future__ import annotations

import json
import math
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.recorder.accumulator import EnergyAccumulator
from llm_energy_measure.recorder.clock import SystemClock
from llm_energy_measure.recorder.sampler import Sampler
from tests.support.replay import ManualClock, Trace, sensor

if TYPE_CHECKING:
    from collections.abc import Sequence

REAL_TRACE = Path(__file__).resolve().parents[2] / "data" / "cpu_seconds_of_two_processes.json"
PATIENCE_SEC = 30.0
RANGE_J = 262_143.328850  # the range of RAPL on many processors


def take(energy: EnergyAccumulator, now: float) -> None:
    """Read the sensor at this instant."""
    energy.add(now, energy.read())


def replay(points: Sequence[tuple[float, float | None]], **changes: object) -> EnergyAccumulator:
    """Return an accumulator that has read every point of a trace."""
    clock = ManualClock()
    energy = EnergyAccumulator(sensor(Trace(clock, points), **changes), gap_sec=1.0)
    for instant, _ in points:
        clock.now = instant
        take(energy, instant)
    return energy


@given(
    start_j=st.floats(0, RANGE_J, exclude_max=True),
    steps=st.lists(st.tuples(st.floats(0.05, 40.0), st.floats(0, 4_999)), min_size=1, max_size=60),
)
def test_wrapping_counter_gives_the_energy_of_the_trace(start_j: float, steps: list[tuple[float, float]]) -> None:
    now, total_j, points = 0.0, start_j, [(0.0, start_j)]
    for pause_sec, watts in steps:
        now += pause_sec
        total_j += watts * pause_sec
        points.append((now, math.fmod(total_j, RANGE_J)))
    energy = replay(points, range_j=RANGE_J)
    assert energy.energy_j == pytest.approx(total_j - start_j, rel=1e-9, abs=1e-6)
    reading = energy.reading()
    assert reading.wraps == int(total_j // RANGE_J)
    assert reading.problems == []
    assert (reading.counter_start_j, reading.counter_end_j) == (points[0][1], points[-1][1])
    assert reading.samples == len(points)


@given(
    start_j=st.floats(0, 1e6),
    runs=st.lists(st.lists(st.floats(0.001, 500.0), min_size=1, max_size=10), min_size=1, max_size=8),
)
def test_reset_counter_gives_the_energy_that_it_counted(start_j: float, runs: list[list[float]]) -> None:
    """The first reading after each reset is 0, so that no energy is lost."""
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
    energy = replay(points)
    assert energy.energy_j == pytest.approx(counted, rel=1e-9, abs=1e-6)
    assert energy.reading().problems == (["counter_reset"] if len(runs) > 1 else [])


def test_decrease_too_large_for_a_wrap_is_a_reset() -> None:
    energy = replay([(0.0, 1000.0), (0.1, 1010.0), (0.2, 5.0)], range_j=RANGE_J)
    assert energy.energy_j == 15.0  # 10 J before the reset, and at least 5 J after it
    assert energy.reading().problems == ["counter_reset"]
    assert energy.reading().wraps == 0


def test_pause_long_enough_for_two_wraps_is_a_sampling_gap() -> None:
    energy = replay([(0.0, 0.0), (60.0, 10.0)], range_j=RANGE_J)
    assert energy.reading().problems == ["sampling_gap"]
    assert replay([(0.0, 0.0), (60.0, 10.0)]).reading().problems == []


@given(
    mean_w=st.floats(20.0, 400.0),
    swing=st.floats(0.0, 0.9),
    period_sec=st.floats(2.0, 30.0),
    seconds=st.integers(5, 40),
)
def test_sampled_power_gives_the_energy_of_the_trace(
    mean_w: float, swing: float, period_sec: float, seconds: int
) -> None:
    omega = 2 * math.pi / period_sec
    clock = ManualClock()
    energy = EnergyAccumulator(
        sensor(lambda: mean_w * (1 + swing * math.sin(omega * clock.now)), quantity="power"),
        gap_sec=1.0,
    )
    take(energy, 0.0)
    for tick in range(1, seconds * 10 + 1):
        clock.now = tick / 10
        take(energy, clock.now)
    true_j = mean_w * (seconds + swing / omega * (1 - math.cos(omega * seconds)))
    assert energy.energy_j == pytest.approx(true_j, rel=0.01)
    assert energy.reading().sampling_rate_hz == pytest.approx(10.0)
    assert energy.reading().counter_start_j is None


def test_gap_in_power_samples_is_interpolated_and_recorded() -> None:
    energy = replay([(0.0, 100.0), (0.5, 100.0), (4.0, 102.0), (4.5, 102.0)], quantity="power")
    assert energy.energy_j == pytest.approx(100 * 0.5 + 101 * 3.5 + 102 * 0.5)
    assert energy.reading().problems == ["sampling_gap"]


@pytest.mark.parametrize("quantity", ["power", "energy"])
def test_one_sample_gives_no_energy(quantity: str) -> None:
    assert replay([(0.0, 100.0)], quantity=quantity).energy_j is None


def test_sensor_that_fails_at_first_is_lost() -> None:
    energy = replay([(0.0, None), (0.1, 5.0), (0.2, 9.0)])
    assert energy.energy_j == 4.0
    assert energy.reading().problems == ["sensor_lost"]
    assert (energy.failure, energy.loss) == (None, "at the start: OSError: [Errno 5] Input/output error")
    assert replay([(0.0, None), (0.1, 5.0)]).energy_j is None


def test_sensor_that_fails_at_last_keeps_earlier_energy() -> None:
    energy = replay([(0.0, 5.0), (0.1, 7.0), (0.2, None), (0.3, None)])
    assert energy.energy_j == 2.0
    assert energy.reading().problems == ["sensor_lost"]
    assert energy.failure == "OSError: [Errno 5] Input/output error"


def test_sensor_that_recovers_has_lost_nothing() -> None:
    energy = replay([(0.0, 5.0), (0.1, None), (0.2, 9.0)])
    assert energy.energy_j == 4.0
    assert energy.reading().problems == []


def test_sensor_that_always_fails_has_no_energy() -> None:
    reading = replay([(0.0, None), (0.1, None)]).reading()
    assert (reading.energy_j, reading.samples, reading.problems) == (None, 0, ["sensor_lost"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_impossible_value_is_a_failure(value: float) -> None:
    energy = replay([(0.0, 5.0), (0.1, value)])
    assert energy.energy_j is None
    assert energy.reading().problems == ["sensor_lost"]


def test_sensor_may_raise_any_exception() -> None:
    def read() -> float:
        raise RuntimeError("GPU is lost")

    energy = EnergyAccumulator(sensor(read), gap_sec=1.0)
    take(energy, 0.0)
    assert energy.failure == "RuntimeError: GPU is lost"


def test_sampler_sums_components_and_stops_at_its_end() -> None:
    clock = ManualClock()
    cpus = [sensor(lambda: clock.now * 50, instance=f"package-{index}") for index in range(2)]
    sampler = Sampler(
        [*cpus, sensor(lambda: clock.now * 10, component="ram", instance="dram-0")], clock, interval_sec=None
    )
    sampler.take()
    clock.now = 2.0
    energies = sampler.energies()
    assert (energies.cpu, energies.ram, energies.gpu, energies.total) == (200.0, 20.0, None, 220.0)
    sampler.end()
    clock.now = 3.0
    assert sampler.energies() == energies


def test_sensor_of_all_components_is_the_total() -> None:
    clock = ManualClock()
    sampler = Sampler([sensor(lambda: clock.now * 300, component="total")], clock, interval_sec=None)
    sampler.take()
    clock.now = 1.0
    assert sampler.energies().total == 300.0


def test_failed_reading_makes_the_energy_so_far_unknown() -> None:
    clock = ManualClock()
    lost = sensor(Trace(clock, [(0.0, 5.0), (1.0, None), (2.0, 9.0)]), component="gpu")
    sampler = Sampler([lost, sensor(lambda: clock.now * 10)], clock, interval_sec=None)
    sampler.take()
    clock.now = 1.0
    energies = sampler.energies()
    assert (energies.gpu, energies.cpu, energies.total) == (None, 10.0, None)
    clock.now = 2.0
    assert sampler.energies().total == 24.0  # the sensor works again


class HangingSensor:
    """A counter that rises by 10 W. In all threads but the main thread, a reading hangs until the gate opens."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.gate = threading.Event()
        self.is_hanging = threading.Event()

    def __call__(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            self.is_hanging.set()
            self.gate.wait()
        return self.clock.now * 10

    def start_thread(self, sampler: Sampler) -> threading.Thread:
        """Start a thread that reads the sensors, and wait until its reading hangs."""
        thread = threading.Thread(target=sampler.take)
        thread.start()
        assert self.is_hanging.wait(PATIENCE_SEC)
        return thread


def test_other_threads_do_not_wait_for_a_hanging_sensor() -> None:
    hanging = HangingSensor()
    clock = hanging.clock
    sampler = Sampler([sensor(hanging), sensor(lambda: 7.0)], clock, interval_sec=None, patience_sec=0.05)
    sampler.take()
    clock.now = 1.0
    sampler.take()
    thread = hanging.start_thread(sampler)
    clock.now = 2.0
    assert sampler.energies().total is None
    sampler.end()
    first, second = sampler.readings()
    assert (first.energy_j, first.problems, second.problems) == (10.0, ["sensor_lost"], ["sensor_lost"])
    assert sampler.failures() == {"replay package-0": "a reading has not ended"}
    hanging.gate.set()
    thread.join()
    assert sampler.readings()[0].energy_j == 10.0  # the reading came after the end of the window


def test_hanging_sensor_that_recovers_has_lost_nothing() -> None:
    hanging = HangingSensor()
    clock = hanging.clock
    sampler = Sampler([sensor(hanging)], clock, interval_sec=None, patience_sec=0.05)
    sampler.take()
    thread = hanging.start_thread(sampler)
    sampler.take()
    assert sampler.readings()[0].problems == ["sensor_lost"]
    hanging.gate.set()
    thread.join()
    clock.now = 2.0
    assert sampler.energies().total == 20.0
    sampler.end()
    assert sampler.readings()[0].problems == []


# A real counter: CPU seconds of `examples/smollm2` under torchrun at 10 Hz, converted to joules with 4 W per core.


def real_trace() -> list[tuple[float, float]]:
    return [(instant, seconds * 4.0) for instant, seconds in json.loads(REAL_TRACE.read_bytes())]


def test_real_trace_with_wraps_gives_its_energy() -> None:
    points = real_trace()
    true_j = points[-1][1] - points[0][1]
    range_j = 16.25  # this counter wraps every few seconds
    wrapped = [(instant, math.fmod(joules, range_j)) for instant, joules in points]
    energy = replay(wrapped, range_j=range_j, max_power_w=60.0)
    assert energy.energy_j == pytest.approx(true_j, rel=1e-9)
    assert energy.reading().wraps == int(points[-1][1] // range_j) - int(points[0][1] // range_j) > 3
    assert energy.reading().problems == []


def test_real_trace_with_reset_and_gap_gives_counted_energy() -> None:
    points = real_trace()
    third = len(points) // 3
    base_j = points[third][1]
    # The counter is reset after a third of the trace. In the last quarter only the last point is read.
    reset = [*points[:third], *((instant, joules - base_j) for instant, joules in points[third:])]
    energy = replay([*reset[: -len(reset) // 4], reset[-1]])
    counted_j = (points[third - 1][1] - points[0][1]) + (points[-1][1] - base_j)
    assert energy.energy_j == pytest.approx(counted_j, rel=1e-9)
    assert energy.reading().problems == ["counter_reset"]


def test_real_trace_of_power_samples_gives_its_energy() -> None:
    """The samples are at 10 Hz, with a gap of three seconds."""
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
    energy = replay(gap, quantity="power")
    assert energy.energy_j == pytest.approx(true_j, rel=0.01)
    assert energy.reading().problems == ["sampling_gap"]


def test_power_step_between_samples_is_inside_the_uncertainty() -> None:
    watts = ((0.0, 100.0), (0.1, 100.0), (0.2, 700.0), (0.3, 700.0))
    accumulator = EnergyAccumulator(sensor(lambda: 0.0, quantity="power", provenance="integrated"), gap_sec=1.0)
    for now, value in watts:
        accumulator.add(now, value)
    reading = accumulator.reading()
    assert reading.energy_j == pytest.approx(120.0)
    assert reading.uncertainty_j == pytest.approx(30.0)
    for step_sec in (0.1, 0.15, 0.2):  # the true energy, if the step was then
        true_j = 100.0 * step_sec + 700.0 * (0.3 - step_sec)
        assert abs(true_j - 120.0) <= 30.0 + 1e-9


def test_counter_states_no_uncertainty() -> None:
    accumulator = EnergyAccumulator(sensor(lambda: 0.0), gap_sec=1.0)
    accumulator.add(0.0, 1.0)
    accumulator.add(1.0, 5.0)
    assert accumulator.reading().uncertainty_j is msgspec.UNSET


def test_power_is_sampled_five_times_as_often_as_counters() -> None:
    """A step from 100 to 700 W between two readings is an error, so power is read more often."""
    enough = threading.Event()
    powers: list[float] = []
    counts: list[float] = []

    def power() -> float:
        powers.append(1.0)
        if len(powers) > 60:
            enough.set()
        return 100.0

    def counter() -> float:
        counts.append(1.0)
        return float(len(counts))

    sensors = [sensor(power, quantity="power", component="gpu"), sensor(counter)]
    sampler = Sampler(sensors, SystemClock(), interval_sec=0.005)
    sampler.take()
    sampler.start_thread()
    assert enough.wait(PATIENCE_SEC)
    sampler.close()
    assert len(powers) > 3 * len(counts)

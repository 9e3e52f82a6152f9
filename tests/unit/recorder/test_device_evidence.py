"""State of the GPUs at both ends of a run, and samples over time."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from llm_energy_measure import record
from llm_energy_measure.domain.device_state import DeviceSample, DeviceState
from llm_energy_measure.domain.power_trace import integrate
from llm_energy_measure.recorder.device_evidence import DeviceSamples, summary_of
from llm_energy_measure.recorder.sources.amdsmi import AmdSmi
from llm_energy_measure.recorder.sources.amdsmi_state import state_of
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results.batch.verify import verify_experiment
from llm_energy_measure.results.store.samples import encode_samples, load_samples
from tests.support.devices import Board, FakeAmdSmi, FakeNvml
from tests.support.recordings import EXPERIMENT, file_names, load_result, make_recording
from tests.support.replay import ManualClock, sensor, steady_watts

if TYPE_CHECKING:
    from llm_energy_measure.domain.device_state import DeviceEvidence
    from llm_energy_measure.results import FileSystemRepository


def evidence_of(repository: FileSystemRepository) -> DeviceEvidence:
    [device] = load_result(repository).energy_metrics.devices or []
    assert device.evidence is not UNSET
    return device.evidence


def test_state_at_both_ends_is_recorded(repository: FileSystemRepository, clock: ManualClock) -> None:
    board = Board(index=0, uuid="GPU-a", throttle=0x1)
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))]):
        clock.sleep(10)
        board.temperature_c, board.clock_mhz, board.throttle, board.persistence = 83.0, 1200.0, 0x24, None
    evidence = evidence_of(repository)
    assert evidence.start is not None
    assert evidence.end is not None
    assert (evidence.start.temperature_c, evidence.start.throttle) == (55.0, ["gpu_idle"])
    assert (evidence.start.power_limit_w, evidence.start.persistence_mode) == (400.0, True)
    assert (evidence.end.temperature_c, evidence.end.clock_mhz) == (83.0, 1200.0)
    assert (evidence.end.throttle, evidence.end.persistence_mode) == (["sw_power_cap", "sw_thermal_slowdown"], None)
    assert evidence.samples is UNSET
    assert "samples-process_0.csv.gz" not in file_names(repository)
    findings = verify_experiment(repository, EXPERIMENT).findings
    [throttled] = [one for one in findings if one.code == "device.throttled"]
    assert (throttled.outcome, throttled.severity) == ("failed", "warning")
    assert throttled.message == "GPU GPU-a was slowed down: sw_thermal_slowdown in 50% of the samples"


def test_changed_power_limit_is_a_finding(repository: FileSystemRepository, clock: ManualClock) -> None:
    board = Board(index=0, uuid="GPU-a")
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))]):
        clock.sleep(10)
        board.limit_mw = 300_000.0
    [drift] = [one for one in verify_experiment(repository, EXPERIMENT).findings if one.code == "device.drift"]
    assert drift.message == "the power limit of GPU GPU-a changed from 400 W to 300 W"


def test_samples_at_both_ends_are_stored(repository: FileSystemRepository, clock: ManualClock) -> None:
    board = Board(index=0, uuid="GPU-a")
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))], samples=True):
        clock.sleep(10)
        board.power_mw, board.throttle = 300_000.0, 0x4
    [trace] = load_samples(repository.store, EXPERIMENT, 0)
    assert (trace.device, list(trace.times), list(trace.powers)) == ("GPU-a", [0.0, 10.0], [200.0, 300.0])
    assert trace.throttles == ["", "sw_power_cap"]
    assert trace.temperatures is not None
    assert list(trace.temperatures) == [55.0, 55.0]
    samples = evidence_of(repository).samples
    assert samples is not UNSET
    assert (samples.samples, samples.power_max_w, samples.throttled) == (2, 300.0, {"sw_power_cap": 0.5})
    codes = {one.code: one for one in verify_experiment(repository, EXPERIMENT).findings}
    assert codes["device.throttled"].severity == "info"  # drawing the power limit is normal


def amd_gpu(**metrics: object) -> FakeAmdSmi:
    """Return an MI300X as amdsmi 7 describes it: values that it does not have are `N/A`."""
    smi = FakeAmdSmi(["GPU-a"])
    smi.answers = {
        "metrics": {
            "temperature_hotspot": 61,
            "temperature_edge": "N/A",
            "current_gfxclk": "N/A",
            "current_gfxclks": [2100, 2097, "N/A"],
            "current_socket_power": 700,
            "average_socket_power": "N/A",
            "average_gfx_activity": 97,
            "throttle_status": False,
            **metrics,
        },
        "violations": {"active_prochot_thrm": False, "active_ppt_pwr": "N/A"},
        "power_cap": {"power_cap": 750_000_000},
        "driver": {"driver_version": "6.12.12"},
    }
    return smi


def test_amd_state_and_samples_are_recorded(repository: FileSystemRepository, clock: ManualClock) -> None:
    smi = amd_gpu()
    with make_recording(repository, clock, sources=[AmdSmi(smi)], samples=True):
        clock.sleep(10)
        smi.answers["metrics"] |= {"temperature_hotspot": 99, "current_gfxclks": [1500], "throttle_status": True}
        smi.answers["violations"] = {"active_socket_thrm": True, "active_ppt_pwr": True}
    result, evidence = load_result(repository), evidence_of(repository)
    assert evidence.start == DeviceState(temperature_c=61.0, clock_mhz=2100.0, throttle=[], power_limit_w=750.0)
    assert evidence.end == DeviceState(
        temperature_c=99.0, clock_mhz=1500.0, throttle=["hw_thermal_slowdown", "sw_power_cap"], power_limit_w=750.0
    )
    assert result.recording_environment is not UNSET
    assert (result.gpu_power_limit_w, result.recording_environment.gpu_driver) == (750.0, "6.12.12")
    [trace] = load_samples(repository.store, EXPERIMENT, 0)
    assert (trace.device, list(trace.powers), trace.throttles) == ("GPU-a", [700.0, 700.0], ["", "throttled"])
    assert trace.temperatures is not None
    assert list(trace.temperatures) == [61.0, 99.0]
    codes = {one.code: one for one in verify_experiment(repository, EXPERIMENT).findings}
    assert codes["device.throttled"].severity == "info"  # the samples name no reason
    assert codes["device.drift"].problem == "warning"


@pytest.mark.parametrize(
    ("metrics", "throttle", "clock_mhz", "temperature_c"),
    [
        ({"average_gfx_activity": 0, "current_gfxclk": 132}, ["gpu_idle"], 132.0, 61.0),
        ({"throttle_status": "N/A", "current_gfxclks": "N/A"}, None, None, 61.0),
        ({"throttle_status": True, "temperature_hotspot": "N/A", "temperature_edge": 40}, ["throttled"], 2100.0, 40.0),
    ],
)
def test_amd_values_that_are_missing_are_unknown(
    metrics: dict[str, object], throttle: list[str] | None, clock_mhz: float | None, temperature_c: float
) -> None:
    smi = amd_gpu(**metrics)
    smi.answers["power_cap"] = {"power_cap": 300}  # in watts, as some releases give it
    state = state_of(smi, "GPU-a")
    assert (state.throttle, state.clock_mhz, state.temperature_c) == (throttle, clock_mhz, temperature_c)
    assert state.power_limit_w == 300.0


def test_old_amd_library_samples_its_counter(repository: FileSystemRepository, clock: ManualClock) -> None:
    smi = FakeAmdSmi(["GPU-a"])
    with make_recording(repository, clock, sources=[AmdSmi(smi)], samples=True):
        clock.sleep(10)
        smi.ticks += 100_000_000
    assert evidence_of(repository).start == DeviceState()
    [trace] = load_samples(repository.store, EXPERIMENT, 0)
    assert list(trace.powers) == [pytest.approx(153.0)]


def test_thread_takes_samples_of_a_counter(repository: FileSystemRepository) -> None:
    """A processor has no present power: its power follows from the counter."""
    seen = threading.Event()
    readings = []
    source = steady_watts(50.0)
    [counter] = source.sensors
    read = counter.read

    def count() -> float:
        readings.append(read())
        if len(readings) > 20:
            seen.set()
        return readings[-1]

    source.sensors = [sensor(count)]
    arguments: dict[str, Any] = {"sources": [source], "samples": True, "interval_sec": 0.01}
    with record(EXPERIMENT, repository=repository, environ={}, **arguments):
        assert seen.wait(30)
    [trace] = load_samples(repository.store, EXPERIMENT, 0)
    assert trace.device == "package-0"
    assert len(trace.times) > 3
    assert all(earlier < later for earlier, later in pairwise(trace.times))
    assert trace.temperatures is None
    assert sorted(trace.powers)[len(trace.powers) // 2] == pytest.approx(50.0, rel=0.5)


def make_samples(clock: ManualClock, most: int) -> DeviceSamples:
    def sample() -> DeviceSample:
        return DeviceSample(100.0 + clock.now, 50.0, 1000.0, "sw_power_cap" if clock.now % 20 < 10 else "")

    return DeviceSamples(sensor(lambda: 0.0, sample=sample), most)


def test_samples_stay_bounded_and_keep_the_integral(clock: ManualClock) -> None:
    samples = make_samples(clock, 64)
    for _ in range(10_000):
        samples.take(clock)
        clock.sleep(0.1)
    trace = samples.trace(0.0)
    assert trace is not None
    assert 16 <= len(trace.times) <= 64
    assert trace.times[-1] > 900
    start, end = trace.times[0], trace.times[-1]
    integral = integrate(trace.times, trace.powers, start, end)
    assert integral is not None
    assert integral.value == pytest.approx(100 * (end - start) + (end**2 - start**2) / 2, rel=0.01)
    assert len(encode_samples([trace])) < 5_000


def test_summary_finds_a_drift_of_the_busy_gpu(clock: ManualClock) -> None:
    def sample() -> DeviceSample:
        if clock.now < 10:
            return DeviceSample(60.0, 40.0, 210.0, "gpu_idle")
        return DeviceSample(400.0, 40.0 + clock.now, 1980.0 if clock.now < 50 else 1500.0, "")

    samples = DeviceSamples(sensor(lambda: 0.0, sample=sample))
    for _ in range(90):
        samples.take(clock)
        clock.sleep(1)
    trace = samples.trace(0.0)
    assert trace is not None
    summary = summary_of(trace)
    assert (summary.clock_first_mhz, summary.clock_last_mhz) == (1980.0, 1500.0)
    assert summary.throttled is not None
    assert summary.throttled["gpu_idle"] == pytest.approx(10 / 90)
    assert (summary.temperature_max_c, summary.interval_sec) == (129.0, 1.0)


def test_failing_sample_costs_only_itself(clock: ManualClock) -> None:
    def sample() -> DeviceSample:
        if clock.now == 1:
            raise OSError(5, "Input/output error")
        return DeviceSample(clock.now)

    samples = DeviceSamples(sensor(lambda: 0.0, sample=sample))
    for _ in range(3):
        samples.take(clock)
        clock.sleep(1)
    trace = samples.trace(0.0)
    assert trace is not None
    assert list(trace.times) == [0.0, 2.0]


def test_hanging_device_delays_the_end_by_seconds_only(repository: FileSystemRepository, clock: ManualClock) -> None:
    hangs, release = threading.Event(), threading.Event()

    def state() -> None:
        if hangs.is_set():
            release.wait(60)
        raise OSError

    source = steady_watts(50.0, clock)
    source.sensors = [sensor(lambda: clock.now * 50.0, state=state)]
    with make_recording(repository, clock, sources=[source]):
        clock.sleep(10)
        hangs.set()
    release.set()
    assert load_result(repository).energy_metrics.total_energy_j == 500.0


def test_state_is_read_outside_of_the_energy_window(repository: FileSystemRepository, clock: ManualClock) -> None:
    def state() -> DeviceState:
        clock.sleep(3)
        return DeviceState(temperature_c=50.0)

    source = steady_watts(50.0, clock, state=state)
    with make_recording(repository, clock, sources=[source]):
        clock.sleep(10)
    result = load_result(repository)
    assert (result.timestamps.duration_sec, result.energy_metrics.total_energy_j) == (10.0, 500.0)
    assert (result.energy_metrics.window, clock.now) == (result.timestamps, 16.0)


def test_samples_that_cannot_be_stored_cost_only_themselves(
    repository: FileSystemRepository, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board(index=0, uuid="GPU-a")
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))], samples=True):
        clock.sleep(10)
        (repository.base_path / "raw" / EXPERIMENT / "samples-process_0.csv.gz").mkdir()
    assert load_result(repository).status == "completed"
    assert "cannot save the samples" in caplog.text


def test_checkpoint_says_that_it_has_no_samples(repository: FileSystemRepository, clock: ManualClock) -> None:
    """A killed process leaves its checkpoint, and its samples are lost."""
    board = Board(index=0, uuid="GPU-a")
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))], samples=True) as run:
        clock.sleep(10)
        run._checkpoint()
        assert "samples-process_0.csv.gz" not in file_names(repository)
        [checkpoint] = repository.recover_raw(EXPERIMENT).partials
    assert checkpoint.energy_measurement_warning == (
        "this checkpoint has no samples: they are stored at the end of the block"
    )
    assert load_result(repository).energy_measurement_warning is None


def test_run_without_a_sensor_to_sample_says_so(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, sources=["cpu_model"], w_per_core=4.0, samples=True):
        clock.sleep(1)
    assert "no samples are recorded" in (load_result(repository).energy_measurement_warning or "")
    assert file_names(repository) == ["manifest.json", "process_0.json"]

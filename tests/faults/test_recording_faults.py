"""Faults during a recording: nothing hangs, nothing leaks, and the result is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure import record
from llm_energy_measure.exceptions import ResultExistsError
from llm_energy_measure.recorder.ranks import ProcessRank
from llm_energy_measure.recorder.running import RUNNING
from llm_energy_measure.recorder.sampler import Sampler
from llm_energy_measure.recorder.sources import Settings, open_sources
from llm_energy_measure.recorder.sources.amdsmi import AmdSmi
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support.devices import Board, FakeAmdSmi, FakeNvml, HangingNvml
from tests.support.recordings import EXPERIMENT, load_result, make_recording
from tests.support.replay import ManualClock, ReplaySource, sensor, steady_watts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Driver:
    """A counter of 10 W whose readings hang from the moment on that `hangs` is set."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.hangs = threading.Event()
        self.gate = threading.Event()

    def __call__(self) -> float:
        if self.hangs.is_set():
            self.gate.wait(60)
        return self.clock.now * 10


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[Driver]:
    made = Driver(clock)
    yield made
    made.gate.set()


@pytest.mark.parametrize("at", ["begin", "energies", "end"])
def test_driver_that_hangs_delays_the_main_thread_only_for_a_time(clock: ManualClock, driver: Driver, at: str) -> None:
    hanging = sensor(driver, component="gpu", scope="device")
    sampler = Sampler([hanging], clock, interval_sec=None, patience_sec=0.05)
    if at == "begin":
        driver.hangs.set()
    sampler.begin()
    clock.now = 1.0
    sampler.take() if at != "begin" else None
    clock.now = 2.0
    driver.hangs.set()
    if at == "energies":
        assert sampler.energies().gpu is None
    sampler.end()
    [reading] = sampler.readings()
    assert reading.problems == ["sensor_lost"]
    assert reading.energy_j == (None if at == "begin" else 10.0)


def test_driver_that_hangs_at_its_start_costs_only_its_sensors() -> None:
    nvml = HangingNvml("open")
    rank = ProcessRank(process_index=0, world_size=1)
    opened = open_sources([Nvml(nvml), steady_watts(50.0)], Settings(environ={}, rank=rank, patience_sec=0.05))
    nvml.gate.set()
    assert [one.source for one in opened.sensors] == ["replay"]
    assert "the driver did not answer for 0.05 s" in str(opened.errors["nvml"])


def test_driver_that_hangs_at_its_end_delays_the_process_only_for_a_time(
    repository: FileSystemRepository, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = HangingNvml("close")
    with make_recording(repository, clock, sources=[Nvml(nvml)]):
        clock.now += 5
    assert load_result(repository).status == "completed"
    assert "cannot close the energy source nvml: TimeoutError" in caplog.text
    nvml.gate.set()


def test_checkpoints_are_made_in_their_own_thread(repository: FileSystemRepository) -> None:
    names = []

    def read() -> float:
        names.append(threading.current_thread().name)
        return 100.0

    arguments: dict[str, Any] = {"sources": [ReplaySource(sensor(read))], "interval_sec": None, "checkpoint_sec": 0.01}
    with record(EXPERIMENT, repository=repository, environ={}, **arguments):
        started, deadline = len(names), time.monotonic() + 60
        while len(names) < started + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        inside = names[started:]
    assert len(inside) >= 2
    assert set(inside) == {"llm-energy-measure-checkpoint"}


def test_changed_clock_during_the_run_keeps_duration_and_energy(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with make_recording(repository, clock, samples=True):
        clock.now += 5
        clock.wall_offset -= 7200
        clock.now += 5
    result = load_result(repository)
    assert (result.timestamps.duration_sec, result.energy_metrics.total_energy_j) == (10.0, 500.0)
    assert any(one.code.startswith("time.") for one in verify_experiment(repository, EXPERIMENT).findings)


def test_results_directory_removed_during_the_run_is_created_again(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    board = Board(index=0, uuid="GPU-a")
    with make_recording(repository, clock, sources=[Nvml(FakeNvml([board]))], samples=True) as run:
        clock.now += 5
        shutil.rmtree(repository.base_path)
        run._checkpoint()
        clock.now += 5
    assert load_result(repository).status == "completed"
    names = {path.name for path in (repository.base_path / "raw" / EXPERIMENT).iterdir()}
    assert {"process_0.json", "samples-process_0.csv.gz"} <= names


def test_second_job_with_the_id_of_a_running_job_is_refused(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    def job(number: int) -> dict[str, str]:
        return {"SLURM_JOB_ID": str(number), "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}

    with make_recording(repository, clock, environ=job(7)):
        with (
            pytest.raises(ResultExistsError, match=r"launcher job.*7.*8.*--attempt next"),
            make_recording(repository, clock, environ=job(8)),
        ):
            pytest.fail("the block must not run")
        clock.now += 10
    result = load_result(repository)
    assert result.launcher is not None
    assert (result.launcher.job_id, result.energy_metrics.total_energy_j) == ("7", 500.0)


def test_sixteen_threads_lose_no_token_and_no_request(repository: FileSystemRepository) -> None:
    with record(EXPERIMENT, repository=repository, environ={}, sources=[steady_watts(50.0)], interval_sec=0.01) as run:

        def work() -> None:
            for _ in range(50):
                with run.request(input=2) as request, run.phase("decode"):
                    request.token(3)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    inference = load_result(repository).inference_metrics
    assert inference is not None
    assert (inference.input_tokens, inference.output_tokens) == (16 * 50 * 2, 16 * 50 * 3)
    assert inference.latency_measurements is not None
    assert inference.latency_measurements.request_count == 16 * 50


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def test_sixty_recordings_in_one_process_leave_nothing(repository: FileSystemRepository) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    nvml = FakeNvml([Board(index=0, uuid="GPU-a")])

    def record_one(number: int) -> None:
        arguments: dict[str, Any] = {"sources": [Nvml(nvml)], "samples": number % 2 == 0, "checkpoint_sec": 0.01}
        with record(f"exp_{number}", repository=repository, environ={}, interval_sec=0.001, **arguments) as run:
            run.add_tokens(output=1)

    record_one(0)
    threads, files = threading.active_count(), descriptors()
    for number in range(1, 60):
        record_one(number)
    assert threading.active_count() <= threads
    assert descriptors() <= files
    assert (nvml.initialised, RUNNING, signal.getsignal(signal.SIGTERM)) == (0, set(), handler)
    left = {path.name for path in repository.base_path.rglob("*") if path.is_file()}
    assert left <= {"manifest.json", "process_0.json", "samples-process_0.csv.gz"}


def test_gpu_without_counter_does_not_drop_the_other_amd_gpus(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    """A processor with graphics next to an accelerator."""
    amd = FakeAmdSmi(["unknown-0", "GPU-b"])
    with make_recording(repository, clock, sources=[AmdSmi(amd)]):
        amd.ticks += 1_000_000
    result = load_result(repository)
    assert result.energy_metrics.total_energy_j == pytest.approx(15.3)
    assert result.gpu_uuid == "GPU-b"
    assert "AMD GPU 0 has no readable energy counter and is left out" in (result.energy_measurement_warning or "")


def run_silently(script: str, results_dir: Path) -> None:
    """Run a script in a new process. It must print no error."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", script, str(results_dir)], env=env, capture_output=True, check=True)
    assert done.stderr == b""


def test_recording_that_ends_at_exit_of_python_starts_no_thread(tmp_path: Path) -> None:
    """Python 3.12 starts no threads at its exit, where the state of the GPUs is still read."""
    script = (
        "import sys\nfrom llm_energy_measure import record\n"
        "from llm_energy_measure.recorder.sources.nvml import Nvml\n"
        "from tests.support.devices import Board, FakeNvml\n"
        "nvml = Nvml(FakeNvml([Board(index=0, uuid='GPU-a')]))\n"
        "record('exp_7', results_dir=sys.argv[1], sources=[nvml], environ={}, samples=True, idle_sec=0.01).start()\n"
    )
    run_silently(script, tmp_path)
    [result] = FileSystemRepository(tmp_path).load_all_raw(EXPERIMENT)
    assert result.status == "completed"
    assert result.energy_metrics.total_energy_j is not None


def test_process_that_takes_over_at_its_exit_saves_its_result(tmp_path: Path) -> None:
    """The sampling thread of the sensor cannot start any more."""
    script = (
        "import sys, time\nfrom llm_energy_measure import record\n"
        "from tests.support.recordings import torchrun_environ\n"
        "from tests.support.replay import steady_watts\n"
        "runs = [record('exp_7', results_dir=sys.argv[1], sources=[steady_watts(50.0)], samples=True,\n"
        "               environ=torchrun_environ(i, 2)).start() for i in range(2)]\n"
        "runs[0].stop()\ntime.sleep(0.05)\n"
    )
    run_silently(script, tmp_path)
    first, second = FileSystemRepository(tmp_path).load_all_raw(EXPERIMENT)
    assert first.clock is not None
    assert second.clock is not None
    run_sec = (second.clock.monotonic_end_sec or 0.0) - (first.clock.monotonic_start_sec or 0.0)
    parts_j = [one.energy_metrics.total_energy_j or 0.0 for one in (first, second)]
    assert min(parts_j) > 0
    assert sum(parts_j) == pytest.approx(50.0 * run_sec, rel=0.1)


class TerminatedClock(ManualClock):
    """A clock that sends SIGTERM to this process during the second idle measurement."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.now > 15:
            os.kill(os.getpid(), signal.SIGTERM)


def test_signal_ends_the_idle_measurement_after_the_block(repository: FileSystemRepository) -> None:
    """`record -- COMMAND` has a handler for SIGTERM, and a scheduler kills it soon after."""
    clock, received = TerminatedClock(), []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with make_recording(repository, clock, idle_sec=10.0):
            clock.now += 5
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert clock.now < 16
    result = load_result(repository)
    assert result.status == "completed"
    assert result.energy_metrics.total_energy_j == pytest.approx(250.0)
    assert result.energy_metrics.idle_power_end_w is None

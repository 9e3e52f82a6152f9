"""A shared sensor is handed over when its reader ends, so that uneven ranks lose and repeat no energy."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.recorder import recording
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results.aggregation import aggregate_results
from llm_energy_measure.results.store.samples import load_samples
from tests.support.children import PATIENCE_SEC
from tests.support.devices import Board, FakeNvml, Slice
from tests.support.recordings import load_result, make_recording, torchrun_environ
from tests.support.replay import ManualClock, ReplaySource, sensor, steady_watts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult
    from llm_energy_measure.recorder.recording import Recording
    from llm_energy_measure.results import FileSystemRepository


def run_until(runs: Sequence[Recording], clock: ManualClock, ends: Sequence[float]) -> None:
    """Open all recordings at once, and end each at its instant."""
    stacks = [contextlib.ExitStack() for _ in runs]
    for stack, run in zip(stacks, runs, strict=True):
        stack.enter_context(run)
    for end, stack in sorted(zip(ends, stacks, strict=True), key=lambda pair: pair[0]):
        clock.now = end
        stack.close()


def aggregate(repository: FileSystemRepository) -> AggregatedResult:
    return aggregate_results("exp_7", repository.load_all_raw("exp_7"))


def warnings_of(result: AggregatedResult) -> list[str]:
    return [text for text in result.aggregation.warnings if "energy covers" in text]


@pytest.mark.parametrize("ends", [(1.0, 6.0), (6.0, 1.0), (1.0, 3.5, 6.0), (1.0, 6.0, 3.5), (2.0, 1.0, 6.0, 6.0)])
def test_uneven_ranks_count_all_energy_once(
    repository: FileSystemRepository, clock: ManualClock, ends: Sequence[float]
) -> None:
    run_until(
        [make_recording(repository, clock, environ=torchrun_environ(i, len(ends))) for i in range(len(ends))],
        clock,
        ends,
    )
    result = aggregate(repository)
    assert result.total_energy_j == pytest.approx(300.0)
    assert result.attributed_energy_j == pytest.approx(300.0)
    assert result.is_lower_bound is False
    assert result.aggregation.warnings == []


def test_reading_after_a_handover_has_its_own_window(repository: FileSystemRepository, clock: ManualClock) -> None:
    run_until([make_recording(repository, clock, environ=torchrun_environ(i, 2)) for i in range(2)], clock, (1.0, 6.0))
    later = load_result(repository, 1)
    [reading] = later.energy_metrics.sensors or []
    assert (reading.energy_j, reading.counter_start_j, reading.counter_end_j) == (250.0, 50.0, 300.0)
    assert reading.window
    assert reading.window.start == load_result(repository, 0).timestamps.end
    assert (reading.window.duration_sec, later.timestamps.duration_sec) == (5.0, 6.0)
    assert later.energy_measurement_warning == (
        "another process read replay package-0 first; this record contains the energy of the last 5 s"
    )


def test_wrap_between_two_readers_is_counted(repository: FileSystemRepository, clock: ManualClock) -> None:
    def source() -> ReplaySource:
        return ReplaySource(sensor(lambda: (190.0 + 50 * clock.now) % 250, range_j=250.0))

    runs = [make_recording(repository, clock, environ=torchrun_environ(i, 2), sources=[source()]) for i in range(2)]
    run_until(runs, clock, (1.0, 3.0))
    assert aggregate(repository).total_energy_j == pytest.approx(150.0)


@pytest.mark.parametrize("first", [0, 1])
def test_mig_slices_of_uneven_ranks_count_once(
    repository: FileSystemRepository, clock: ManualClock, first: int
) -> None:
    slices = [Slice(uuid=f"MIG-{index}", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb") for index in range(2)]
    nvml = FakeNvml([Board(index=0, uuid="GPU-0", slices=slices)])
    runs = [
        make_recording(
            repository,
            clock,
            environ=torchrun_environ(index, 2, CUDA_VISIBLE_DEVICES=f"MIG-{index}"),
            sources=[Nvml(nvml)],
        )
        for index in range(2)
    ]
    stacks = [contextlib.ExitStack() for _ in runs]
    for stack, run in zip(stacks, runs, strict=True):
        stack.enter_context(run)
    for now, index in ((1.0, first), (6.0, 1 - first)):
        clock.now, nvml.boards[0].energy_mj = now, 1_000_000.0 + 200_000.0 * now
        stacks[index].close()
    result = aggregate(repository)
    assert result.total_energy_j == pytest.approx(1200.0)
    assert result.attributed_energy_j == pytest.approx(1200.0)
    assert (result.is_lower_bound, warnings_of(result)) == (False, [])


def test_power_without_a_reader_gives_a_stated_lower_bound(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    def source() -> ReplaySource:
        return ReplaySource(sensor(lambda: 50.0, quantity="power", provenance="integrated"))

    runs = [make_recording(repository, clock, environ=torchrun_environ(i, 2), sources=[source()]) for i in range(2)]
    run_until(runs, clock, (1.0, 6.0))  # without a thread, the second process takes over only at its end
    result = aggregate(repository)
    assert (result.total_energy_j, result.is_lower_bound) == (50.0, True)
    assert warnings_of(result) == [
        "host cpu (replay package-0) energy covers 1.0 of 6.0 s, so the total is a lower bound"
    ]


@pytest.mark.parametrize(("end", "covered"), [(1.016, "1.000 of 1.016 s"), (1.009, None)])
def test_process_that_ends_during_the_save_of_the_reader_leaves_a_gap(
    repository: FileSystemRepository, clock: ManualClock, end: float, covered: str | None
) -> None:
    """As after SIGTERM to a launcher: the reader has ended, and still holds the lock."""
    reader, second = (make_recording(repository, clock, environ=torchrun_environ(i, 2)).start() for i in range(2))
    clock.now = 1.0
    reader._session.end()
    clock.now = end
    second.stop()
    reader.stop()
    result = aggregate(repository)
    assert result.total_energy_j == pytest.approx(50.0)
    assert result.is_lower_bound is (covered is not None)
    assert warnings_of(result) == [
        f"host cpu (replay package-0) energy covers {covered}, so the total is a lower bound"
    ] * (covered is not None)


def test_process_takes_over_while_it_runs(repository: FileSystemRepository) -> None:
    runs = [
        recording.record("exp_7", environ=torchrun_environ(i, 2), repository=repository, sources=[steady_watts(50.0)])
        for i in range(2)
    ]
    reader = contextlib.ExitStack()
    reader.enter_context(runs[0])
    with runs[1]:
        time.sleep(0.1)
        reader.close()
        give_up = time.monotonic() + PATIENCE_SEC
        while not list((repository.base_path / "raw/exp_7").glob("claim-cpu*")) and time.monotonic() < give_up:
            time.sleep(0.02)
    result = aggregate(repository)
    most_j = 50.0 * (result.duration_sec or 0)
    assert result.total_energy_j is not None
    assert most_j / 3 < result.total_energy_j < most_j * 1.5  # readings may be late on a busy machine
    assert result.is_lower_bound is False


def test_samples_of_a_shared_sensor_continue_after_a_handover(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    board = Board(index=0, uuid="GPU-0")
    runs = [
        make_recording(
            repository, clock, environ=torchrun_environ(i, 2), sources=[Nvml(FakeNvml([board]))], gpus=[0], samples=True
        )
        for i in range(2)
    ]
    run_until(runs, clock, (1.0, 6.0))
    traces = [load_samples(repository.store, "exp_7", index) for index in range(2)]
    assert [list(trace.times) for [trace] in traces] == [[0.0, 1.0], [6.0]]
    later = load_result(repository, 1)
    [device] = later.energy_metrics.devices or []
    assert device.evidence
    assert device.evidence.start is None  # the record of the first reader has it
    assert device.evidence.end is not None
    assert "no samples" not in (later.energy_measurement_warning or "")


def test_process_that_reads_no_sensor_has_no_samples(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [make_recording(repository, clock, environ=torchrun_environ(i, 2), samples=True) for i in range(2)]
    run_until(runs, clock, (6.0, 6.0 - 1e-9))
    assert load_samples(repository.store, "exp_7", 1) == []
    assert "no samples" not in (load_result(repository, 1).energy_measurement_warning or "")


def test_killed_reader_leaves_its_counter_in_its_checkpoint(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    first, second = (make_recording(repository, clock, environ=torchrun_environ(i, 2)) for i in range(2))
    with first, second:
        clock.now = 2.0
        first._checkpoint()
        # As after SIGKILL: the lock of a process that no longer exists, and no result.
        lock = repository.base_path / "raw/exp_7/claim-cpu-8cb83392-1.json"
        lock.write_bytes(lock.read_bytes().replace(b'"attempt":0', b'"attempt":-1'))
        clock.now = 5.0
        second.__exit__(None, None, None)
        later = load_result(repository, 1)
    assert later.energy_metrics.total_energy_j == 150.0
    [reading] = later.energy_metrics.sensors or []
    assert reading.window
    assert reading.window.duration_sec == 3.0

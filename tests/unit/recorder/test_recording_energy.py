"""Energy of a recording: sensors, shared sensors, failing sensors and sources."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import RecorderError, ResultExistsError
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from tests.support.devices import Board, FakeNvml, Slice
from tests.support.recordings import BlockError, load_result, make_recording, torchrun_environ
from tests.support.replay import ManualClock, ReplaySource, Trace, sensor, steady_watts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.recorder.recording import Recording


@contextlib.contextmanager
def all_open(runs: Iterable[Recording]) -> Iterator[None]:
    """A block inside the blocks of several recordings."""
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(run)
        yield


def test_energy_is_unknown_without_a_sensor(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, sources=[ReplaySource(fails=True)]) as run:
        run.add_tokens(output=3)
        clock.now += 1.0
    result = load_result(repository)
    assert result.energy_metrics.total_energy_j is None
    assert result.energy_metrics.sensors is None
    assert result.energy_measurement_warning == (
        "no energy was measured: it is unknown, not zero; replay: cannot read replay: there is no trace; "
        "record a trace first"
    )
    assert aggregate_results("exp_7", [result]).is_lower_bound is True


def test_recording_inside_a_recording_names_the_outer_one(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, experiment="outer"):
        clock.now += 1.0
        with make_recording(repository, clock, experiment="inner") as inner:
            clock.now += 1.0
        with make_recording(repository, clock, experiment="tokens", sources=[]) as tokens:
            clock.now += 1.0
    with make_recording(repository, clock, experiment="later") as later:
        clock.now += 1.0
    warnings = [None if one.result is None else one.result.energy_measurement_warning for one in (inner, tokens, later)]
    assert warnings == [
        "experiment 'outer' also measures the energy of this process, so do not add both energies",
        *(None, None),
    ]


def test_require_energy_refuses_to_run_without_a_sensor(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(RecorderError, match="cannot record 'exp_7' with energy: .*there is no trace"),
        make_recording(repository, clock, sources=[ReplaySource(fails=True)], require_energy=True),
    ):
        pytest.fail("the block must not run")
    assert not repository.base_path.exists()


def test_one_process_reads_the_sensors_of_the_host(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [make_recording(repository, clock, environ=torchrun_environ(index, 3)) for index in range(3)]
    with all_open(runs):
        clock.now += 4.0
    results = repository.load_all_raw("exp_7")
    assert [result.energy_metrics.total_energy_j for result in results] == [200.0, None, None]
    assert results[1].energy_measurement_warning == (
        "replay package-0 is read elsewhere: by another process, or for another slice of its board"
    )
    assert results[1].energy_metrics.sensors is not None
    assert results[1].energy_metrics.sensors[0].problems == ["claimed"]
    aggregated = aggregate_results("exp_7", results)
    assert (aggregated.total_energy_j, aggregated.is_lower_bound) == (200.0, False)
    assert (aggregated.attributed_energy_j, aggregated.attribution_factor) == (200.0, 1.0)
    assert aggregated.aggregation.warnings == []


def gpu(clock: ManualClock, uuid: str, index: int, **changes: Any) -> ReplaySource:
    device = DeviceEnergy(gpu_id=index, gpu_uuid=uuid, gpu_name="NVIDIA A100", gpu_power_limit_w=250.0)
    return steady_watts(
        200.0, clock, component="gpu", scope="device", instance=uuid, device=device, source="nvml", **changes
    )


def test_each_process_reads_its_own_gpu(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [
        make_recording(
            repository,
            clock,
            environ=torchrun_environ(i, 2),
            sources=[gpu(clock, f"GPU-{i}", i), steady_watts(50.0, clock)],
        )
        for i in range(2)
    ]
    with all_open(runs):
        clock.now += 1.0
    first, second = repository.load_all_raw("exp_7")
    assert (first.energy_metrics.gpu_energy_j, first.energy_metrics.cpu_energy_j) == (200.0, 50.0)
    assert (first.energy_metrics.total_energy_j, first.energy_metrics.total_scope) == (250.0, None)
    assert (second.energy_metrics.gpu_energy_j, second.energy_metrics.cpu_energy_j) == (200.0, None)
    assert (second.gpu_uuid, second.gpu_id, second.gpu_power_limit_w, second.gpu_is_mig) == ("GPU-1", 1, 250.0, False)
    aggregated = aggregate_results("exp_7", [first, second])
    assert (aggregated.total_energy_j, aggregated.is_lower_bound) == (450.0, False)
    assert (aggregated.attributed_energy_j, aggregated.attribution_factor) == (450.0, 1.0)
    assert aggregated.aggregation.gpu_attribution_verified


def test_first_process_reports_unused_gpus(repository: FileSystemRepository, clock: ManualClock) -> None:
    boards = [Board(index=index, uuid=f"GPU-{index}") for index in range(4)]
    for index in range(2):
        with make_recording(repository, clock, environ=torchrun_environ(index, 2), sources=[Nvml(FakeNvml(boards))]):
            clock.now += 1.0
    first, second = repository.load_all_raw("exp_7")
    assert (first.gpu_uuid, second.gpu_uuid) == ("GPU-0", "GPU-1")
    assert first.energy_measurement_warning == (
        "no process of this host reads GPU 2, 3: the host has more GPUs than processes, and each process reads the GPU "
        "of its local rank; select other GPUs with gpus=[...] (--gpu)"
    )
    assert second.energy_measurement_warning is None


def test_gpu_of_two_processes_counts_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [
        make_recording(repository, clock, environ=torchrun_environ(i, 2), sources=[gpu(clock, "GPU-0", 0)])
        for i in range(2)
    ]
    with all_open(runs):
        clock.now += 1.0
    aggregated = aggregate_results("exp_7", repository.load_all_raw("exp_7"))
    assert (aggregated.total_energy_j, aggregated.attributed_energy_j) == (200.0, 200.0)


def test_board_of_two_slices_counts_once(repository: FileSystemRepository, clock: ManualClock) -> None:
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
    with all_open(runs):
        clock.now += 1.0
        nvml.boards[0].energy_mj = 1_200_000.0
    first, second = repository.load_all_raw("exp_7")
    assert (first.gpu_uuid, first.gpu_mig_profile, first.gpu_is_mig) == ("MIG-0", "3g.20gb", True)
    assert (second.gpu_uuid, second.energy_metrics.gpu_energy_j) == ("MIG-1", None)
    aggregated = aggregate_results("exp_7", [first, second])
    assert (aggregated.total_energy_j, aggregated.attributed_energy_j) == (200.0, 200.0)


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [
        ("MIG-0,MIG-1", None, "MIG-0"),
        ("0", ["0", "0"], "GPU-0"),
        ("0", ["0", "GPU-0"], "GPU-0"),
    ],
)
def test_board_that_one_process_sees_twice_counts_once(
    repository: FileSystemRepository, clock: ManualClock, visible: str, gpus: list[str] | None, expected: str
) -> None:
    slices = [Slice(uuid=f"MIG-{index}", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb") for index in range(2)]
    nvml = FakeNvml([Board(index=0, uuid="GPU-0", slices=slices)])
    with make_recording(repository, clock, environ={"CUDA_VISIBLE_DEVICES": visible}, gpus=gpus, sources=[Nvml(nvml)]):
        clock.now += 1.0
        nvml.boards[0].energy_mj = 1_200_000.0
    energy = load_result(repository).energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j) == (200.0, 200.0)
    assert energy.sensors is not None
    assert [(reading.energy_j, reading.problems) for reading in energy.sensors] == [(200.0, []), (None, ["claimed"])]
    assert energy.devices is not None
    assert [device.gpu_uuid for device in energy.devices] == [expected]


def test_first_source_of_a_component_is_used(repository: FileSystemRepository, clock: ManualClock) -> None:
    other = steady_watts(70.0, clock, source="other", instance="x")
    memory = steady_watts(5.0, clock, component="ram", instance="dram-0")
    with make_recording(repository, clock, sources=[steady_watts(50.0, clock), other, memory]):
        clock.now += 1.0
    energy = load_result(repository).energy_metrics
    assert (energy.cpu_energy_j, energy.ram_energy_j, energy.total_energy_j) == (50.0, 5.0, 55.0)


def test_total_has_the_weakest_provenance(repository: FileSystemRepository, clock: ManualClock) -> None:
    memory = ReplaySource(sensor(lambda: clock.now * 5, component="ram", provenance="modelled", instance="dram"))
    with make_recording(repository, clock, sources=[steady_watts(50.0, clock), memory]):
        clock.now += 1.0
    energy = load_result(repository).energy_metrics
    assert (energy.total_provenance, energy.cpu_provenance, energy.ram_provenance) == (
        "modelled",
        "measured",
        "modelled",
    )
    assert load_result(repository).energy_measurement_warning == "ram energy is modelled, not measured (replay dram)"


def test_idle_power_is_not_part_of_the_total(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock, idle_sec=3.0):
        clock.now += 1.0
    energy = load_result(repository).energy_metrics
    assert energy.idle_power_w == pytest.approx(50.0)
    assert energy.total_energy_j == pytest.approx(50.0)


def test_idle_power_is_measured_before_and_after(repository: FileSystemRepository, clock: ManualClock) -> None:
    def power() -> float:
        return 40.0 if clock.now < 9.5 else 100.0 if clock.now < 19.5 else 44.0

    source = ReplaySource(sensor(power, quantity="power", provenance="integrated"))
    with make_recording(repository, clock, sources=[source], idle_sec=10.0) as run:
        clock.sleep(10)
        run.add_tokens(output=5)
    assert clock.now == pytest.approx(30.0)
    result = load_result(repository)
    energy = result.energy_metrics
    assert result.timestamps.duration_sec == energy.duration_sec == pytest.approx(10.0)
    assert energy.idle_power_w == pytest.approx(70.0)  # the trapezoid of 40 W and 100 W
    assert energy.idle_power_end_w == pytest.approx(44.0)
    assert energy.total_energy_j == pytest.approx((100.0 + 44.0) / 2 * 10)
    assert energy.idle_adjusted_energy_j == pytest.approx(720.0 - (70.0 + 44.0) / 2 * 10)


def test_failed_run_has_no_idle_measurement_at_its_end(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(BlockError),
        make_recording(repository, clock, sources=[steady_watts(50.0, clock)], idle_sec=10.0),
    ):
        raise BlockError
    assert clock.now == pytest.approx(10.0)
    assert load_result(repository).energy_metrics.idle_power_end_w is msgspec.UNSET


class InterruptedClock(ManualClock):
    """A clock with Ctrl-C in the idle measurement after the block."""

    def sleep(self, seconds: float) -> None:
        if self.now > 15:
            raise KeyboardInterrupt
        super().sleep(seconds)


def test_interrupt_of_the_idle_measurement_keeps_the_result(repository: FileSystemRepository) -> None:
    clock = InterruptedClock()
    run = make_recording(repository, clock, idle_sec=10.0).start()
    clock.now += 10
    with pytest.raises(KeyboardInterrupt):
        run.stop()
    result = load_result(repository)
    assert result.status == "completed"
    assert result.energy_metrics.total_energy_j == pytest.approx(500.0)


def test_idle_power_is_unknown_if_the_first_reading_fails(repository: FileSystemRepository, clock: ManualClock) -> None:
    late = ReplaySource(sensor(Trace(clock, [(0.0, None), (3.0, 100.0), (4.0, 150.0)])))
    with make_recording(repository, clock, idle_sec=3.0, sources=[late]):
        clock.now += 1.0
    energy = load_result(repository).energy_metrics
    assert (energy.idle_power_w, energy.total_energy_j) == (None, 50.0)


def test_sensor_that_fails_during_the_run_is_recorded(repository: FileSystemRepository, clock: ManualClock) -> None:
    dying = ReplaySource(sensor(Trace(clock, [(0.0, 100.0), (1.0, 150.0), (1.5, None)])))
    with make_recording(repository, clock, sources=[dying]) as run:
        clock.now += 1.0
        with run.phase("decode"):
            clock.now += 1.0
    result = load_result(repository)
    assert result.status == "completed"
    assert result.energy_metrics.total_energy_j == 50.0
    assert result.phases is not None
    assert result.phases[0].total_energy_j is None
    assert result.energy_measurement_warning == (
        "replay package-0 could not be read at the start or at the end; the energy of that time is missing "
        "(OSError: [Errno 5] Input/output error)"
    )
    aggregated = aggregate_results("exp_7", [result])
    assert aggregated.is_lower_bound is True
    assert any("was lost within the window" in warning for warning in aggregated.aggregation.warnings)


def test_sampled_power_names_its_rate(repository: FileSystemRepository, clock: ManualClock) -> None:
    sampled = ReplaySource(sensor(lambda: 120.0, quantity="power", provenance="integrated"))
    with make_recording(repository, clock, sources=[sampled]) as run:
        for _ in range(5):
            clock.now += 0.5
            with run.phase("decode"):
                pass
    result = load_result(repository)
    assert result.energy_metrics.total_energy_j == pytest.approx(300.0)
    assert result.energy_measurement_warning is not None
    assert "cpu energy is integrated from power samples at " in result.energy_measurement_warning


def test_lost_gpu_does_not_end_the_run(repository: FileSystemRepository, clock: ManualClock) -> None:
    nvml = FakeNvml([Board(index=0, uuid="GPU-0")])
    with make_recording(repository, clock, sources=[Nvml(nvml)]):
        nvml.boards[0].is_lost = True
    result = load_result(repository)
    assert (result.status, result.gpu_uuid, result.energy_metrics.gpu_energy_j) == ("completed", "GPU-0", None)
    assert result.energy_measurement_warning == (
        "nvml GPU-0 could not be read at the start or at the end; the energy of that time is missing "
        "(NVMLError: GPU is lost)"
    )


def test_source_with_a_bug_costs_only_its_sensors(repository: FileSystemRepository, clock: ManualClock) -> None:
    class Broken(ReplaySource):
        name = "broken"

        def open(self, setting: object) -> list[Any]:
            raise ZeroDivisionError(setting.__class__.__name__)

    with make_recording(repository, clock, sources=[Broken(), steady_watts(50.0, clock)]):
        clock.now += 1.0
    assert load_result(repository).energy_metrics.total_energy_j == 50.0


def test_server_energy_and_client_tokens_combine(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        make_recording(repository, clock, process_index=0, world_size=2, backend="vllm"),
        make_recording(repository, clock, process_index=1, world_size=2, sources=[]) as client,
    ):
        clock.now += 4.0
        client.add_tokens(input=10, output=30)
    server, client_result = repository.load_all_raw("exp_7")
    assert client_result.energy_metrics.sensors == []
    assert client_result.energy_measurement_warning is None
    assert server.inference_metrics is None
    aggregated = aggregate_results("exp_7", [server, client_result], strict=True)
    assert (aggregated.total_energy_j, aggregated.total_tokens) == (200.0, 40)
    assert (aggregated.is_lower_bound, aggregated.avg_energy_per_token_j) == (False, 5.0)


def test_source_is_closed_after_a_run_and_after_a_refusal(repository: FileSystemRepository, clock: ManualClock) -> None:
    source = steady_watts(50.0, clock)
    with make_recording(repository, clock, sources=[source]):
        assert source.is_open
    assert not source.is_open
    with pytest.raises(ResultExistsError), make_recording(repository, clock, sources=[source]):
        pytest.fail("the block must not run")
    assert not source.is_open


class Lost(ReplaySource):
    def close(self) -> None:
        raise RuntimeError("GPU is lost")


def test_source_that_fails_to_close_costs_nothing(
    repository: FileSystemRepository, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with make_recording(repository, clock, sources=[Lost(sensor(lambda: clock.now)), steady_watts(5.0, clock)]):
        clock.now += 1.0
    assert load_result(repository).status == "completed"
    assert "cannot close the energy source replay: RuntimeError: GPU is lost" in caplog.text
    with (
        pytest.raises(BlockError),
        make_recording(repository, clock, experiment="other", sources=[Lost(sensor(lambda: 1.0))]),
    ):
        raise BlockError


def test_lost_gpu_of_eight_makes_a_lower_bound(repository: FileSystemRepository, clock: ManualClock) -> None:
    nvml = FakeNvml([Board(index=index, uuid=f"GPU-{index}") for index in range(8)])
    nvml.boards[3].is_lost = True
    with make_recording(repository, clock, sources=[Nvml(nvml)]):
        clock.now += 1.0
        for board in nvml.boards:
            board.energy_mj = 1_100_000.0
    result = load_result(repository)
    assert result.energy_metrics.gpu_energy_j == pytest.approx(700.0)
    assert result.energy_metrics.is_lower_bound
    assert "nvml 3 could not be read" in (result.energy_measurement_warning or "")


def test_run_without_a_sensor_says_so_at_the_start(
    repository: FileSystemRepository, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_recording(repository, clock, sources=[ReplaySource(fails=True)]):
        assert capsys.readouterr().err == (
            "warning: exp_7: no energy sensor works here, so the energy of this run is unknown; "
            "run 'llm-energy-measure doctor' for the reasons, or state the power of a CPU core with --w-per-core "
            "(w_per_core); --require-energy (require_energy=True) refuses such a run\n"
        )
    with make_recording(repository, clock, experiment="other", sources=[]):
        assert capsys.readouterr().err == ""


def test_one_sentence_names_all_sensors_with_one_problem(repository: FileSystemRepository, clock: ManualClock) -> None:
    packages = [sensor(lambda: clock.now, instance=f"package-{index}") for index in range(2)]
    runs = [
        make_recording(repository, clock, environ=torchrun_environ(i, 2), sources=[ReplaySource(*packages)])
        for i in range(2)
    ]
    with all_open(runs):
        clock.now += 1.0
    assert load_result(repository, 1).energy_measurement_warning == (
        "replay package-0, replay package-1 is read elsewhere: by another process, or for another slice of its board"
    )


def test_energy_so_far_rises_during_the_run(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = make_recording(repository, clock)
    assert run.energy_j is None
    with run:
        assert run.energy_j == 0.0
        clock.now += 2.0
        assert run.energy_j == 100.0
        clock.now += 1.0
    assert run.energy_j == 150.0
    with make_recording(repository, clock, experiment="other", sources=[]) as other:
        assert other.energy_j is None

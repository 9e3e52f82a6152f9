"""`record`: a block becomes one raw result, whatever happens inside."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_energy_measure
from llm_energy_measure import record
from llm_energy_measure.domain.metrics import DeviceEnergy
from llm_energy_measure.exceptions import (
    ConfigurationError,
    InvalidResultError,
    RecorderError,
    ResultExistsError,
    StorageError,
)
from llm_energy_measure.recorder import facts
from llm_energy_measure.recorder.sources.nvml import Nvml
from llm_energy_measure.results import FileSystemRepository, aggregate_one, aggregate_results
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.memory import MemoryStore
from tests.support.children import open_folder, outcome_in_child
from tests.support.devices import Board, FakeNvml, Slice
from tests.support.replay import START_WALL, ManualClock, OtherMachineClock, ReplaySource, Trace, sensor, steady_watts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.recorder.recording import Recording


__all__ = ["open_folder"]  # a fixture


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return FileSystemRepository(tmp_path / "results")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def ranks(index: int, count: int, **more: str) -> dict[str, str]:
    """What torchrun tells a process, all on one host."""
    told = {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index), "LOCAL_WORLD_SIZE": str(count)}
    return {**told, **more}


def made(repository: FileSystemRepository, clock: ManualClock, **changes: Any) -> Recording:
    """A recording with no thread, of a source of 50 W, unless told otherwise."""
    options: dict[str, Any] = {
        "model_name": "m",
        "environ": {},
        "repository": repository,
        "clock": clock,
        "sources": [steady_watts(50.0, clock)],
        "interval_sec": None,
        "checkpoint_sec": None,
        **changes,
    }
    return record(options.pop("experiment", "exp_7"), **options)


def names(repository: FileSystemRepository) -> list[str]:
    return sorted(path.name for path in (repository.base_path / "raw" / "exp_7").iterdir())


def saved(repository: FileSystemRepository, index: int = 0) -> RawProcessResult:
    return repository.load_raw(repository.base_path / "raw" / "exp_7" / f"process_{index}.json")


def test_a_block_becomes_one_result(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock, config={"config_name": "base", "batch": 4}) as run:
        assert names(repository) == [
            "claim-cpu-" + names(repository)[0][10:],
            "claim-process_0-1.json",
            "manifest.json",
        ]
        clock.now += 2.0
        run.add_tokens(input=10, output=30)
        clock.now += 2.0
    assert names(repository) == ["manifest.json", "process_0.json"]
    result = saved(repository)
    assert result == run.result
    assert run.path == repository.base_path / "raw" / "exp_7" / "process_0.json"
    assert (result.status, result.error_type, result.config_name) == ("completed", None, "base")
    assert result.effective_config == {"config_name": "base", "batch": 4}
    energy, work = result.energy_metrics, result.inference_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j, energy.ram_energy_j) == (
        200.0,
        200.0,
        None,
        None,
    )
    assert (energy.total_scope, energy.total_provenance, energy.cpu_power_w) == ("host", "measured", 50.0)
    assert energy.energy_per_token_j == 5.0
    assert energy.window == result.timestamps
    assert result.timestamps.duration_sec == 4.0
    assert result.timestamps.start == datetime.fromtimestamp(START_WALL, UTC)
    assert work is not None
    assert (work.total_tokens, work.tokens_per_second, work.inference_time_sec) == (40, 10.0, 4.0)
    manifest = repository.load_manifest("exp_7")
    assert manifest is not None
    assert (manifest.expected_processes, manifest.attempt) == (1, 0)
    assert manifest.config_digest is not None
    assert aggregate_one(repository, "exp_7").result == "aggregated"


def test_the_environment_tells_which_process_it_is(repository: FileSystemRepository, clock: ManualClock) -> None:
    for index in (1, 0):
        with made(repository, clock, environ=ranks(index, 2, TORCHELASTIC_RUN_ID="job")) as run:
            assert (run.place.process_index, run.place.world_size) == (index, 2)
    assert saved(repository, 1).world_size == 2
    launcher = saved(repository, 1).launcher
    assert launcher is not None
    assert (launcher.name, launcher.job_id, launcher.local_rank) == ("torchrun", "job", 1)


def test_the_clocks_are_evidence_and_a_wall_clock_that_is_set_back_harms_nothing(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock):
        clock.now += 10.0
        clock.wall_offset -= 3600.0
    result = saved(repository)
    assert result.timestamps.span is not None
    assert (result.timestamps.span[1] - result.timestamps.span[0]).total_seconds() == 10.0
    assert result.clock is not None
    assert (result.clock.wall_start_sec, result.clock.wall_end_sec) == (START_WALL, START_WALL - 3590.0)
    assert (result.clock.monotonic_start_sec, result.clock.monotonic_end_sec) == (0.0, 10.0)


# How it ends


class TiredError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (TiredError("x"), "failed", "TiredError"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit"),
        (SystemExit(0), "completed", None),
        (SystemExit(), "completed", None),
    ],
)
def test_an_exception_saves_what_was_measured_and_goes_on_up(
    repository: FileSystemRepository, clock: ManualClock, error: BaseException, status: str, error_type: str | None
) -> None:
    def block(run: Recording) -> None:
        clock.now += 2.0
        run.add_tokens(output=3)
        raise error

    with pytest.raises(type(error)) as raised, made(repository, clock) as run:
        block(run)
    assert raised.value is error
    result = saved(repository)
    assert (result.status, result.error_type) == (status, error_type)
    assert result.energy_metrics.total_energy_j == 100.0
    assert names(repository) == ["manifest.json", "process_0.json"]


def test_a_task_that_is_cancelled_is_interrupted(repository: FileSystemRepository, clock: ManualClock) -> None:
    async def work() -> None:
        with made(repository, clock):
            await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert (saved(repository).status, saved(repository).error_type) == ("interrupted", "CancelledError")


def test_a_failure_that_raises_nothing_can_be_marked(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run:
        run.mark("failed", "exit status 3")
    assert (saved(repository).status, saved(repository).error_type) == ("failed", "exit status 3")


def test_what_cannot_be_saved_is_told_beside_the_exception(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    def block() -> None:
        clock.now -= 1.0  # a clock that never goes back
        raise TiredError

    with pytest.raises(TiredError) as raised, made(repository, clock):
        block()
    assert "could not be saved" in raised.value.__notes__[0]
    assert "rejected-process_0-1.json" in raised.value.__notes__[0]


def test_what_cannot_be_saved_is_an_error_of_its_own_and_at_hand(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    run = made(repository, clock)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(InvalidResultError))
        stack.enter_context(run)
        run.add_tokens(output=7)
        clock.now -= 1.0
    assert names(repository) == ["manifest.json", "rejected-process_0-1.json"]
    assert run.result is not None
    assert run.result.inference_metrics is not None
    assert (run.result.inference_metrics.output_tokens, run.path) == (7, None)


def test_a_recording_serves_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = made(repository, clock)
    with run:
        pass
    with pytest.raises(RecorderError, match="was used before; make a new one"), run:
        pass


@pytest.mark.parametrize(
    "use", [lambda run: run.add_tokens(output=1), lambda run: run.request(), lambda run: run.phase("decode")]
)
def test_who_counts_outside_the_block_is_told(
    repository: FileSystemRepository, clock: ManualClock, use: Callable[[Recording], object]
) -> None:
    run = made(repository, clock)
    with pytest.raises(RecorderError, match="its block has not begun; count inside the block"):
        use(run)
    with run:
        use(run)
    with pytest.raises(RecorderError, match="its block has ended"):
        use(run)


# Phases and requests


def test_phases_are_parts_of_the_whole(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run:
        with run.phase("load"):
            clock.now += 10.0
        for _ in range(2):
            with run.phase("prefill"):
                clock.now += 1.0
                run.add_tokens(input=100, output=1)
            with run.phase("decode"):
                clock.now += 3.0
                run.add_tokens(output=9)
                with run.phase("decode"):  # again, while it is open: it goes on
                    clock.now += 1.0
    result = saved(repository)
    assert result.phases is not None
    found = {
        phase.name: (
            phase.occurrences,
            phase.duration_sec,
            phase.total_energy_j,
            phase.input_tokens,
            phase.output_tokens,
        )
        for phase in result.phases
    }
    assert found == {
        "load": (1, 10.0, 500.0, 0, 0),
        "prefill": (2, 2.0, 100.0, 200, 2),
        "decode": (4, 8.0, 400.0, 0, 18),
    }
    assert result.energy_metrics.total_energy_j == 1000.0
    assert result.inference_metrics is not None
    assert result.inference_metrics.inference_time_sec == 10.0  # without loading, in which no token was counted


def test_loading_within_warming_up_is_left_out_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run:
        with run.phase("warmup"):
            clock.now += 1.0
            with run.phase("load"):
                clock.now += 3.0
            clock.now += 1.0
        clock.now += 2.0
        run.add_tokens(output=10)
    work = saved(repository).inference_metrics
    assert work is not None
    assert (work.inference_time_sec, work.tokens_per_second) == (2.0, 5.0)


def test_phases_within_a_request_have_its_tokens(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run, run.request() as request:
        with run.phase("prefill"):
            request.token()
        with run.phase("decode"):
            request.token(9)
    result = saved(repository)
    assert result.phases is not None
    assert [(phase.name, phase.output_tokens) for phase in result.phases] == [("prefill", 1), ("decode", 9)]


def test_a_phase_of_which_a_part_is_unknown_is_unknown(repository: FileSystemRepository, clock: ManualClock) -> None:
    busy = ReplaySource(sensor(Trace(clock, [(0.0, 100.0), (1.0, 150.0), (2.0, None), (3.0, 250.0), (4.0, 300.0)])))
    with made(repository, clock, sources=[busy]) as run:
        for _ in range(4):
            with run.phase("decode"):
                clock.now += 1.0
        with run.phase("end"):
            clock.now += 1.0
    result = saved(repository)
    assert result.phases is not None
    assert [phase.total_energy_j for phase in result.phases] == [None, 0.0]
    assert result.energy_metrics.total_energy_j == 200.0


@given(
    spans=st.lists(
        st.tuples(st.sampled_from(["prefill", "decode", None]), st.floats(0.001, 100.0), st.integers(0, 1000)),
        min_size=1,
        max_size=30,
    )
)
def test_phases_that_follow_one_another_add_up_to_what_is_left(
    spans: list[tuple[str | None, float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Energy, time and tokens of the phases and of the time outside them are those of the whole."""
    repository, clock = FileSystemRepository(tmp_path_factory.mktemp("phases")), ManualClock()
    outside = [0.0, 0]
    with made(repository, clock) as run:
        for name, seconds, tokens in spans:
            with run.phase(name) if name else contextlib.nullcontext():
                clock.now += seconds
                run.add_tokens(output=tokens)
            if name is None:
                outside = [outside[0] + seconds, outside[1] + tokens]
    result = saved(repository)
    phases = result.phases or []
    whole = result.energy_metrics
    assert whole.total_energy_j is not None
    energy_j = sum(phase.total_energy_j or 0.0 for phase in phases)
    assert energy_j + 50.0 * outside[0] == pytest.approx(whole.total_energy_j, rel=1e-9)
    assert sum(phase.duration_sec or 0.0 for phase in phases) + outside[0] == pytest.approx(
        whole.duration_sec, rel=1e-9
    )
    if result.inference_metrics is not None:
        assert sum(phase.output_tokens or 0 for phase in phases) + outside[1] == result.inference_metrics.output_tokens


def test_a_phase_in_which_it_failed_is_recorded(repository: FileSystemRepository, clock: ManualClock) -> None:
    def block() -> None:
        clock.now += 3.0
        raise TiredError

    with pytest.raises(TiredError), made(repository, clock) as run, run.phase("decode"):
        block()
    result = saved(repository)
    assert result.phases is not None
    assert (result.phases[0].duration_sec, result.phases[0].total_energy_j) == (3.0, 150.0)
    assert result.phases[0].output_tokens is None  # nobody counted any in the whole run


def test_requests_give_latencies_and_leave_the_tokens_to_the_count(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock) as run:
        with run.phase("warmup"), run.request() as request:
            request.token()
        with run.request() as request:
            clock.now += 0.25
            request.token()
            clock.now += 0.25
            request.token()
        run.add_tokens(input=5, output=3)
    work = saved(repository).inference_metrics
    assert work is not None
    assert work.latency_measurements is not None
    assert (work.input_tokens, work.output_tokens) == (5, 3)
    assert (work.latency_measurements.ttft_ms, work.latency_measurements.warmup_requests_excluded) == ([250.0], 1)
    assert work.time_to_first_token_ms == 250.0


def test_where_nobody_counted_the_tokens_of_requests_stand_for_the_generated_ones(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock) as run, run.phase("decode"), run.request() as request:
        clock.now += 1.0
        request.token(4)
    result = saved(repository)
    assert result.inference_metrics is not None
    assert (result.inference_metrics.input_tokens, result.inference_metrics.output_tokens) == (0, 4)
    assert result.config_warnings == [
        "no prompt tokens were counted: input_tokens is 0, and total_tokens are the generated ones"
    ]


def test_who_counts_nothing_has_no_inference_metrics(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock):
        clock.now += 1.0
    result = saved(repository)
    assert result.inference_metrics is None
    assert result.config_warnings == []


def test_flops_by_parameters_or_by_a_given_number(repository: FileSystemRepository, clock: ManualClock) -> None:
    for index, said in enumerate(
        ({"parameters": 1e9}, {"parameters": 1e9, "flops_total": 7e12, "flops_method": "profiler"})
    ):
        with made(repository, clock, environ=ranks(index, 2)) as run:
            clock.now += 2.0
            run.add_tokens(input=10, output=10)
            run.describe_model(precision="float16", **said)  # type: ignore[arg-type]  # numbers and a name
    estimated, given = (saved(repository, index).compute_metrics for index in range(2))
    assert estimated is not None
    assert given is not None
    assert (estimated.flops_total, estimated.flops_method, estimated.flops_confidence) == (
        4e10,
        "parameter_estimate",
        "low",
    )
    assert (estimated.flops_per_second, estimated.flops_per_token) == (2e10, 2e9)
    assert (given.flops_total, given.flops_method, given.flops_confidence) == (7e12, "profiler", None)
    assert given.compute_precision == "float16"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"parameters": "135M"}, "parameters is '135M'; choose a number above 0"),
        ({"parameters": 0}, "parameters is 0"),
        ({"precision": object()}, "precision is <object"),
        ({"precision": ""}, "precision is ''"),
        ({"flops_total": float("nan")}, "flops_total is nan; choose 0 or more"),
        ({"flops_total": 10**400}, "flops_total is 1000"),
        ({"memory_mb": "3"}, ": memory_mb is '3'"),
        ({"flops_method": 3}, "flops_method is 3; give a text"),
        ({"flops_confidence": "sure"}, "flops_confidence is 'sure'; choose from high, medium, low"),
    ],
)
def test_what_cannot_describe_a_model_is_told_at_once_and_costs_nothing(
    repository: FileSystemRepository, clock: ManualClock, said: dict[str, Any], told: str
) -> None:
    with made(repository, clock) as run, pytest.raises(ConfigurationError, match=told):
        run.describe_model(**{"precision": "int8", **said})
    assert saved(repository).compute_metrics is None


def test_an_odd_phase_or_end_is_told_at_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run:
        with pytest.raises(ConfigurationError, match="its name is 3; give a text"):
            run.phase(3)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(ConfigurationError, match="status is 'partial'; choose from completed, failed, interrupted"):
            run.mark("partial")
    assert (saved(repository).phases, saved(repository).status) == (None, "completed")


# Energy


def test_without_a_sensor_energy_is_unknown_and_says_so(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock, sources=[ReplaySource(refuses=True)]) as run:
        run.add_tokens(output=3)
        clock.now += 1.0
    result = saved(repository)
    assert result.energy_metrics.total_energy_j is None
    assert result.energy_metrics.sensors is None
    assert result.energy_measurement_warning == (
        "no energy was measured, it is unknown and not zero; replay: cannot read replay: there is nothing to replay; "
        "record something first"
    )
    assert aggregate_results("exp_7", [result]).is_lower_bound is True


def test_no_sensor_is_refused_where_energy_is_required(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(RecorderError, match="cannot record 'exp_7' with energy: .*there is nothing to replay"),
        made(repository, clock, sources=[ReplaySource(refuses=True)], require_energy=True),
    ):
        pytest.fail("the block must not run")
    assert not repository.base_path.exists()


def test_one_process_a_host_reads_what_sees_the_host(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [made(repository, clock, environ=ranks(index, 3)) for index in range(3)]
    for run in runs:
        run.__enter__()
    clock.now += 4.0
    for run in reversed(runs):
        run.__exit__(None, None, None)
    results = repository.load_all_raw("exp_7")
    assert [result.energy_metrics.total_energy_j for result in results] == [200.0, None, None]
    assert results[1].energy_measurement_warning == (
        "replay package-0 is counted elsewhere: by another process, or with another slice of its board"
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
        made(repository, clock, environ=ranks(i, 2), sources=[gpu(clock, f"GPU-{i}", i), steady_watts(50.0, clock)])
        for i in range(2)
    ]
    for run in runs:
        run.__enter__()
    clock.now += 1.0
    for run in runs:
        run.__exit__(None, None, None)
    first, second = repository.load_all_raw("exp_7")
    assert (first.energy_metrics.gpu_energy_j, first.energy_metrics.cpu_energy_j) == (200.0, 50.0)
    assert (first.energy_metrics.total_energy_j, first.energy_metrics.total_scope) == (250.0, None)
    assert (second.energy_metrics.gpu_energy_j, second.energy_metrics.cpu_energy_j) == (200.0, None)
    assert (second.gpu_uuid, second.gpu_id, second.gpu_power_limit_w, second.gpu_is_mig) == ("GPU-1", 1, 250.0, False)
    aggregated = aggregate_results("exp_7", [first, second])
    assert (aggregated.total_energy_j, aggregated.is_lower_bound) == (450.0, False)
    assert (aggregated.attributed_energy_j, aggregated.attribution_factor) == (450.0, 1.0)
    assert aggregated.aggregation.gpu_attribution_verified


def test_gpus_that_no_process_reads_are_told_by_one(repository: FileSystemRepository, clock: ManualClock) -> None:
    boards = [Board(index=index, uuid=f"GPU-{index}") for index in range(4)]
    for index in range(2):
        with made(repository, clock, environ=ranks(index, 2), sources=[Nvml(FakeNvml(boards))]):
            clock.now += 1.0
    first, second = repository.load_all_raw("exp_7")
    assert (first.gpu_uuid, second.gpu_uuid) == ("GPU-0", "GPU-1")
    assert first.energy_measurement_warning == (
        "no process of this host reads GPU 2, 3: there are more than processes, and each reads the one of its local "
        "rank; gpus=[...] names others"
    )
    assert second.energy_measurement_warning is None


def test_two_processes_on_one_gpu_count_it_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    runs = [made(repository, clock, environ=ranks(i, 2), sources=[gpu(clock, "GPU-0", 0)]) for i in range(2)]
    for run in runs:
        run.__enter__()
    clock.now += 1.0
    for run in runs:
        run.__exit__(None, None, None)
    aggregated = aggregate_results("exp_7", repository.load_all_raw("exp_7"))
    assert (aggregated.total_energy_j, aggregated.attributed_energy_j) == (200.0, 200.0)


def test_two_slices_of_one_board_count_it_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    slices = [Slice(uuid=f"MIG-{index}", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb") for index in range(2)]
    nvml = FakeNvml([Board(index=0, uuid="GPU-0", slices=slices)])
    runs = [
        made(repository, clock, environ=ranks(index, 2, CUDA_VISIBLE_DEVICES=f"MIG-{index}"), sources=[Nvml(nvml)])
        for index in range(2)
    ]
    for run in runs:
        run.__enter__()
    clock.now += 1.0
    nvml.boards[0].energy_mj = 1_200_000.0
    for run in runs:
        run.__exit__(None, None, None)
    first, second = repository.load_all_raw("exp_7")
    assert (first.gpu_uuid, first.gpu_mig_profile, first.gpu_is_mig) == ("MIG-0", "3g.20gb", True)
    assert (second.gpu_uuid, second.energy_metrics.gpu_energy_j) == ("MIG-1", None)
    aggregated = aggregate_results("exp_7", [first, second])
    assert (aggregated.total_energy_j, aggregated.attributed_energy_j) == (200.0, 200.0)


@pytest.mark.parametrize(
    ("shown", "asked", "counted"),
    [
        ("MIG-0,MIG-1", None, "MIG-0"),
        ("0", ["0", "0"], "GPU-0"),
        ("0", ["0", "GPU-0"], "GPU-0"),
    ],
)
def test_a_board_that_one_process_sees_twice_is_counted_once(
    repository: FileSystemRepository, clock: ManualClock, shown: str, asked: list[str] | None, counted: str
) -> None:
    slices = [Slice(uuid=f"MIG-{index}", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb") for index in range(2)]
    nvml = FakeNvml([Board(index=0, uuid="GPU-0", slices=slices)])
    with made(repository, clock, environ={"CUDA_VISIBLE_DEVICES": shown}, gpus=asked, sources=[Nvml(nvml)]):
        clock.now += 1.0
        nvml.boards[0].energy_mj = 1_200_000.0
    energy = saved(repository).energy_metrics
    assert (energy.total_energy_j, energy.gpu_energy_j) == (200.0, 200.0)
    assert energy.sensors is not None
    assert [(reading.energy_j, reading.problems) for reading in energy.sensors] == [(200.0, []), (None, ["claimed"])]
    assert energy.devices is not None
    assert [device.gpu_uuid for device in energy.devices] == [counted]


def test_the_first_source_of_a_component_is_taken(repository: FileSystemRepository, clock: ManualClock) -> None:
    other = steady_watts(70.0, clock, source="other", instance="x")
    memory = steady_watts(5.0, clock, component="ram", instance="dram-0")
    with made(repository, clock, sources=[steady_watts(50.0, clock), other, memory]):
        clock.now += 1.0
    energy = saved(repository).energy_metrics
    assert (energy.cpu_energy_j, energy.ram_energy_j, energy.total_energy_j) == (50.0, 5.0, 55.0)


def test_the_weakest_provenance_is_the_total_s(repository: FileSystemRepository, clock: ManualClock) -> None:
    memory = ReplaySource(sensor(lambda: clock.now * 5, component="ram", provenance="modelled", instance="dram"))
    with made(repository, clock, sources=[steady_watts(50.0, clock), memory]):
        clock.now += 1.0
    energy = saved(repository).energy_metrics
    assert (energy.total_provenance, energy.cpu_provenance, energy.ram_provenance) == (
        "modelled",
        "measured",
        "modelled",
    )
    assert saved(repository).energy_measurement_warning == "ram energy is modelled, not measured (replay dram)"


def test_idle_power_is_measured_before_and_counted_nowhere(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock, idle_sec=3.0):
        clock.now += 1.0
    energy = saved(repository).energy_metrics
    assert energy.idle_power_w == pytest.approx(50.0)
    assert energy.total_energy_j == pytest.approx(50.0)


def test_idle_power_of_a_sensor_that_answers_late_is_unknown(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    late = ReplaySource(sensor(Trace(clock, [(0.0, None), (3.0, 100.0), (4.0, 150.0)])))
    with made(repository, clock, idle_sec=3.0, sources=[late]):
        clock.now += 1.0
    energy = saved(repository).energy_metrics
    assert (energy.idle_power_w, energy.total_energy_j) == (None, 50.0)


def test_a_sensor_that_dies_midway_is_a_finding(repository: FileSystemRepository, clock: ManualClock) -> None:
    dying = ReplaySource(sensor(Trace(clock, [(0.0, 100.0), (1.0, 150.0), (1.5, None)])))
    with made(repository, clock, sources=[dying]) as run:
        clock.now += 1.0
        with run.phase("decode"):
            clock.now += 1.0
    result = saved(repository)
    assert result.status == "completed"
    assert result.energy_metrics.total_energy_j == 50.0
    assert result.phases is not None
    assert result.phases[0].total_energy_j is None
    assert result.energy_measurement_warning == (
        "replay package-0 did not answer all the time; what it missed is not counted "
        "(OSError: [Errno 5] Input/output error)"
    )
    aggregated = aggregate_results("exp_7", [result])
    assert aggregated.is_lower_bound is True
    assert any("was lost within the window" in warning for warning in aggregated.aggregation.warnings)


def test_power_that_is_sampled_says_so_and_at_which_rate(repository: FileSystemRepository, clock: ManualClock) -> None:
    sampled = ReplaySource(sensor(lambda: 120.0, quantity="power", provenance="integrated"))
    with made(repository, clock, sources=[sampled]) as run:
        for _ in range(5):
            clock.now += 0.5
            with run.phase("decode"):
                pass
    result = saved(repository)
    assert result.energy_metrics.total_energy_j == pytest.approx(300.0)
    assert result.energy_measurement_warning is not None
    assert "cpu energy is integrated from power samples at " in result.energy_measurement_warning


def test_a_gpu_that_falls_off_the_bus_is_a_finding(repository: FileSystemRepository, clock: ManualClock) -> None:
    nvml = FakeNvml([Board(index=0, uuid="GPU-0")])
    with made(repository, clock, sources=[Nvml(nvml)]):
        nvml.boards[0].is_lost = True
    result = saved(repository)
    assert (result.status, result.gpu_uuid, result.energy_metrics.gpu_energy_j) == ("completed", "GPU-0", None)
    assert result.energy_measurement_warning == (
        "nvml GPU-0 did not answer all the time; what it missed is not counted (NVMLError: GPU is lost)"
    )


def test_a_source_that_breaks_costs_its_sensors_and_not_the_run(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    class Broken(ReplaySource):
        name = "broken"

        def open(self, setting: object) -> list[Any]:
            raise ZeroDivisionError(setting.__class__.__name__)

    with made(repository, clock, sources=[Broken(), steady_watts(50.0, clock)]):
        clock.now += 1.0
    assert saved(repository).energy_metrics.total_energy_j == 50.0


def test_a_server_s_energy_and_its_client_s_tokens_join(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        made(repository, clock, process_index=0, world_size=2, backend="vllm"),
        made(repository, clock, process_index=1, world_size=2, sources=[]) as client,
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


# Before the run


def test_a_rerun_under_a_used_id_is_refused_before_it_runs(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock):
        pass
    with pytest.raises(ResultExistsError, match="process 0 has a result already"), made(repository, clock):
        pytest.fail("the block must not run")
    with (
        pytest.raises(ResultExistsError, match="expected_processes 1, this process 4"),
        made(repository, clock, environ=ranks(1, 4)),
    ):
        pytest.fail("the block must not run")


def test_another_configuration_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock, environ=ranks(0, 2), config={"a": 1, "b": 2}):
        pass
    with made(repository, clock, environ=ranks(1, 2), config={"b": 2, "a": 1}):
        pass
    with (
        pytest.raises(ResultExistsError, match="config_digest"),
        made(repository, clock, environ=ranks(1, 2), config={"a": 2}),
    ):
        pytest.fail("the block must not run")


def test_a_later_attempt_begins_anew(repository: FileSystemRepository, clock: ManualClock) -> None:
    with pytest.raises(TiredError), made(repository, clock, environ=ranks(0, 1)):
        raise TiredError
    with made(repository, clock, environ=ranks(0, 1, TORCHELASTIC_RESTART_COUNT="1")):
        clock.now += 1.0
    assert saved(repository).status == "completed"
    assert sorted(path.name for path in (repository.base_path / "raw").iterdir()) == [".exp_7~attempt-0", "exp_7"]


@pytest.mark.parametrize(
    ("environ", "error", "told"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, ConfigurationError, "process 4 of 4 can't be"),
        ({"RANK": "4"}, ConfigurationError, "set both RANK and WORLD_SIZE, or neither"),
    ],
)
def test_a_wrong_place_is_refused(
    repository: FileSystemRepository, clock: ManualClock, environ: Mapping[str, str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told), made(repository, clock, environ=environ):
        pytest.fail("the block must not run")
    assert not repository.base_path.exists()


def test_two_processes_with_one_rank_are_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        made(repository, clock, environ=ranks(1, 2)),
        pytest.raises(RecorderError, match=r"is recording it; give each process a rank of its own"),
        made(repository, clock, environ=ranks(1, 2)),
    ):
        pytest.fail("the block must not run")
    assert names(repository) == ["manifest.json", "process_1.json"]


def test_an_unwritable_directory_is_found_before_the_run(open_folder: Path, clock: ManualClock) -> None:
    open_folder.chmod(0o555)

    def work() -> None:
        with made(FileSystemRepository(open_folder / "results"), clock):
            os._exit(3)  # the block must not run

    refused = outcome_in_child(work, unprivileged=True)
    assert isinstance(refused, StorageError)
    assert "check the permissions" in str(refused)


def test_an_unknown_source_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(ConfigurationError, match="there is no such source; choose from nvml"),
        made(repository, clock, sources=["x"]),
    ):
        pytest.fail("the block must not run")


def test_a_source_is_closed_also_where_the_run_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    source = steady_watts(50.0, clock)
    with made(repository, clock, sources=[source]):
        assert source.is_open
    assert not source.is_open
    with pytest.raises(ResultExistsError), made(repository, clock, sources=[source]):
        pytest.fail("the block must not run")
    assert not source.is_open


class Lost(ReplaySource):
    def close(self) -> None:
        raise RuntimeError("GPU is lost")


def test_a_source_that_cannot_be_closed_costs_nothing(
    repository: FileSystemRepository, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with made(repository, clock, sources=[Lost(sensor(lambda: clock.now)), steady_watts(5.0, clock)]):
        clock.now += 1.0
    assert saved(repository).status == "completed"
    assert "the energy source replay could not be closed: RuntimeError: GPU is lost" in caplog.text
    with pytest.raises(TiredError), made(repository, clock, experiment="other", sources=[Lost(sensor(lambda: 1.0))]):
        raise TiredError


# What it says of itself


@dataclasses.dataclass
class Settings:
    batch: int
    path: object = None


class Model:
    def model_dump(self) -> dict[str, object]:
        return {"batch": 4}


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        (None, {}),
        ({"batch": 4, 5: "five"}, {"batch": 4, "5": "five"}),
        (Settings(4, path={1}), {"batch": 4, "path": [1]}),
        (Model(), {"batch": 4}),
        ({"type": int}, {"type": "<class 'int'>"}),
        ({"top_p": float("inf"), "x": [float("nan")]}, {"top_p": "inf", "x": ["nan"]}),
        ({"path": "b\udcff"}, {"path": "b\\udcff"}),
        ({"stop": {"b", "a"}}, {"stop": ["a", "b"]}),
    ],
)
def test_configurations(
    repository: FileSystemRepository, clock: ManualClock, config: object, stored: dict[str, object]
) -> None:
    with made(repository, clock, config=config):
        pass
    assert saved(repository).effective_config == stored


def test_what_is_no_configuration_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        pytest.raises(ConfigurationError, match="a list is no configuration; give a mapping"),
        made(repository, clock, config=[1]),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("changed", [object(), {1, "a"}, lambda: 3, SimpleNamespace(of=object())])
def test_what_has_another_text_in_each_process_is_no_configuration(
    repository: FileSystemRepository, clock: ManualClock, changed: object
) -> None:
    with (
        pytest.raises(ConfigurationError, match="cannot record the configuration: "),
        made(repository, clock, config={"x": [changed]}),
    ):
        pytest.fail("the block must not run")


def test_a_set_has_one_digest_whatever_the_hashes() -> None:
    code = (
        "from llm_energy_measure.recorder.facts import stored_config\n"
        "print(stored_config({'s': set('abcdefgh'), 't': {('b', 1), ('a', 2)}}))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "1234"
    }
    assert told == {f"{{'s': {list('abcdefgh')}, 't': [['a', 2], ['b', 1]]}}\n"}


class TorchType:
    """As torch's number formats say what they are."""

    def __str__(self) -> str:
        return "torch.float16"


@pytest.mark.parametrize("precision", ["float16", TorchType(), np.float16, np.dtype("float16")])
def test_a_number_format_can_be_a_framework_s_own(
    repository: FileSystemRepository, clock: ManualClock, precision: object
) -> None:
    with made(repository, clock) as run:
        run.describe_model(precision=precision)
    computed = saved(repository).compute_metrics
    assert computed is not None
    assert computed.compute_precision == "float16"


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_sec": 0},
        {"interval_sec": -1},
        {"interval_sec": "1"},
        {"checkpoint_sec": 0},
        {"idle_sec": -1},
        {"idle_sec": float("nan")},
        {"idle_sec": None},
        {"w_per_core": -3},
        {"w_per_core": float("nan")},
        {"model_name": None},
        {"backend": 3},
        {"host": 5},
        {"config_name": ""},
        {"process_index": 0.5},
        {"attempt": "1"},
        {"sources": "rapl"},
        {"sources": [3]},
        {"gpus": 0},
        {"gpus": "0,1"},
    ],
)
def test_arguments_that_cannot_be_are_refused_at_the_call(
    repository: FileSystemRepository, clock: ManualClock, wrong: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot record 'exp_7': {next(iter(wrong))} is .*; (choose|give)"):
        made(repository, clock, **wrong)


class OwnVersion(str):
    """As torch's version is of a type of its own."""

    __slots__ = ()


def test_libraries_backend_and_memory_are_told_from_what_is_loaded() -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, max_memory_allocated=lambda index: (index + 1) * 2**20
    )
    modules = {
        "torch": SimpleNamespace(__version__=OwnVersion("2.13.0"), cuda=cuda),
        "transformers": SimpleNamespace(__version__="5.23.0"),
        "vllm": SimpleNamespace(),
    }
    versions = facts.library_versions(modules)
    assert versions == {"torch": "2.13.0", "transformers": "5.23.0"}
    assert {type(version) for version in versions.values()} == {str}
    assert facts.backend_of(versions) == ("pytorch", "transformers=5.23.0, torch=2.13.0")
    assert facts.backend_of({"vllm": "0.11", "torch": "2.13.0"}) == ("vllm", "vllm=0.11")
    assert facts.backend_of({"numpy": "2"}) is None
    assert facts.peak_memory_mib(modules) == 3.0
    resident = facts.peak_memory_mib({"torch": SimpleNamespace()})
    assert resident is not None
    assert resident > 1.0
    assert facts.peak_memory_mib({}) is None


class Broken:
    """A module that breaks when it is asked."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_a_library_that_breaks_when_it_is_asked_costs_its_facts_and_not_the_result(
    repository: FileSystemRepository, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", Broken())
    monkeypatch.setitem(sys.modules, "torch", Broken())
    with made(repository, clock) as run:
        run.add_tokens(output=3)
    result = saved(repository)
    assert (result.status, result.backend, result.compute_metrics) == ("completed", None, None)
    assert result.inference_metrics is not None


def test_importing_the_package_imports_no_recorder_and_the_recorder_nothing_heavy() -> None:
    def loaded(line: str) -> set[str]:
        code = f"import sys; {line}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert not any(name.startswith("llm_energy_measure.") for name in loaded("import llm_energy_measure"))
    heavy = {"asyncio", "click", "numpy", "pynvml", "rich", "torch", "amdsmi", "zeus", "codecarbon"}
    assert loaded("from llm_energy_measure import record") & heavy == set()


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'recrod'"):
        _ = llm_energy_measure.recrod
    assert set(llm_energy_measure.__all__) == {"__version__", "record"}


def test_the_file_is_json_of_the_known_schema(repository: FileSystemRepository, clock: ManualClock) -> None:
    with made(repository, clock) as run:
        pass
    assert run.path is not None
    assert json.loads(run.path.read_bytes())["schema_version"] == "2.0.0"


# The clock of the store


def two_hosts(repository: FileSystemRepository, *ahead_sec: float) -> list[RawProcessResult]:
    """Results of hosts whose wall clocks are that much ahead, recorded at one time into one store."""
    with contextlib.ExitStack() as stack:
        for index, seconds in enumerate(ahead_sec):
            machine = OtherMachineClock(f"node-{index}", seconds)
            place = ranks(0, len(ahead_sec), RANK=str(index), LOCAL_WORLD_SIZE="1")
            stack.enter_context(
                record(
                    "exp_7",
                    environ=place,
                    repository=repository,
                    clock=machine,
                    host=machine.machine,
                    sources=[],
                    checkpoint_sec=None,
                )
            )
    return repository.load_all_raw("exp_7")


def verdict_on(code: str, results: list[RawProcessResult]) -> Finding:
    [finding] = [finding for finding in aggregate_results("exp_7", results).findings or () if finding.code == code]
    return finding


def test_hosts_whose_clocks_are_apart_are_found_by_the_clock_of_their_store(repository: FileSystemRepository) -> None:
    finding = verdict_on("time.clock_offset", two_hosts(repository, 0.0, 5.0))
    assert finding.outcome == "failed"
    assert finding.found == pytest.approx(5.0, abs=0.5)
    assert "host node-1 is 5.0 s ahead of that of host node-0" in finding.message


def test_hosts_whose_clocks_agree_are_told_so(repository: FileSystemRepository) -> None:
    results = two_hosts(repository, 0.0, 0.2)
    findings = aggregate_results("exp_7", results).findings or []
    assert "time.clock_offset" not in {finding.code for finding in findings}, "what passed is not stored"
    clocks = [result.clock for result in results]
    assert len({clock.store_id for clock in clocks if clock is not None}) == 1


def test_copies_of_two_stores_have_no_clock_in_common(tmp_path: Path) -> None:
    one, other = (two_hosts(FileSystemRepository(tmp_path / name), 0.0, 5.0) for name in ("a", "b"))
    assert verdict_on("time.clock_offset", [one[0], other[1]]).outcome == "not_checked"


class LoggedStore(LocalStore):
    """A store that notes when somebody asks for the folder of an experiment, as a reading of its clock does."""

    def __init__(self, root: Path, log: list[str]) -> None:
        super().__init__(root)
        self.log = log

    def path(self, key: str) -> Path:
        if key == "raw/exp_7":
            self.log.append("store")
        return super().path(key)


def test_the_clock_of_the_store_is_read_outside_the_block(tmp_path: Path, clock: ManualClock) -> None:
    log: list[str] = []

    def read() -> float:
        log.append("sensor")
        return clock.monotonic()

    repository = FileSystemRepository(tmp_path, store=LoggedStore(tmp_path, log))
    with made(repository, clock, sources=[ReplaySource(sensor(read))]):
        log.append("block")
        clock.now += 4.0
    inside = log[log.index("sensor") : len(log) - log[::-1].index("sensor")]
    assert "store" not in inside
    assert log.index("store") < log.index("sensor") < log.index("block")
    assert log[::-1].index("store") < log[::-1].index("sensor")
    found = saved(repository).clock
    assert found is not None
    assert found.store_start_sec is not None
    assert found.store_end_sec is not None
    assert found.store_error_sec is not None
    assert found.store_error_sec < 0.1


def test_a_checkpoint_has_the_clock_of_the_store_at_its_start_alone(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock) as run:
        run._checkpoint()
        partial = repository.load_raw(repository.base_path / "raw" / "exp_7" / "partial-process_0.json")
    assert partial.clock is not None
    assert partial.clock.store_start_sec is not None
    assert partial.clock.store_end_sec is None


def test_a_store_whose_clock_can_not_be_read_any_more_keeps_the_result(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with made(repository, clock):
        shutil.rmtree(repository.base_path)
    found = saved(repository).clock
    assert found is not None
    assert (found.store_start_sec is None, found.store_end_sec is None) == (False, True)


def test_a_store_in_memory_has_no_clock(tmp_path: Path, clock: ManualClock) -> None:
    repository = FileSystemRepository(tmp_path, store=MemoryStore())
    with made(repository, clock) as run:
        pass
    assert run.result is not None
    assert run.result.clock is not None
    assert (run.result.clock.store_id, run.result.clock.store_start_sec, run.result.clock.store_error_sec) == (
        None,
    ) * 3
    assert run.result.clock.wall_start_sec == START_WALL

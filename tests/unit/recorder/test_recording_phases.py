"""Phases, requests and tokens of a recording."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository
from tests.support.recordings import BlockError, load_result, make_recording
from tests.support.replay import ManualClock, ReplaySource, Trace, sensor


def test_phase_sums_its_occurrences(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        with run.phase("load"):
            clock.now += 10.0
        for _ in range(2):
            with run.phase("prefill"):
                clock.now += 1.0
                run.add_tokens(input=100, output=1)
            with run.phase("decode"):
                clock.now += 3.0
                run.add_tokens(output=9)
                with run.phase("decode"):  # entered while it is open
                    clock.now += 1.0
    result = load_result(repository)
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
    assert result.inference_metrics.inference_time_sec == 10.0  # without `load`, in which no token was counted


def test_load_inside_warmup_is_left_out_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        with run.phase("warmup"):
            clock.now += 1.0
            with run.phase("load"):
                clock.now += 3.0
            clock.now += 1.0
        clock.now += 2.0
        run.add_tokens(output=10)
    work = load_result(repository).inference_metrics
    assert work is not None
    assert (work.inference_time_sec, work.tokens_per_second) == (2.0, 5.0)


def test_phases_inside_a_request_get_its_tokens(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run, run.request() as request:
        with run.phase("prefill"):
            request.token()
        with run.phase("decode"):
            request.token(9)
    result = load_result(repository)
    assert result.phases is not None
    assert [(phase.name, phase.output_tokens) for phase in result.phases] == [("prefill", 1), ("decode", 9)]


def test_phase_energy_is_unknown_if_a_reading_failed(repository: FileSystemRepository, clock: ManualClock) -> None:
    busy = ReplaySource(sensor(Trace(clock, [(0.0, 100.0), (1.0, 150.0), (2.0, None), (3.0, 250.0), (4.0, 300.0)])))
    with make_recording(repository, clock, sources=[busy]) as run:
        for _ in range(4):
            with run.phase("decode"):
                clock.now += 1.0
        with run.phase("end"):
            clock.now += 1.0
    result = load_result(repository)
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
def test_phases_and_time_outside_them_sum_to_the_run(
    spans: list[tuple[str | None, float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """This holds for energy, time and tokens."""
    repository, clock = FileSystemRepository(tmp_path_factory.mktemp("phases")), ManualClock()
    outside = [0.0, 0]
    with make_recording(repository, clock) as run:
        for name, seconds, tokens in spans:
            with run.phase(name) if name else contextlib.nullcontext():
                clock.now += seconds
                run.add_tokens(output=tokens)
            if name is None:
                outside = [outside[0] + seconds, outside[1] + tokens]
    result = load_result(repository)
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


def test_phase_is_recorded_if_the_block_fails(repository: FileSystemRepository, clock: ManualClock) -> None:
    def block() -> None:
        clock.now += 3.0
        raise BlockError

    with pytest.raises(BlockError), make_recording(repository, clock) as run, run.phase("decode"):
        block()
    result = load_result(repository)
    assert result.phases is not None
    assert (result.phases[0].duration_sec, result.phases[0].total_energy_j) == (3.0, 150.0)
    assert result.phases[0].output_tokens is None  # no token was counted in the whole run


def test_requests_give_latencies_and_add_no_tokens(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        with run.phase("warmup"), run.request() as request:
            request.token()
        with run.request() as request:
            clock.now += 0.25
            request.token()
            clock.now += 0.25
            request.token()
        run.add_tokens(input=5, output=3)
    work = load_result(repository).inference_metrics
    assert work is not None
    assert work.latency_measurements is not None
    assert (work.input_tokens, work.output_tokens) == (5, 3)
    assert (work.latency_measurements.ttft_ms, work.latency_measurements.warmup_requests_excluded) == ([250.0], 1)
    assert work.time_to_first_token_ms == 250.0


def test_streamed_tokens_count_if_no_tokens_are_added(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run, run.phase("decode"), run.request() as request:
        clock.now += 1.0
        request.token(4)
    result = load_result(repository)
    assert result.inference_metrics is not None
    assert (result.inference_metrics.input_tokens, result.inference_metrics.output_tokens) == (0, 4)
    assert result.config_warnings == [
        "no prompt tokens were counted: input_tokens is 0, and total_tokens has output tokens only"
    ]


def test_run_without_tokens_has_no_inference_metrics(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock):
        clock.now += 1.0
    result = load_result(repository)
    assert result.inference_metrics is None
    assert result.config_warnings == []


def test_wrong_phase_name_or_status_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        with pytest.raises(ConfigurationError, match="its name is 3; give a text"):
            run.phase(3)  # type: ignore[arg-type]  # the wrong type is the test
        with pytest.raises(ConfigurationError, match="status is 'partial'; choose from completed, failed, interrupted"):
            run.mark("partial")
    assert (load_result(repository).phases, load_result(repository).status) == (None, "completed")

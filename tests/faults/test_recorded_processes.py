"""Experiments of several real processes: results, shared sensors, killed processes and signals."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from llm_energy_measure import record
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.verify import verify_experiment
from tests.support.aggregation import aggregate_one
from tests.support.command import run as command
from tests.support.recorded import EXPERIMENT, TOKENS, WATTS
from tests.support.recordings import assert_gap_is_stated
from tests.support.replay import ReplaySource, sensor, steady_watts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "TORCHELASTIC", "SLURM", "OMPI", "PMI", "MPI", "LLM_")
PATIENCE_SEC = 120


def torchrun(index: int, count: int) -> dict[str, str]:
    ranks = {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return {**ranks, "TORCHELASTIC_RUN_ID": "job-1", "TORCHELASTIC_RESTART_COUNT": "0"}


def srun(index: int, count: int) -> dict[str, str]:
    """Two tasks on each of two nodes; tests.support.recorded treats each node as a separate machine."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index % 2),
        "SLURM_NTASKS": str(count),
        "SLURM_NODEID": str(index // 2),
        "SLURMD_NODENAME": f"node-{index // 2}",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }


def run_experiment(
    folder: Path, ends: Sequence[str], launcher: Callable[[int, int], dict[str, str]] = torchrun
) -> tuple[FileSystemRepository, list[int]]:
    """Run one process per way to end, at the same time; return the repository and the exit statuses."""
    (folder / "gate").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.recorded", str(folder / "results"), end],
            cwd=ROOT,
            env={**inherited, **launcher(index, len(ends))},
            stderr=subprocess.DEVNULL,
        )
        for index, end in enumerate(ends)
    ]
    statuses = [process.wait(PATIENCE_SEC) for process in processes]
    return FileSystemRepository(folder / "results"), statuses


def names(repository: FileSystemRepository) -> list[str]:
    return sorted(path.name for path in (repository.base_path / "raw" / EXPERIMENT).iterdir())


def _read_sec(result: RawProcessResult) -> float:
    [reading] = result.energy_metrics.sensors or []
    window = result.timestamps if reading.window is msgspec.UNSET else reading.window
    return window.duration_sec or 0.0


@pytest.mark.parametrize(("launcher", "hosts"), [(torchrun, 1), (srun, 2)])
def test_all_processes_save_and_the_host_counts_once(
    tmp_path: Path, launcher: Callable[[int, int], dict[str, str]], hosts: int
) -> None:
    repository, statuses = run_experiment(tmp_path, ["complete"] * 4, launcher)
    assert statuses == [0] * 4
    assert names(repository) == ["manifest.json", *(f"process_{index}.json" for index in range(4))]
    results = repository.load_all_raw(EXPERIMENT)
    readers = [result for result in results if result.energy_metrics.total_energy_j is not None]
    # A process that ends after the reader takes the sensor over, so there can be several readers.
    assert len({result.host for result in readers}) == hosts
    most_j = WATTS * sum(_read_sec(result) for result in readers)
    energies_j = [result.energy_metrics.total_energy_j or 0.0 for result in readers]
    outcome = aggregate_one(repository, EXPERIMENT)
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_energy_j == pytest.approx(sum(energies_j), rel=1e-9)
    assert most_j / 3 < sum(energies_j) < 1.5 * most_j  # readings may be late on a busy machine
    assert outcome.aggregated.total_tokens == 4 * TOKENS
    assert_gap_is_stated(outcome.aggregated)
    manifest = repository.load_manifest(EXPERIMENT)
    assert manifest is not None
    assert manifest.expected_processes == 4
    if launcher is srun:
        assert [result.launcher.node for result in results if result.launcher] == [
            "node-0",
            "node-0",
            "node-1",
            "node-1",
        ]
        assert manifest.launcher is not None
        assert (manifest.launcher.name, manifest.launcher.job_id) == ("slurm", "4711")


def test_killed_process_costs_one_result_and_gives_lower_bound(tmp_path: Path) -> None:
    repository, statuses = run_experiment(tmp_path, ["complete", "complete", "kill", "complete"])
    assert statuses == [0, 0, -signal.SIGKILL, 0]
    assert [path.name for path in repository.list_raw(EXPERIMENT)] == [f"process_{index}.json" for index in (0, 1, 3)]
    assert "partial-process_2.json" in names(repository)
    refused = command("-o", repository.base_path, "aggregate", EXPERIMENT)
    assert refused.status == 1
    assert "3 of 4 processes have results, missing process 2 (expected number from manifest)" in refused.err
    done = command("-o", repository.base_path, "aggregate", EXPERIMENT, "--no-strict")
    assert done.status == 0
    assert "3 of 4 processes" in done.out
    assert "process 2 did not finish; the last checkpoint counts as a lower bound" in done.err
    aggregated = repository.load_aggregated(EXPERIMENT)
    assert aggregated is not None
    assert aggregated.completeness is not None
    assert (aggregated.completeness.found_processes, aggregated.completeness.coverage) == (3, 0.75)
    assert aggregated.is_lower_bound is True
    assert aggregated.total_tokens == 4 * TOKENS
    assert [result.status for result in aggregated.process_results] == [
        "completed",
        "completed",
        "partial",
        "completed",
    ]
    assert command("-o", repository.base_path, "aggregate", EXPERIMENT, "--no-strict").out.endswith("is up to date\n")
    verdict = verify_experiment(repository, EXPERIMENT)
    outcomes = {finding.code: finding.outcome for finding in verdict.findings}
    for code in ("sources.missing", "sources.changed", "sources.added", "sources.embedded", "aggregate.recomputed"):
        assert outcomes[code] == "passed", code
    (repository.base_path / "raw" / EXPERIMENT / "partial-process_2.json").unlink()
    # The stored aggregate is stale now.
    assert aggregate_one(repository, EXPERIMENT, strict=False).result == "aggregated"


@pytest.mark.parametrize(
    ("end", "status", "ended", "error_type"),
    [
        ("raise", 1, "failed", "MemoryError"),
        ("term", -signal.SIGTERM, "interrupted", "SIGTERM"),
        ("interrupt", -signal.SIGINT, "interrupted", "KeyboardInterrupt"),
    ],
)
def test_result_is_saved_however_the_process_ends(
    tmp_path: Path, end: str, status: int, ended: str, error_type: str
) -> None:
    repository, statuses = run_experiment(tmp_path, [end, "complete"])
    assert statuses == [status, 0]
    assert names(repository) == ["manifest.json", "process_0.json", "process_1.json"]
    first = repository.load_all_raw(EXPERIMENT)[0]
    assert (first.status, first.error_type) == (ended, error_type)
    assert first.inference_metrics is not None
    assert first.inference_metrics.total_tokens == TOKENS


def test_restart_ignores_the_locks_of_a_killed_process(tmp_path: Path) -> None:
    repository, statuses = run_experiment(tmp_path, ["kill"])
    assert statuses == [-signal.SIGKILL]
    assert [name for name in names(repository) if name.startswith("claim-")] != []
    with record(
        EXPERIMENT, model_name="m", repository=repository, sources=[steady_watts(WATTS)], environ=torchrun(0, 1)
    ):
        pass
    [result] = repository.load_all_raw(EXPERIMENT)
    assert result.energy_metrics.total_energy_j is not None
    assert "partial-process_0.json" not in names(repository)
    assert "superseded-process_0-1.json.kept" in names(repository)  # the checkpoint of the killed process


def test_recorded_experiment_passes_verification(tmp_path: Path) -> None:
    repository, statuses = run_experiment(tmp_path, ["complete"] * 4, srun)
    assert statuses == [0] * 4
    aggregate_one(repository, EXPERIMENT)
    assert command("-o", repository.base_path, "results", "verify", EXPERIMENT).status == 0


def _worker(results: Path, index: int) -> None:
    with record(
        EXPERIMENT,
        model_name="m",
        results_dir=results,
        process_index=index,
        world_size=3,
        sources=[steady_watts(WATTS)],
    ) as run:
        run.add_tokens(output=TOKENS)


def test_plain_multiprocessing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(tmp_path / "results", index)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SEC)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    outcome = aggregate_one(FileSystemRepository(tmp_path / "results"), EXPERIMENT)
    assert outcome.aggregated is not None
    assert outcome.aggregated.total_tokens == 3 * TOKENS


def test_child_forked_in_the_block_measures_nothing(tmp_path: Path) -> None:
    """This holds if the child leaves the block, and if SIGTERM ends it, as a pool does with its workers."""
    repository = FileSystemRepository(tmp_path / "results")
    recording = record(EXPERIMENT, model_name="m", repository=repository, sources=[], environ={}, checkpoint_sec=None)
    with recording:
        leaving = os.fork()
        if leaving == 0:
            recording.__exit__(None, None, None)
            os._exit(len(repository.list_raw(EXPERIMENT)))
        assert os.waitpid(leaving, 0)[1] == 0
        reader, writer = os.pipe()
        waiting = os.fork()
        if waiting == 0:
            os.write(writer, b".")  # Python drops signals that arrive during a fork
            time.sleep(PATIENCE_SEC)
            os._exit(0)
        os.read(reader, 1)
        os.close(reader)
        os.close(writer)
        os.kill(waiting, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(waiting, 0)[1]) == signal.SIGTERM
        assert repository.list_raw(EXPERIMENT) == []
    assert [path.name for path in repository.list_raw(EXPERIMENT)] == ["process_0.json"]


def test_forked_child_waits_for_no_lock_of_its_parent(tmp_path: Path) -> None:
    """A data loader forks its workers while the sampler thread of the parent may read."""
    repository = FileSystemRepository(tmp_path / "results")
    is_reading, may_continue, parent = threading.Event(), threading.Event(), os.getpid()

    def read() -> float:
        if threading.current_thread() is not threading.main_thread():
            is_reading.set()
            may_continue.wait(PATIENCE_SEC)
        return 100.0

    recording = record(
        EXPERIMENT, repository=repository, sources=[ReplaySource(sensor(read))], environ={}, interval_sec=0.001
    )

    def child() -> None:
        with pytest.warns(RuntimeWarning, match=f"in this forked process are lost: only process {parent} measures"):
            recording.add_tokens(output=1)
        with pytest.warns(RuntimeWarning), recording.phase("decode"), recording.request() as request:
            request.token()

    with recording:
        assert is_reading.wait(PATIENCE_SEC)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(4.0)  # shorter than the sampler's wait for a hanging sensor
        ended = process.exitcode
        process.kill()
        process.join()
        may_continue.set()
        recording.add_tokens(output=TOKENS)
    assert ended == 0
    [result] = repository.load_all_raw(EXPERIMENT)
    assert result.inference_metrics is not None
    assert (result.inference_metrics.total_tokens, result.phases) == (TOKENS, None)


def test_overlapping_recordings_restore_the_sigterm_handler(tmp_path: Path) -> None:
    """The first recording ends first, so the second restores the handler of an ended recording."""
    repository = FileSystemRepository(tmp_path / "results")

    def child() -> None:
        runs = [
            record(name, repository=repository, sources=[], environ={}, checkpoint_sec=None) for name in ("one", "two")
        ]
        for run in runs:
            run.__enter__()
        for run in runs:
            run.__exit__(None, None, None)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SEC)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_SEC)
    assert process.exitcode == -signal.SIGTERM
    assert repository.list_experiments() == ["one", "two"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)]
)
def test_signal_during_save_is_delivered_after_it(tmp_path: Path, number: signal.Signals, status: int) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    is_ending: list[bool] = []

    def read() -> float:
        if is_ending:  # the last reading before the save
            os.kill(os.getpid(), number)
        return 100.0

    def child() -> None:
        source = ReplaySource(sensor(read))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            with record(
                EXPERIMENT, repository=repository, sources=[source], environ={}, interval_sec=None, checkpoint_sec=None
            ) as run:
                run.add_tokens(output=7)
                is_ending.append(True)
        except KeyboardInterrupt:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            os._exit(128 + signal.SIGINT)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_SEC)
    assert process.exitcode == status
    [result] = repository.load_all_raw(EXPERIMENT)
    assert result.inference_metrics is not None
    assert (result.status, result.inference_metrics.total_tokens) == ("completed", 7)


def test_tokens_of_a_request_interrupted_by_sigterm_count(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")

    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with record(EXPERIMENT, repository=repository, sources=[], environ={}) as run, run.request() as request:
            request.token(TOKENS)
            signal.raise_signal(signal.SIGTERM)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_SEC)
    assert process.exitcode == -signal.SIGTERM
    [result] = repository.load_all_raw(EXPERIMENT)
    assert result.inference_metrics is not None
    assert result.inference_metrics.total_tokens == TOKENS
    assert result.inference_metrics.latency_measurements is not None


def test_sigterm_saves_although_a_sensor_hangs(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    readings = iter([100.0, 150.0])

    def read() -> float:
        for joules in readings:
            return joules
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait(PATIENCE_SEC)
        return 0.0

    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        source = ReplaySource(sensor(read))
        recording = record(
            EXPERIMENT, repository=repository, sources=[source], environ={}, interval_sec=None, checkpoint_sec=None
        )
        with recording as run, run.phase("decode"):
            run.add_tokens(output=TOKENS)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_SEC)
    assert process.exitcode == -signal.SIGTERM
    [result] = repository.load_all_raw(EXPERIMENT)
    assert (result.status, result.energy_metrics.total_energy_j) == ("interrupted", 50.0)
    assert result.energy_metrics.sensors is not None
    assert result.energy_metrics.sensors[0].problems == ["sensor_lost"]


def test_sigterm_handler_that_exits_with_0_gives_interrupted(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with pytest.raises(SystemExit), record(EXPERIMENT, repository=repository, sources=[], environ={}):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    [result] = repository.load_all_raw(EXPERIMENT)
    assert (result.status, result.error_type) == ("interrupted", "SIGTERM")


def test_sigterm_handler_of_the_program_may_continue_the_run(tmp_path: Path) -> None:
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    repository = FileSystemRepository(tmp_path / "results")
    folder = repository.base_path / "raw" / EXPERIMENT
    try:
        with record(
            EXPERIMENT, model_name="m", repository=repository, sources=[], environ={}, checkpoint_sec=None
        ) as run:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (folder / "partial-process_0.json").exists()
            run.add_tokens(output=7)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    written = json.loads((folder / "process_0.json").read_bytes())
    assert (written["status"], written["inference_metrics"]["total_tokens"]) == ("completed", 7)
    assert not (folder / "partial-process_0.json").exists()


def test_sigkill_200_ms_after_sigterm_keeps_the_result(tmp_path: Path) -> None:
    """As sbatch does with a program that it starts without srun."""
    script = (
        "import sys, time\nfrom llm_energy_measure import record\nfrom tests.support.replay import steady_watts\n"
        "with record('exp_7', results_dir=sys.argv[1], sources=[steady_watts(50.0)], environ={}) as run:\n"
        "    with run.request(input=3) as request:\n        request.token(100_000)\n"
        "    print(flush=True)\n    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for attempt in range(5):  # a busy machine can delay one process by more than 200 ms
        results = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", script, str(results)], env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        time.sleep(0.2)
        process.kill()
        process.communicate()
        saved = FileSystemRepository(results).load_all_raw(EXPERIMENT)
        if saved:
            break
    assert [(result.status, result.error_type) for result in saved] == [("interrupted", "SIGTERM")]

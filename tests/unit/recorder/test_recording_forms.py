"""`start` and `stop`, `async with`, the decorator, and the end of a process that calls none of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError, ResultExistsError
from llm_energy_measure.results import FileSystemRepository
from tests.support.recordings import BlockError, file_names, load_result, make_recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.recorder.recording import Recording
    from tests.support.replay import ManualClock

SRC = Path(__file__).resolve().parents[3] / "src"


def test_start_and_stop_are_the_block(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = make_recording(repository, clock).start()
    clock.now += 2.0
    run.add_tokens(output=4)
    result = run.stop()
    assert result == load_result(repository)
    assert result is not None
    assert (result.status, result.energy_metrics.total_energy_j) == ("completed", 100.0)
    assert run.stop() is result
    assert file_names(repository) == ["manifest.json", "process_0.json"]


def test_stop_before_start_is_refused(repository: FileSystemRepository, clock: ManualClock) -> None:
    with pytest.raises(RecorderError, match="has not begun"):
        make_recording(repository, clock).stop()


def test_async_with_measures_the_block(repository: FileSystemRepository, clock: ManualClock) -> None:
    async def work() -> None:
        async with make_recording(repository, clock) as run:
            await asyncio.sleep(0)
            run.add_tokens(output=4)
            raise BlockError

    with pytest.raises(BlockError):
        asyncio.run(work())
    assert (load_result(repository).status, load_result(repository).error_type) == ("failed", "BlockError")


def test_decorator_measures_the_call_and_passes_the_recording(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    @make_recording(repository, clock)
    def work(tokens: int, run: Recording) -> str:
        """Count tokens."""
        run.add_tokens(output=tokens)
        clock.now += 1.0
        return "done"

    assert (work(7), work.__doc__) == ("done", "Count tokens.")
    result = load_result(repository)
    assert result.inference_metrics is not None
    assert (result.inference_metrics.output_tokens, result.energy_metrics.total_energy_j) == (7, 50.0)
    with pytest.raises(ResultExistsError):
        work(7)


def test_decorator_measures_a_coroutine_function(repository: FileSystemRepository, clock: ManualClock) -> None:
    @make_recording(repository, clock)
    async def work() -> int:
        await asyncio.sleep(0)
        clock.now += 1.0
        return 3

    assert asyncio.run(work()) == 3
    assert load_result(repository).energy_metrics.total_energy_j == 50.0


def test_decorator_refuses_a_generator_function(repository: FileSystemRepository, clock: ManualClock) -> None:
    def work() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="is not a function that returns a value; use 'with record"):
        make_recording(repository, clock)(work)


def test_closed_generator_is_completed(repository: FileSystemRepository, clock: ManualClock) -> None:
    def stream() -> Iterator[int]:
        with make_recording(repository, clock) as run:
            while True:
                run.add_tokens(output=1)
                yield 1

    tokens: Any = stream()
    next(tokens)
    tokens.close()
    assert (load_result(repository).status, load_result(repository).error_type) == ("completed", None)


@pytest.mark.parametrize(
    ("end", "status", "error_type"),
    [
        ("", "completed", None),
        ("raise MemoryError", "failed", "MemoryError"),
        ("import os; os.fork() or exit()", "completed", None),
        ("exec('def end():\\n del run'); end", "completed", None),
    ],
)
def test_process_that_exits_without_stop_saves(tmp_path: Path, end: str, status: str, error_type: str | None) -> None:
    script = (
        "from llm_energy_measure import record\n"
        f"run = record('exp_7', results_dir={str(tmp_path)!r}, sources=[], environ={{}}).start()\n"
        f"run.add_tokens(output=5)\n{end}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=False)
    [result] = FileSystemRepository(tmp_path).load_all_raw("exp_7")
    assert (result.status, result.error_type) == (status, error_type)

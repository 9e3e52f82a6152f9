"""How the block of a recording ends, and which status the result gets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import InvalidResultError, RecorderError
from llm_energy_measure.storage.temporary import temporary_path
from tests.support.recordings import BlockError, file_names, load_result, make_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.recorder.recording import Recording
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (BlockError("x"), "failed", "BlockError"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit"),
        (SystemExit(0), "completed", None),
        (SystemExit(), "completed", None),
    ],
)
def test_exception_continues_after_the_result_is_saved(
    repository: FileSystemRepository, clock: ManualClock, error: BaseException, status: str, error_type: str | None
) -> None:
    def block(run: Recording) -> None:
        clock.now += 2.0
        run.add_tokens(output=3)
        raise error

    with pytest.raises(type(error)) as raised, make_recording(repository, clock) as run:
        block(run)
    assert raised.value is error
    result = load_result(repository)
    assert (result.status, result.error_type) == (status, error_type)
    assert result.energy_metrics.total_energy_j == 100.0
    assert file_names(repository) == ["manifest.json", "process_0.json"]


def test_cancelled_task_is_interrupted(repository: FileSystemRepository, clock: ManualClock) -> None:
    async def work() -> None:
        with make_recording(repository, clock):
            await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert (load_result(repository).status, load_result(repository).error_type) == ("interrupted", "CancelledError")


def test_mark_sets_the_status_without_an_exception(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock) as run:
        run.mark("failed", "exit status 3")
    assert (load_result(repository).status, load_result(repository).error_type) == ("failed", "exit status 3")


def test_save_error_is_a_note_on_the_exception(repository: FileSystemRepository, clock: ManualClock) -> None:
    def block() -> None:
        clock.now -= 1.0  # a monotonic clock must never do this
        raise BlockError

    with pytest.raises(BlockError) as raised, make_recording(repository, clock):
        block()
    assert "The result could not be saved: " in raised.value.__notes__[0]
    assert "rejected-process_0-1.json.kept" in raised.value.__notes__[0]


def test_save_error_is_raised_and_result_stays_available(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = make_recording(repository, clock)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(InvalidResultError))
        stack.enter_context(run)
        run.add_tokens(output=7)
        clock.now -= 1.0
    assert file_names(repository) == ["manifest.json", "rejected-process_0-1.json.kept"]
    assert run.result is not None
    assert run.result.inference_metrics is not None
    assert (run.result.inference_metrics.output_tokens, run.path) == (7, None)


def test_recording_can_be_used_once(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = make_recording(repository, clock)
    with run:
        pass
    with pytest.raises(RecorderError, match="was used before; call record"), run:
        pass


@pytest.mark.parametrize(
    "use", [lambda run: run.add_tokens(output=1), lambda run: run.request(), lambda run: run.phase("decode")]
)
def test_call_outside_the_block_is_refused(
    repository: FileSystemRepository, clock: ManualClock, use: Callable[[Recording], object]
) -> None:
    run = make_recording(repository, clock)
    with pytest.raises(RecorderError, match="the block has not begun; call this method inside the block"):
        use(run)
    with run:
        use(run)
    with pytest.raises(RecorderError, match="the block has ended"):
        use(run)


def test_leftovers_of_a_dead_process_are_removed_after_the_save(
    repository: FileSystemRepository, clock: ManualClock
) -> None:
    with make_recording(repository, clock) as run:
        folder = repository.base_path / "raw" / "exp_7"
        own = Path(temporary_path(str(folder / "process_0.json")))
        pid = os.fork()
        if pid == 0:
            Path(temporary_path(str(folder / "process_0.json"))).touch()
            Path(temporary_path(str(folder / "partial-process_0.json"))).touch()
            Path(temporary_path(str(folder / "process_1.json"))).touch()
            os._exit(0)
        os.waitpid(pid, 0)
        own.touch()  # of a running process
        run.add_tokens(output=1)
    kept = [name for name in file_names(repository) if name.startswith(".")]
    assert sorted(name.partition("~")[0] for name in kept) == [".process_0.json", ".process_1.json"]
    assert own.name in kept

"""Test of an experiment that one thread deletes while another thread saves into it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from llm_energy_measure.results import FileSystemRepository
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = factories.EXPERIMENT
SAVES = 300


def test_result_is_saved_while_its_experiment_is_being_deleted(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    done, enough = threading.Event(), threading.Semaphore(0)
    deleted = 0

    def delete() -> None:
        nonlocal deleted
        # Delete again after a few saves only. A save fails if the folder never exists for as long as one fsync takes.
        while not done.is_set():
            enough.acquire(timeout=1)
            deleted += repository.delete_experiment(EXP)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for number, record in enumerate(factories.raws(SAVES)):
            repository.save_raw(EXP, record)
            if number % 3 == 0:
                enough.release()
    finally:
        done.set()
        deleter.join()
    assert deleted
    last = factories.raw(process_index=SAVES)
    repository.save_raw(EXP, last)
    assert repository.load_all_raw(EXP)[-1] == last
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [EXP]

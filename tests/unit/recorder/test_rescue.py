"""A result that the results directory does not accept is saved elsewhere and printed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import StorageError
from llm_energy_measure.recorder.rescue import rescue
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.storage.local import LocalStore
from tests.support import factories
from tests.support.recordings import BlockError, make_recording

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.replay import ManualClock


class FullStore(LocalStore):
    """A store whose disk is full for results, and not for manifests and locks."""

    def create(self, key: str, data: bytes) -> bool:
        if "/process_" in key:
            error = StorageError(f"cannot write {self.path(key)}", "No space left on device", "check the file system")
            error.errno = errno.ENOSPC
            raise error
        return super().create(key, data)


def full_repository(folder: Path) -> FileSystemRepository:
    repository = FileSystemRepository(folder / "results")
    repository.store = FullStore(folder / "results")
    return repository


@pytest.mark.parametrize("is_given", [True, False])
def test_full_disk_saves_the_result_in_the_fallback_directory(
    tmp_path: Path,
    clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_given: bool,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    environ = {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path / "spare")} if is_given else {}
    run = make_recording(full_repository(tmp_path), clock, environ=environ)
    with pytest.raises(StorageError, match="No space left on device; .*; the result is in") as raised, run:
        clock.now += 2.0
    [folder] = [tmp_path / "spare"] if is_given else list((tmp_path / "tmp").iterdir())
    assert f"copy it with 'llm-energy-measure results merge {folder}'" in str(raised.value)
    [saved] = FileSystemRepository(folder).load_all_raw("exp_7")
    assert saved == run.result
    [line] = capsys.readouterr().err.splitlines()
    assert msgspec.json.decode(line, type=RawProcessResult) == run.result


def test_result_is_on_stderr_if_the_fallback_fails_too(
    tmp_path: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spare").write_text("a file")
    run = make_recording(
        full_repository(tmp_path), clock, environ={"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path / "spare")}
    )
    with pytest.raises(StorageError, match="on stderr as one line of JSON, and not in the fallback directory"), run:
        pass
    assert msgspec.json.decode(capsys.readouterr().err, type=RawProcessResult) == run.result


def test_result_that_no_place_accepts_is_called_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spare").write_text("a file")
    monkeypatch.setattr("sys.stderr", None)
    message = rescue(factories.raw(), {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path / "spare")})
    assert message.startswith("the result is lost: it is neither on stderr nor in the fallback directory (")


def test_exception_of_the_block_names_the_fallback(tmp_path: Path, clock: ManualClock) -> None:
    environ = {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path / "spare")}
    run: Any = make_recording(full_repository(tmp_path), clock, environ=environ)
    with pytest.raises(BlockError) as raised, run:
        raise BlockError
    assert "the result is in" in raised.value.__notes__[0]

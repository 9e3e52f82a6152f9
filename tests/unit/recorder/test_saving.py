"""A recording into a bucket saves on the local disk first, and loses nothing if the network is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import obstore.store
import pytest

from llm_energy_measure.domain.experiment import Launcher, Manifest
from llm_energy_measure.exceptions import ResultExistsError, StorageError
from llm_energy_measure.recorder.saving import BucketSaving
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.uploads import new_upload, upload_waiting, uploads_folder
from llm_energy_measure.results.store.checkpoints import save_checkpoint
from llm_energy_measure.storage.objects import ObjectStore
from tests.support import factories
from tests.support.recordings import BlockError, make_recording

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.storage.base import Entries
    from tests.support.replay import ManualClock

URL = "s3://bucket/results"


class Bucket(ObjectStore):
    """A bucket in memory whose network can be lost, or hang until `end_hang` is set."""

    def __init__(self) -> None:
        super().__init__(URL, client=obstore.store.MemoryStore(), sleep=lambda _: None)
        self.is_lost = self.hangs = False
        self.end_hang = threading.Event()

    def _send(self) -> None:
        if self.hangs:
            self.end_hang.wait(20)
        if self.is_lost:
            raise StorageError(f"cannot reach {URL}", "the network is unreachable; 8 tries", "check the network")

    def get(self, key: str) -> bytes:
        self._send()
        return super().get(key)

    def create(self, key: str, data: bytes) -> bool:
        self._send()
        return super().create(key, data)

    def put(self, key: str, data: bytes) -> None:
        self._send()
        super().put(key, data)

    def list(self, prefix: str) -> Entries:
        self._send()
        return super().list(prefix)

    def delete(self, key: str) -> bool:
        self._send()
        return super().delete(key)


@pytest.fixture
def network() -> Bucket:
    return Bucket()


@pytest.fixture
def bucket(network: Bucket) -> FileSystemRepository:
    return FileSystemRepository(URL, store=network)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path)}


def end_with_lost_network(network: Bucket) -> None:
    network.is_lost = True
    raise BlockError


def waiting(environ: Mapping[str, str]) -> list[str]:
    """Return the files that are not in the bucket."""
    folder = uploads_folder(URL, environ)
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def upload(bucket: FileSystemRepository, environ: Mapping[str, str]) -> list[Any]:
    """Upload what is not in the bucket, and return the problems."""
    return [problem for _, outcome in upload_waiting(bucket, environ) for problem in outcome.problems]


def record(attempt: int = 0, **changes: Any) -> RawProcessResult:
    return factories.raw("exp_7", launcher=Launcher(name="slurm", attempt=attempt), **changes)


def saving_of(bucket: FileSystemRepository, environ: Mapping[str, str], attempt: int = 0) -> BucketSaving:
    manifest = Manifest(experiment_id="exp_7", expected_processes=1, attempt=attempt)
    bucket.begin_experiment(manifest, 0)
    return BucketSaving(bucket, environ, manifest, patience_sec=0.2)


def test_result_in_the_bucket_leaves_no_local_file(
    bucket: FileSystemRepository, environ: dict[str, str], clock: ManualClock
) -> None:
    run = make_recording(bucket, clock, environ=environ)
    with run:
        run._checkpoint()
        assert waiting(environ) == ["manifest.json", "partial-process_0.json"]
        clock.now += 2.0
    assert str(run.path) == f"{URL}/raw/exp_7/process_0.json"
    assert run.repository is bucket
    assert waiting(environ) == []
    assert [entry.name for entry in bucket.store.list("raw/exp_7")] == ["manifest.json", "process_0.json"]


def test_lost_network_keeps_the_result_until_a_sync(
    network: Bucket,
    bucket: FileSystemRepository,
    environ: dict[str, str],
    clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_recording(bucket, clock, environ=environ)
    with run:
        network.is_lost = True
        clock.now += 2.0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: cannot reach {URL}: the network is unreachable; 8 tries; the result is in {run.path}"
    )
    assert line.endswith(f"; run 'llm-energy-measure results sync {URL}' to upload it")
    assert run.path is not None
    assert run.repository.load_raw(run.path) == run.result
    network.is_lost = False
    assert upload(bucket, environ) == []
    assert bucket.load_all_raw("exp_7") == [run.result]
    assert waiting(environ) == []
    assert upload(bucket, environ) == []


def test_exception_of_the_block_is_raised_without_network(
    network: Bucket, bucket: FileSystemRepository, environ: dict[str, str], clock: ManualClock
) -> None:
    run = make_recording(bucket, clock, environ=environ)
    with pytest.raises(BlockError), run:
        end_with_lost_network(network)
    assert run.result is not None
    assert run.repository.load_all_raw("exp_7")[0].status == "failed"


def test_network_that_hangs_stops_neither_checkpoints_nor_the_end(
    network: Bucket, bucket: FileSystemRepository, environ: dict[str, str]
) -> None:
    saving = saving_of(bucket, environ)
    network.hangs = True
    for seconds in (1.0, 2.0):
        saving.save_checkpoint(record(timestamps=factories.timestamps(duration_sec=seconds)))
    assert waiting(environ) == ["manifest.json", "partial-process_0.json"]
    path = saving.save_result(record(), [])
    assert FileSystemRepository(path.parents[2]).load_all_raw("exp_7") == [record()]
    network.hangs = False
    network.end_hang.set()
    saving.close()
    assert upload(bucket, environ) == []
    assert bucket.load_all_raw("exp_7") == [record()]
    assert waiting(environ) == []


def test_checkpoint_of_a_killed_process_is_uploaded(bucket: FileSystemRepository, environ: dict[str, str]) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    local = new_upload(uploads_folder(URL, environ), "exp_7")
    save_checkpoint(local.store, "exp_7", record())
    assert upload(bucket, environ) == [], "its process runs"
    assert waiting(environ) == ["manifest.json", "partial-process_0.json"]
    host, boot, _, number = local.base_path.name.split("-")
    local.base_path.rename(local.base_path.with_name(f"{host}-{boot}-{int(ended.stdout)}-{number}"))
    assert upload(bucket, environ) == []
    assert bucket.recover_raw("exp_7").partials == [record()]
    assert waiting(environ) == []


def test_next_recording_uploads_the_earlier_result(
    network: Bucket, bucket: FileSystemRepository, environ: dict[str, str], clock: ManualClock
) -> None:
    with make_recording(bucket, clock, environ=environ) as earlier:
        network.is_lost = True
    network.is_lost = False
    with make_recording(bucket, clock, environ=environ, experiment="exp_8"):
        clock.now += 1.0
    assert waiting(environ) == ["manifest.json", "process_0.json"], "its process may still upload it"
    assert earlier.path is not None
    os.utime(earlier.path, (0, 0))
    with make_recording(bucket, clock, environ=environ, experiment="exp_9"):
        clock.now += 1.0
    assert bucket.load_all_raw("exp_7") == [earlier.result]
    assert waiting(environ) == []


def save_without_network(network: Bucket, bucket: FileSystemRepository, environ: dict[str, str]) -> None:
    """Save a result while the network is lost."""
    saving = saving_of(bucket, environ)
    network.is_lost = True
    saving.save_result(record(), [])
    network.is_lost = False


def test_result_of_an_earlier_attempt_goes_to_its_archive(
    network: Bucket, bucket: FileSystemRepository, environ: dict[str, str]
) -> None:
    save_without_network(network, bucket, environ)
    bucket.begin_experiment(Manifest(experiment_id="exp_7", expected_processes=1, attempt=1), 0)
    bucket.save_raw("exp_7", record(1))
    assert upload(bucket, environ) == []
    assert bucket.load_all_raw("exp_7") == [record(1)]
    assert bucket.recover_raw("exp_7", attempt=0).results == [record()]
    assert waiting(environ) == []


def test_refused_result_is_an_error_and_is_kept_in_the_bucket(
    bucket: FileSystemRepository, environ: dict[str, str]
) -> None:
    saving = saving_of(bucket, environ)
    bucket.save_raw("exp_7", record(gpu_name="another"))
    with pytest.raises(ResultExistsError, match="a different result is stored") as refused:
        saving.save_result(record(), [])
    assert str(refused.value.kept) == f"{URL}/raw/exp_7/rejected-process_0-1.json.kept"
    assert waiting(environ) == []


def test_result_that_another_process_removes_is_left_out(
    bucket: FileSystemRepository, environ: dict[str, str], clock: ManualClock
) -> None:
    folder = new_upload(uploads_folder(URL, environ), "exp_8").base_path / "raw" / "exp_8"
    folder.mkdir(parents=True)
    (folder / "process_0.json").symlink_to("absent")  # listed, and absent when it is looked at
    assert upload(bucket, environ) == []
    with make_recording(bucket, clock, environ=environ):
        clock.now += 1.0
    assert [record.process_index for record in bucket.load_all_raw("exp_7")] == [0]


def test_conflict_stays_on_the_local_disk(
    network: Bucket, bucket: FileSystemRepository, environ: dict[str, str]
) -> None:
    save_without_network(network, bucket, environ)
    bucket.save_raw("exp_7", record(gpu_name="another"))
    for _ in range(2):
        assert {problem.outcome for problem in upload(bucket, environ)} == {"conflict"}
        assert waiting(environ) == ["manifest.json", "process_0.json"]


def test_full_local_disk_still_uploads_the_result(
    network: Bucket,
    bucket: FileSystemRepository,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "full").touch()
    saving = saving_of(bucket, {"LLM_ENERGY_MEASURE_FALLBACK_DIR": str(tmp_path / "full")})
    assert str(saving.save_result(record(), [])) == f"{URL}/raw/exp_7/process_0.json"
    assert "cannot save the result on the local disk" in caplog.text
    bucket.delete_experiment("exp_7")
    network.is_lost = True
    with pytest.raises(StorageError, match="the result is on stderr as one line of JSON"):
        saving.save_result(record(), [])
    assert '"experiment_id":"exp_7"' in capsys.readouterr().err.replace(": ", ":")

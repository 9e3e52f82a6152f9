"""Save a result directly into a directory, or first on the local disk and then into a bucket."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from llm_energy_measure.domain.experiment import Manifest, RawProcessResult
from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.exceptions import LLMEnergyMeasureError, StorageError
from llm_energy_measure.recorder.rescue import print_line, rescue
from llm_energy_measure.results.batch.uploads import new_upload, remove_upload, upload_waiting, uploads_folder
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout
from llm_energy_measure.results.store.checkpoints import delete_checkpoint, delete_leftovers, save_checkpoint
from llm_energy_measure.results.store.samples import save_samples
from llm_energy_measure.storage.base import StorePath

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

# The longest wait for an upload at the end of a recording: first of its result, then of earlier results. The result is
# on the local disk, unless it could not be saved there.
_PATIENCE_SEC = 60.0

# A younger result on the local disk is left out if its process may still run, because that process may upload it.
_MIN_AGE_SEC = 5 * _PATIENCE_SEC


class Saving(Protocol):
    """Saves the checkpoints and the result of one process.

    Attributes:
        repository: Where the result is saved.
    """

    repository: FileSystemRepository

    def save_checkpoint(self, record: RawProcessResult) -> None:
        """Save a checkpoint. Raises `LLMEnergyMeasureError`."""

    def save_result(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> Path:
        """Save the result and the samples of the devices, delete the checkpoint, and return the file of the result.

        Raises:
            LLMEnergyMeasureError: The result is not saved under its name. If there is a copy, the message says where.
        """

    def close(self) -> None:
        """End the threads."""


def open_saving(repository: FileSystemRepository, environ: Mapping[str, str], manifest: Manifest) -> Saving:
    """Return the object that saves the checkpoints and the result of a recording to a repository."""
    if isinstance(repository.base_path, StorePath):
        return BucketSaving(repository, environ, manifest)
    return DirectorySaving(repository, environ)


class DirectorySaving:
    """Saves into a results directory.

    Args:
        repository: The results directory.
        environ: Environment variables, for the fallback directory.
    """

    def __init__(self, repository: FileSystemRepository, environ: Mapping[str, str]) -> None:
        self.repository = repository
        self._environ = environ

    def save_checkpoint(self, record: RawProcessResult) -> None:
        """Save a checkpoint."""
        save_checkpoint(self.repository.store, record.experiment_id, record)

    def save_result(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> Path:
        """Save the result. After a `StorageError`, save it in the fallback directory and name its path in the error."""
        with _rescued(record, self._environ):
            path = self.repository.save_raw(record.experiment_id, record)
        _save_samples(self.repository, record, traces)
        _delete_checkpoint(self.repository, record)
        return path

    def close(self) -> None:
        """Do nothing: there are no threads."""


class BucketSaving:
    """Saves on the local disk, and then into a bucket.

    The measured thread never waits for the network: another thread uploads the checkpoints. The end of the recording
    waits for the upload of the result, up to a limit. If the upload fails, the result stays on the local disk, and
    `repository` becomes the directory that contains it.

    Args:
        repository: The results in the bucket.
        environ: Environment variables, for the folder on the local disk.
        manifest: The manifest of the experiment.
        patience_sec: The longest wait for the upload of the result, in seconds.
    """

    def __init__(
        self,
        repository: FileSystemRepository,
        environ: Mapping[str, str],
        manifest: Manifest,
        *,
        patience_sec: float = _PATIENCE_SEC,
    ) -> None:
        self.repository = self._remote = repository
        self._url = str(repository.base_path)
        self._environ = environ
        self._patience_sec = patience_sec
        folder = uploads_folder(self._url, environ)
        self._local = new_upload(folder, layout.folder_name(manifest.experiment_id))
        self._manifest = manifest
        self._newest: RawProcessResult | None = None
        self._has_ended = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Start the thread now, because Python cannot start a thread while Python exits.
        threading.Thread(target=self._run, name="llm-energy-measure-upload", daemon=True).start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def close(self) -> None:
        """End the thread after its last call."""
        self._calls.put(None)

    def save_checkpoint(self, record: RawProcessResult) -> None:
        """Save a checkpoint on the local disk, and start its upload."""
        self._newest = record
        self._calls.put(self._upload_checkpoint)
        self._local.begin_experiment(self._manifest, record.process_index)
        save_checkpoint(self._local.store, record.experiment_id, record)

    def _upload_checkpoint(self) -> None:
        """Upload the newest checkpoint, unless another call has uploaded it or the block has ended. Ignore errors."""
        record, self._newest = self._newest, None
        if record is not None and not self._has_ended:
            with contextlib.suppress(LLMEnergyMeasureError):
                save_checkpoint(self._remote.store, record.experiment_id, record)

    def save_result(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> Path:
        """Save the result on the local disk and in the bucket, and return its path in the bucket.

        If the bucket cannot be reached, print where the result is and how to upload it, and return its local file.
        """
        self._has_ended = True
        kept = self._keep(record, traces)
        try:
            with contextlib.nullcontext() if kept else _rescued(record, self._environ):
                path = self._call_within(lambda: self._upload(record, traces))
        except StorageError as error:
            if kept is None:
                raise
            self.repository = self._local
            advice = f"run 'llm-energy-measure results sync {self._url}' to upload it"
            print_line(f"warning: {error.doing}: {error.found}; the result is in {kept}; {advice}")
            return kept
        except LLMEnergyMeasureError as error:
            if getattr(error, "kept", None) is not None:  # the bucket has the record, under another name
                remove_upload(self._local)
            elif kept is not None:
                error.advice = f"{error.advice}; the result is in {kept}"
            raise
        remove_upload(self._local)
        with contextlib.suppress(LLMEnergyMeasureError, OSError):  # the bucket already has this result
            self._call_within(self._upload_earlier)
        return path

    def _keep(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> Path | None:
        """Save the result on the local disk, and return its file; None if that fails."""
        try:
            self._local.begin_experiment(self._manifest)
            _save_samples(self._local, record, traces)  # first, because a process that finds the result uploads both
            path = self._local.save_raw(record.experiment_id, record)
            _delete_checkpoint(self._local, record)
        except LLMEnergyMeasureError as error:
            _LOG.warning("cannot save the result on the local disk: %s", error)
            return None
        return path

    def _upload(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> Path:
        path = self._remote.save_raw(record.experiment_id, record)
        _save_samples(self._remote, record, traces)
        _delete_checkpoint(self._remote, record)
        return path

    def _upload_earlier(self) -> None:
        """Upload the results that earlier recordings could not upload."""
        for _ in upload_waiting(self._remote, self._environ, min_age_sec=_MIN_AGE_SEC):
            continue

    def _call_within(self, call: Callable[[], T]) -> T:
        """Run a call in the upload thread and return its result. Raise `StorageError` if the call takes too long."""
        from concurrent.futures import Future  # only recordings into a bucket need this import

        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - `Future.result` raises it
                future.set_exception(error)

        self._calls.put(run)
        try:
            return future.result(self._patience_sec)
        except TimeoutError as error:
            found = f"the bucket does not answer within {self._patience_sec:g} s"
            raise StorageError(f"cannot write to {self._url}", found, "check the network") from error


@contextlib.contextmanager
def _rescued(record: RawProcessResult, environ: Mapping[str, str]) -> Iterator[None]:
    """If the block raises `StorageError`, save the result in the fallback directory and name its path in the error."""
    try:
        yield
    except StorageError as error:
        error.advice = f"{error.advice}; {rescue(record, environ)}"
        raise


def _save_samples(repository: FileSystemRepository, record: RawProcessResult, traces: Sequence[PowerTrace]) -> None:
    """Save the samples of the devices. The result is more important, so a failure is only logged."""
    try:
        if traces and not save_samples(repository.store, record.experiment_id, record.process_index, traces):
            _LOG.warning("cannot save the samples: process %s has samples already", record.process_index)
    except LLMEnergyMeasureError as error:
        _LOG.warning("cannot save the samples: %s", error)


def _delete_checkpoint(repository: FileSystemRepository, record: RawProcessResult) -> None:
    """Delete the checkpoint of a process that now has a result, and temporary files of killed processes."""
    delete_checkpoint(repository.store, record.experiment_id, record.process_index)
    with contextlib.suppress(LLMEnergyMeasureError):
        delete_leftovers(repository.store, record.experiment_id, record.process_index)

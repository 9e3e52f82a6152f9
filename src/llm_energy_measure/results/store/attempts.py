"""Attempts of an experiment: begin a run, and archive the results of an earlier attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from llm_energy_measure.constants import MANIFEST_NAME, RAW_DIR
from llm_energy_measure.domain.experiment import Manifest, RawProcessResult
from llm_energy_measure.exceptions import ConfigurationError, ResultCorruptError, ResultExistsError
from llm_energy_measure.results.store import bucket_moves, codec, layout
from llm_energy_measure.results.store.raw_folder import RawFolder
from llm_energy_measure.storage.base import Store

_ADVICE = (
    "use another id, or pass attempt='next' (--attempt next), which archives the earlier results, or attempt='suffix' "
    "(--attempt suffix), which appends a number to the id"
)


def begin_experiment(store: Store, manifest: Manifest, process_index: int | None = None) -> None:
    """Write the manifest before the run, or compare it with the stored one; see `FileSystemRepository`."""
    doing = f"cannot begin experiment {manifest.experiment_id!r}"
    manifest = _as_stored(manifest, doing)
    raw = RawFolder(store, layout.folder_in(store, manifest.experiment_id))
    # A manifest is written before the results. If another process archives the folder between the first listing and the
    # check for the manifest, the second listing is empty.
    if raw.process_indices() and raw.has_no_manifest() and raw.process_indices():
        if not manifest.attempt:
            raise ResultExistsError(doing, "it has results without a manifest, so their run is unknown", _ADVICE)
        with contextlib.suppress(ResultExistsError):  # another process has archived them meanwhile
            raw.claim(Manifest(experiment_id=manifest.experiment_id))  # results of another tool are attempt 0
    stored = raw.claim(manifest)
    while stored.attempt < manifest.attempt:
        stored = _archive(raw, stored, manifest, doing)
    if difference := stored.difference(manifest):
        name, value, own = difference
        raise ResultExistsError(doing, f"{name} is {value!r} in its manifest and {own!r} in this process", _ADVICE)
    if found := _existing_results(stored, manifest, process_index, raw.process_indices()):
        raise ResultExistsError(doing, found, _ADVICE)


def _as_stored(manifest: Manifest, doing: str) -> Manifest:
    """Return the manifest after encoding and decoding; raise `ConfigurationError` if it can't be decoded."""
    try:
        return codec.decode_manifest(codec.encode_manifest(manifest), MANIFEST_NAME)
    except (TypeError, ValueError) as error:
        found = error.found if isinstance(error, ResultCorruptError) else str(error)
        raise ConfigurationError(doing, f"its manifest is not valid ({found})", "correct it") from error


def _archive(raw: RawFolder, stored: Manifest, manifest: Manifest, doing: str) -> Manifest:
    """Archive the folder of the earlier attempt `stored`, and return the manifest of the new folder."""
    kept = layout.earlier_attempt_folder(raw.name, stored.attempt)
    if not raw.store.supports_folder_move:
        bucket_moves.archive(raw.store, raw.name, stored)
        return raw.claim(manifest)
    # Only one of several processes moves the folder, because the store does not replace an existing folder.
    moved = raw.store.move_folder(layout.raw_folder(raw.name), kept)
    now = raw.claim(manifest)
    if not moved and now.attempt == stored.attempt:
        found = f"results of another run with attempt number {stored.attempt} are in {raw.store.path(kept)}"
        raise ResultExistsError(doing, found, "move this folder away")
    return now


def _existing_results(stored: Manifest, own: Manifest, process_index: int | None, indices: Sequence[int]) -> str | None:
    """Return why existing results prevent this run, although the manifests agree; None if they don't prevent it."""
    if process_index is not None:
        return f"process {process_index} already has a result" if process_index in indices else None
    job = own.launcher.job_id if own.launcher is not None else None
    is_same_job = job is not None and stored.launcher is not None and stored.launcher.job_id == job
    return f"{len(indices)} processes already have results" if indices and not is_same_job else None


def archived_attempts(store: Store, folder: str) -> list[int]:
    """Return the numbers of the archived attempts of an experiment, in order."""
    found = [layout.earlier_attempt_of(entry.name) for entry in store.list_range(RAW_DIR, *layout.archives_of(folder))]
    return sorted(attempt[1] for attempt in found if attempt is not None and attempt[0] == folder)


def claim_for(store: Store, folder: str, record: RawProcessResult) -> Manifest:
    """Claim the folder for a record, and return its manifest; raise if the record is of another attempt."""
    attempt = record.launcher.attempt if record.launcher is not None else None
    claimed = RawFolder(store, folder).claim(Manifest(experiment_id=record.experiment_id, attempt=attempt or 0))
    if attempt is not None and attempt != claimed.attempt:
        doing = f"cannot save raw result of process {record.process_index} of {record.experiment_id!r}"
        found = f"its attempt is {attempt}, and the experiment is at attempt {claimed.attempt}"
        raise ResultExistsError(doing, found, "run the process again in the current attempt")
    return claimed

"""State of a stored experiment: does it have a readable aggregate of its current raw files?"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Literal

from msgspec import Struct

from llm_energy_measure.constants import AGGREGATED_DIR, MANIFEST_NAME
from llm_energy_measure.domain.experiment import AggregatedSummary, CompletenessReport, Manifest
from llm_energy_measure.exceptions import ResultAlteredError, ResultCorruptError, ResultsError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout
from llm_energy_measure.results.store.raw_folder import digest_of
from llm_energy_measure.storage.base import Entry
from llm_energy_measure.storage.folder import Folder

Status = Literal["pending", "current", "stale", "external", "altered", "unreadable"]
"""`pending`: no aggregate. `current`: an aggregate of the current raw files. `stale`: an aggregate of other raw files.

`external`: an aggregate of another tool. `altered`: an aggregate in which another program changed values. `unreadable`:
an aggregate that can't be read.
"""


class SourceChanges(Struct, frozen=True, kw_only=True):
    """The differences between an experiment's raw files and the sources of its aggregate: file names, sorted.

    Attributes:
        added: Files that are not sources.
        removed: Sources that no longer exist.
        changed: Sources whose bytes have changed.
    """

    added: list[str]
    removed: list[str]
    changed: list[str]

    def __bool__(self) -> bool:
        """Return True if the raw files differ from the sources of the aggregate."""
        return bool(self.added or self.removed or self.changed)


class ExperimentState(Struct, frozen=True, kw_only=True):
    """State of an experiment.

    Attributes:
        status: See `Status`.
        aggregated: Aggregate of the experiment, if it is readable and its values are not altered.
        changes: The differences between the raw files and the aggregate's sources; None unless the aggregate is stale.
        problem: Why the aggregate is unreadable or altered; None for another status.
    """

    status: Status
    aggregated: AggregatedSummary | None = None
    changes: SourceChanges | None = None
    problem: str | None = None


def stated_processes(aggregated: AggregatedSummary) -> int | None:
    """Return the `expected_processes` that a caller passed for an aggregate; None if no number was passed."""
    report = aggregated.completeness
    return report.expected_processes if report is not None and report.expected_from == "argument" else None


def is_up_to_date(raw: Folder, aggregated: Folder, folder: str) -> bool:
    """Return True if timestamps or a proof object show that the aggregate was made from the current raw files.

    The module `bulk` describes the timestamps. In a bucket, `mark_up_to_date` creates the proof object.
    """
    if not raw.store.supports_mtime:
        proof = _proof(folder, raw.listing(folder), aggregated.entries().get(f"{folder}.json"))
        return proof is not None and not aggregated.is_absent(proof)
    made_ns = aggregated.timestamp_ns(f"{folder}.json")
    changed_ns = None if made_ns is None else raw.timestamp_ns(folder, of_folder=True)
    return made_ns is not None and changed_ns is not None and changed_ns < made_ns


def mark_up_to_date(
    raw: Folder, aggregated: Folder, folder: str, mtime_ns: int, *, aggregate: Entry | None = None
) -> None:
    """Mark an aggregate as made from the current raw files, so that `is_up_to_date` returns True. Ignore errors.

    The caller has stored the aggregate, or has compared its sources with the digests of the raw files.

    Args:
        raw: The folder `raw`, in which the experiment was read.
        aggregated: The folder `aggregated`, listed before the aggregate was read.
        folder: Folder name of the experiment.
        mtime_ns: The new mtime of the aggregate, in nanoseconds since 1970-01-01 UTC. It is not used in a bucket.
        aggregate: The entry of the aggregate, if this process has just stored the aggregate.
    """
    if raw.store.supports_mtime:
        aggregated.set_mtime(f"{folder}.json", mtime_ns)
        return
    aggregate = aggregate or aggregated.entries().get(f"{folder}.json")
    proof = _proof(folder, raw.listing(folder, before_read=True), aggregate)
    if proof is None:
        return
    with contextlib.suppress(ResultsError):
        raw.store.create(f"{AGGREGATED_DIR}/{proof}", b"\n")
        for name in aggregated.names_with(layout.proof_name(folder, "")):
            if layout.proof_folder_of(name) == folder and name != proof:
                raw.store.delete(f"{AGGREGATED_DIR}/{name}")


def _proof(folder: str, listing: list[Entry], aggregate: Entry | None) -> str | None:
    """Return the name of the proof object. Its existence shows that the aggregate was made from the listed raw objects.

    The name contains a digest of the names, sizes and ETags of the raw objects and of the aggregate. The result is None
    if an ETag is unknown, if there is no raw object, or if there is no aggregate.
    """
    if aggregate is None or not listing:
        return None
    found = [(entry.name, entry.size_bytes, entry.version) for entry in (*sorted(listing), aggregate)]
    if not all(version for _, _, version in found):
        return None
    return layout.proof_name(folder, hashlib.sha256(repr(found).encode()).hexdigest()[:32])


def inspect_experiment(repository: FileSystemRepository, experiment_id: str) -> ExperimentState:
    """Return the state of an experiment, with its aggregate if there is a readable one."""
    try:
        aggregated = repository.load_summary(experiment_id)
    except ResultAlteredError as error:
        return ExperimentState(status="altered", problem=f"{error.found}; {error.advice}")
    except ResultCorruptError as error:
        return ExperimentState(status="unreadable", problem=error.found)
    if aggregated is None:
        return ExperimentState(status="pending")
    if aggregated.sources is None:
        return ExperimentState(status="external", aggregated=aggregated)
    changes = source_changes(repository, aggregated)
    return ExperimentState(status="stale" if changes else "current", aggregated=aggregated, changes=changes or None)


def source_changes(repository: FileSystemRepository, aggregated: AggregatedSummary) -> SourceChanges:
    """Return how the raw files differ from the sources of an aggregate. Any difference makes the aggregate stale.

    An aggregate of another tool has no list of sources, and is never stale.
    """
    if aggregated.sources is None:
        return SourceChanges(added=[], removed=[], changed=[])
    folder = repository.folder_of(aggregated.experiment_id)
    unreadable = aggregated.completeness.unreadable if aggregated.completeness else []
    sources = {file.name: file.sha256 for file in unreadable if file.name != MANIFEST_NAME}
    sources |= {file.name: file.sha256 for file in aggregated.sources}
    raw = repository.raw_folder(folder)
    keys = {layout.process_file(index): layout.raw_key(folder, index) for index in raw.process_indices()}
    # Only checkpoints that the aggregate includes are compared: a new checkpoint does not make the aggregate stale.
    partials = [layout.partial_key(folder, index) for index in raw.unfinished_indices()]
    keys |= {name: key for key in partials if (name := key.rpartition("/")[2]) in sources}
    common = keys.keys() & sources.keys()
    changed = [name for name in common if digest_of(repository.store, keys[name]) != sources[name]]
    if _expects_other_number(repository, folder, aggregated.completeness):
        changed.append(MANIFEST_NAME)
    return SourceChanges(
        added=sorted(keys.keys() - sources.keys()),
        removed=sorted(sources.keys() - keys.keys()),
        changed=sorted(changed),
    )


def _expects_other_number(repository: FileSystemRepository, folder: str, report: CompletenessReport | None) -> bool:
    """Return True if the stored manifest and the aggregate expect different numbers of processes."""
    try:
        manifest = repository.load_manifest(folder)
    except ResultsError:
        return False
    return expects_other_number(manifest, report)


def expects_other_number(manifest: Manifest | None, report: CompletenessReport | None) -> bool:
    """Return True if a manifest and the completeness report of an aggregate expect different numbers of processes."""
    if manifest is None or report is None or report.expected_from == "argument":
        return False
    return manifest.expected_processes not in (None, report.expected_processes)

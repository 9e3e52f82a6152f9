"""Merge a results directory whose experiments get a prefix, so that equal ids of two directories do not conflict.

Only the id changes: in the file names, the records, the manifest, the aggregate and the tags. The original id is in
`origin` of each record. The content of rejected and superseded files is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llm_energy_measure.constants import MANIFEST_NAME, RAW_DIR, TAGS_DIR
from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult, process_index_of
from llm_energy_measure.exceptions import ExperimentIdError, ResultAlteredError, ResultCorruptError, ResultsError
from llm_energy_measure.results.batch.merge import (
    MergedFile,
    derived_files,
    merge_results,
    other_entries,
    rename_advice,
    renamed_folder,
)
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import codec, layout
from llm_energy_measure.results.store.tags import decode_tags, encode_tags
from llm_energy_measure.security import sanitize_experiment_id
from llm_energy_measure.storage.memory import MemoryStore

_TOOL = "llm-energy-measure"


def merge_renamed(target: FileSystemRepository, source: FileSystemRepository, prefix: str) -> Iterator[MergedFile]:
    """Copy the contents of a results directory as `merge_results` does; the experiment `x` becomes `<prefix>-x`.

    Args:
        target: The directory to copy into.
        source: The directory to copy from. It is not changed.
        prefix: The prefix; all its characters must be valid in a folder name.
    """
    derived: dict[str, list[str]] = {}
    for key, folder in derived_files(source):
        derived.setdefault(folder, []).append(key)
    raw = {entry.name for entry in source.store.list(RAW_DIR) if entry.is_folder and layout.is_folder_name(entry.name)}
    for folder in sorted(raw | derived.keys()):
        renamed = MemoryStore()
        yield from _rename(source, folder, derived.get(folder, []), prefix, renamed)
        yield from merge_results(target, FileSystemRepository(store=renamed))
    yield from other_entries(source)


def _rename(
    source: FileSystemRepository, folder: str, derived: list[str], prefix: str, renamed: MemoryStore
) -> Iterator[MergedFile]:
    """Put the renamed files of an experiment into the store `renamed`. Yield the files that cannot be renamed."""
    try:
        new_folder = sanitize_experiment_id(f"{prefix}-{folder}")
    except ExperimentIdError as error:  # the new id is too long
        yield MergedFile(key=layout.raw_folder(folder), outcome="failed", reason=str(error))
        return
    names = [entry.name for entry in source.store.list(layout.raw_folder(folder)) if not entry.is_folder]
    if (wrong := renamed_folder(source, folder, names)) is not None:
        yield wrong
        names = []
    digests: dict[tuple[str, str], bytes] = {}
    for name in names:
        key = f"{layout.raw_folder(folder)}/{name}"
        try:
            old = source.store.get(key)
            new = _renamed_raw(old, name, prefix)
        except ResultsError as error:
            yield MergedFile(key=key, outcome="failed", reason=f"it cannot be renamed: {error}")
            continue
        digests[name, codec.digest(old)] = new
        renamed.put(f"{layout.raw_folder(new_folder)}/{name}", new)
    for key in derived:
        parent, _, name = key.partition("/")
        try:
            data = source.store.get(key)
            if parent == TAGS_DIR:
                tags = decode_tags(data, key)
                data = encode_tags(msgspec.structs.replace(tags, experiment_id=f"{prefix}-{tags.experiment_id}"))
            elif not layout.is_superseded_aggregate(name):
                data = _renamed_aggregate(data, key, prefix, digests)
        except ResultsError as error:
            yield MergedFile(key=key, outcome="failed", reason=f"it cannot be renamed: {error}")
        else:
            renamed.put(f"{parent}/{name.replace(folder, new_folder, 1)}", data)


def _renamed_raw(data: bytes, name: str, prefix: str) -> bytes:
    """Return the bytes of a file in the folder of an experiment, with the new id."""
    if not data:
        return data  # the merge reports empty files
    if name == MANIFEST_NAME:
        manifest = codec.decode_manifest(data, name)
        return codec.encode_manifest(
            msgspec.structs.replace(manifest, experiment_id=f"{prefix}-{manifest.experiment_id}")
        )
    if process_index_of(name) is None and layout.partial_index_of(name) is None:
        return data
    return codec.encode_raw(_renamed_record(codec.decode_raw(data, name), prefix))


def _renamed_record(record: RawProcessResult, prefix: str) -> RawProcessResult:
    origin = record.origin or ImportOrigin(tool=_TOOL)
    if origin.experiment_id is msgspec.UNSET:  # a second renaming keeps the first id
        origin = msgspec.structs.replace(origin, experiment_id=record.experiment_id)
    return msgspec.structs.replace(record, experiment_id=f"{prefix}-{record.experiment_id}", origin=origin)


def _renamed_aggregate(data: bytes, key: str, prefix: str, digests: dict[tuple[str, str], bytes]) -> bytes:
    """Return the bytes of an aggregate with the new id and the digests of the renamed files.

    A stale aggregate remains stale. An aggregate without digests of its values does not get them.

    Raises:
        ResultCorruptError: The file is the aggregate of another experiment.
        ResultAlteredError: Another program changed a value, and new digests would hide the change.
    """
    aggregated = codec.decode_aggregated(data, key)
    if not layout.names_folder(aggregated.experiment_id, key.rpartition("/")[2].removesuffix(".json"), any_case=True):
        found = f"it is the aggregate of {aggregated.experiment_id!r}"
        raise ResultCorruptError(f"cannot copy {key}", found, rename_advice(aggregated.experiment_id))
    if aggregated.integrity == "altered":
        found, advice = "another program changed values in it", "run 'llm-energy-measure aggregate' after the merge"
        raise ResultAlteredError(f"cannot copy {key}", found, advice)
    sources = aggregated.sources
    if sources is not None:
        sources = [
            source
            if (new := digests.get((source.name, source.sha256))) is None
            else codec.source_file(source.name, new)
            for source in sources
        ]
    renamed = msgspec.structs.replace(
        aggregated,
        experiment_id=f"{prefix}-{aggregated.experiment_id}",
        process_results=[_renamed_record(record, prefix) for record in aggregated.process_results],
        sources=sources,
    )
    return codec.encode_aggregated(renamed, with_digests=aggregated.integrity == "sealed")


def prefix_of(word: str, source: FileSystemRepository, default_name: str) -> str:
    """Return the prefix for a source: `word`, or the name of the source directory if `word` is `folder`.

    Args:
        word: Value of the option.
        source: The source.
        default_name: Name that most results directories have. The name of the parent directory is used instead of it.
    """
    if word != "folder":
        return word
    path = source.base_path.resolve() if source.store.supports_paths else source.base_path
    return sanitize_experiment_id(path.parent.name if path.name == default_name else path.name)

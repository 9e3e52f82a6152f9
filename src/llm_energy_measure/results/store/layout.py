"""Names in a results directory: the key of each value, and the meaning of each file name. Reads no file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from llm_energy_measure.constants import (
    AGGREGATED_DIR,
    HIDDEN_MARK,
    MANIFEST_NAME,
    MAX_ID_LENGTH,
    MAX_PROCESSES,
    PROCESS_FILE_PATTERN,
    RAW_DIR,
    SUPERSEDED_AGGREGATE_PATTERN,
    TAGS_DIR,
)
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.exceptions import ExperimentIdError
from llm_energy_measure.security import former_folder_name, sanitize_experiment_id, windows_name
from llm_energy_measure.storage.base import Store, names_with
from llm_energy_measure.storage.temporary import target_name

KEPT_SUFFIX = ".kept"
"""Suffix of rejected and superseded files, because other programs read every `.json` file as a result."""

# Earlier releases wrote rejected and superseded files without the suffix.
_KEPT = rf"(?:{re.escape(KEPT_SUFFIX)})?"
_KEPT_IN_RAW = re.compile(
    rf"{PROCESS_FILE_PATTERN}|{re.escape(MANIFEST_NAME)}"
    rf"|(?:rejected|superseded)-process_(?:[0-9]+|unknown)-[0-9]+\.json{_KEPT}|partial-process_[0-9]+\.json"
    rf"|samples-process_[0-9]+\.csv\.gz|superseded-samples-process_[0-9]+-[0-9]+\.csv\.gz{re.escape(KEPT_SUFFIX)}"
)
_EARLIER_ATTEMPT = re.compile(rf"\.(.+){HIDDEN_MARK}attempt-(0|[1-9][0-9]{{0,8}})")
_DELETED = re.compile(rf"\.(.+){HIDDEN_MARK}deleted")
_PROOF = re.compile(rf"\.(.+){HIDDEN_MARK}follows-[0-9a-f]{{32}}")
_HIDDEN = re.compile(rf"\.(.+){HIDDEN_MARK}(?:deleted|archiving)")
_NUMBERED = re.compile(
    rf"((?:rejected|superseded)-process_(?:[0-9]+|unknown))-[0-9]+(\.json){_KEPT}"
    rf"|(superseded-samples-process_[0-9]+)-[0-9]+(\.csv\.gz){re.escape(KEPT_SUFFIX)}"
)
_SAMPLES = re.compile(r"samples-process_(0|[1-9][0-9]{0,5})\.csv\.gz")
# The file name of an aggregate is a name that `former_folder_name` returns unchanged, followed by `.json`.
_AGGREGATE_FILE = re.compile(
    rf"(?!{SUPERSEDED_AGGREGATE_PATTERN}\Z)(?!\.+json\Z)[A-Za-z0-9._-]{{1,{MAX_ID_LENGTH}}}\.json"
)
_SUPERSEDED_AGGREGATE = re.compile(SUPERSEDED_AGGREGATE_PATTERN + _KEPT)

UNNAMED = "_unnamed"
"""Folder of rejected records whose experiment id is not valid."""


def folder_name(experiment_id: str) -> str:
    """Return an experiment's folder name, a part of all its keys. Raises `ExperimentIdError` if the id is not valid."""
    # `_folder_names` has a cache, because a save calls this function three times with the same id. An id that is not a
    # text may not be hashable, so it does not get to the cache.
    return _folder_names(experiment_id)[0] if isinstance(experiment_id, str) else sanitize_experiment_id(experiment_id)


@lru_cache(maxsize=256)
def _folder_names(experiment_id: str) -> tuple[str, str]:
    """Return the folder name of an experiment, and the folder name in earlier releases. They are usually equal."""
    former = former_folder_name(experiment_id)
    return windows_name(former), former


def possible_folders(experiment_id: str) -> set[str]:
    """Return the folder names that an experiment can have, in this or an earlier release.

    Raises:
        ExperimentIdError: The id is not valid.
    """
    return {*_folder_names(experiment_id)}


def folder_in(store: Store, experiment_id: str) -> str:
    """Return the folder name of an experiment in a store. An existing folder under the former name is used.

    Raises:
        ExperimentIdError: The id is not valid.
    """
    folder = folder_name(experiment_id)
    former = _folder_names(experiment_id)[1]
    if former != folder:
        places = ((RAW_DIR, former), (AGGREGATED_DIR, f"{former}.json"))
        if any(store.list_range(parent, name, f"{name}\0") for parent, name in places):
            return former
    return folder


def is_folder_name(name: str) -> bool:
    """Return True if an experiment's folder can have this name, in this or an earlier release."""
    return _AGGREGATE_FILE.fullmatch(f"{name}.json") is not None


def names_folder(experiment_id: str, folder: str, *, any_case: bool = False) -> bool:
    """Return True if this is the folder of the experiment; `any_case` ignores case, as some file systems do."""
    try:
        names = _folder_names(experiment_id)
    except (ExperimentIdError, TypeError):  # TypeError: an id in a damaged file can have any type
        return False
    return folder in names or (any_case and folder.casefold() in (name.casefold() for name in names))


def differs_in_case(experiment_id: str, folder: str) -> bool:
    """Return True if this is the folder of the experiment only on a file system that ignores case."""
    return names_folder(experiment_id, folder, any_case=True) and not names_folder(experiment_id, folder)


def folder_of_key(key: str) -> str:
    """Return the folder name in a key under `raw/`.

    Example:
        >>> folder_of_key("raw/exp_7/process_3.json")
        'exp_7'
    """
    return key.split("/")[1]


def raw_folder(folder: str) -> str:
    """Return the key prefix of an experiment's raw results."""
    return f"{RAW_DIR}/{folder}"


def raw_key(folder: str, process_index: int) -> str:
    """Return the key of a process's raw result.

    Example:
        >>> raw_key("exp_7", 3)
        'raw/exp_7/process_3.json'
    """
    return f"{RAW_DIR}/{folder}/{process_file(process_index)}"


@lru_cache(maxsize=4096)
def process_file(process_index: int) -> str:
    """Return the file name of a process's raw result."""
    return f"process_{process_index}.json"


def partial_key(folder: str, process_index: int) -> str:
    """Return the key of a partial record: a checkpoint, or the sections that were salvaged from a torn result."""
    return f"{RAW_DIR}/{folder}/partial-process_{process_index}.json"


def partial_index_of(name: str) -> int | None:
    """Return the process index in the file name of a partial record; None for another file name.

    Example:
        >>> partial_index_of("partial-process_2.json"), partial_index_of("process_2.json")
        (2, None)
    """
    return process_index_of(name.removeprefix("partial-")) if name.startswith("partial-") else None


def unpublished_index_of(name: str) -> int | None:
    """Return the process index in the name of a temporary file of a result; None for another file name."""
    target = target_name(name) if name.startswith(".") else None
    return None if target is None else process_index_of(target)


def is_timeseries(name: str) -> bool:
    """Return True for the file name of a power series, which a tool with schema 3.0.0 stores next to each result.

    Example:
        >>> is_timeseries("process_0_timeseries.json"), is_timeseries("process_0.json")
        (True, False)
    """
    return re.fullmatch(r"process_[0-9]{1,6}_timeseries\.json", name) is not None


def samples_key(folder: str, process_index: int) -> str:
    """Return the key of the power samples of a process.

    Example:
        >>> samples_key("exp_7", 3)
        'raw/exp_7/samples-process_3.csv.gz'
    """
    return f"{RAW_DIR}/{folder}/samples-process_{process_index}.csv.gz"


def samples_index_of(name: str) -> int | None:
    """Return the process index in the file name of power samples; None for another file name."""
    match = _SAMPLES.fullmatch(name)
    return int(match[1]) if match else None


def superseded_samples_key(folder: str, process_index: int, number: int) -> str:
    """Return the key of power samples that an overwrite replaced; `number` counts from 1."""
    return f"{RAW_DIR}/{folder}/superseded-samples-process_{process_index}-{number}.csv.gz{KEPT_SUFFIX}"


def claim_key(folder: str, name: str, number: int) -> str:
    """Return the key of a claim on a sensor or a rank; `number` counts the claims on the same sensor or rank from 1.

    Example:
        >>> claim_key("exp_7", "cpu@1a2b", 1)
        'raw/exp_7/claim-cpu_1a2b-1.json'
    """
    return f"{RAW_DIR}/{folder}/claim-{sanitize_experiment_id(name)}-{number}.json"


def claim_number(file: str, name: str) -> int | None:
    """Return the number in the file name of a claim on this sensor or rank; None for another file name.

    Example:
        >>> claim_number("claim-cpu_1a2b-3.json", "cpu@1a2b"), claim_number("claim-cpu-3.json", "ram")
        (3, None)
    """
    match = re.fullmatch(rf"claim-{re.escape(sanitize_experiment_id(name))}-([0-9]{{1,7}})\.json", file)
    return int(match[1]) if match else None


def manifest_key(folder: str) -> str:
    """Return the key of an experiment's manifest."""
    return f"{RAW_DIR}/{folder}/{MANIFEST_NAME}"


def earlier_attempt_folder(folder: str, attempt: int) -> str:
    """Return the key prefix of an archived attempt. No experiment can have a folder with this name."""
    return f"{RAW_DIR}/.{folder}{HIDDEN_MARK}attempt-{attempt}"


def archives_of(folder: str) -> tuple[str, str]:
    """Return the range of names in `raw/` that contains all archived attempts of an experiment."""
    return names_with(f".{folder}{HIDDEN_MARK}attempt-")


def earlier_attempt_of(name: str) -> tuple[str, int] | None:
    """Return the experiment's folder name and the attempt in the name of an archive; None for another name.

    Example:
        >>> earlier_attempt_of(".exp_7~attempt-0"), earlier_attempt_of("exp_7")
        (('exp_7', 0), None)
    """
    match = _EARLIER_ATTEMPT.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def deleted_folder(folder: str) -> str:
    """Return the key prefix of a deleted experiment whose files still exist. No experiment has this folder name."""
    return f"{RAW_DIR}/.{folder}{HIDDEN_MARK}deleted"


def deleted_folder_of(name: str) -> str | None:
    """Return the experiment's folder name in the name of a deleted folder; None for another name.

    Example:
        >>> deleted_folder_of(".exp_7~deleted"), deleted_folder_of("exp_7")
        ('exp_7', None)
    """
    match = _DELETED.fullmatch(name)
    return match[1] if match else None


def archiving_folder(folder: str) -> str:
    """Return the key prefix of the marker that exists in a bucket while an attempt is being archived."""
    return f"{RAW_DIR}/.{folder}{HIDDEN_MARK}archiving"


def hidden_folder_of(name: str) -> str | None:
    """Return the experiment's folder name in the name of a marker of a deletion or an archiving; else None.

    Example:
        >>> hidden_folder_of(".exp_7~deleted"), hidden_folder_of(".exp_7~archiving"), hidden_folder_of("exp_7")
        ('exp_7', 'exp_7', None)
    """
    match = _HIDDEN.fullmatch(name)
    return match[1] if match else None


def proof_name(folder: str, digest: str) -> str:
    """Return the name of the object in `aggregated/` that shows that an aggregate in a bucket is current."""
    return f".{folder}{HIDDEN_MARK}follows-{digest}"


def proofs_of(folder: str) -> tuple[str, str]:
    """Return the range of names in `aggregated/` that contains all names from `proof_name` of an experiment."""
    return names_with(proof_name(folder, ""))


def proof_folder_of(name: str) -> str | None:
    """Return the experiment's folder name in a name from `proof_name`; None for another name.

    Example:
        >>> proof_folder_of(proof_name("exp_7", "0" * 32)), proof_folder_of("exp_7.json")
        ('exp_7', None)
    """
    match = _PROOF.fullmatch(name)
    return match[1] if match else None


def rejected_key(folder: str, process_index: object, number: int) -> str:
    """Return the key of a rejected record; `number` counts the rejected records of the process from 1."""
    index = process_index if type(process_index) is int and 0 <= process_index < MAX_PROCESSES else "unknown"
    return f"{RAW_DIR}/{folder}/rejected-process_{index}-{number}.json{KEPT_SUFFIX}"


def superseded_raw_key(folder: str, process_index: int, number: int) -> str:
    """Return the key of a raw result that an overwrite replaced; `number` counts from 1."""
    return f"{RAW_DIR}/{folder}/superseded-process_{process_index}-{number}.json{KEPT_SUFFIX}"


def numbered_keys(folder: str, name: str) -> Callable[[int], str] | None:
    """Return a function from a number to the key of a rejected or superseded file; None for another file name.

    Example:
        >>> numbered_keys("exp_7", "rejected-process_3-1.json")(2), numbered_keys("exp_7", "process_3.json")
        ('raw/exp_7/rejected-process_3-2.json.kept', None)
    """
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return None
    stem, suffix = (match[1], match[2]) if match[1] else (match[3], match[4])
    return lambda number: f"{RAW_DIR}/{folder}/{stem}-{number}{suffix}{KEPT_SUFFIX}"


def aggregated_key(folder: str) -> str:
    """Return the key of an experiment's aggregate."""
    return f"{AGGREGATED_DIR}/{folder}.json"


def superseded_aggregate_key(folder: str, number: int) -> str:
    """Return the key of an aggregate that was replaced and kept; `number` counts from 1."""
    return f"{AGGREGATED_DIR}/superseded-{folder}-{number}.json{KEPT_SUFFIX}"


def superseded_aggregates_of(folder: str) -> tuple[str, str]:
    """Return the range of names in `aggregated/` that contains all replaced aggregates of an experiment."""
    return names_with(f"superseded-{folder}-")


def tags_key(folder: str) -> str:
    """Return the key of an experiment's tags and note."""
    return f"{TAGS_DIR}/{folder}.json"


def is_kept_in_raw(name: str) -> bool:
    """Return True for the file name of a manifest, a result, samples, or a partial, rejected or superseded file.

    Example:
        >>> [is_kept_in_raw(name) for name in ("process_0.json", "rejected-process_0-1.json.kept", "notes.txt")]
        [True, True, False]
    """
    return _KEPT_IN_RAW.fullmatch(name) is not None


def aggregated_folder_of(name: str) -> str | None:
    """Return the folder name of the experiment in the file name of an aggregate; None for another file name.

    Example:
        >>> aggregated_folder_of("exp_7.json"), aggregated_folder_of("superseded-exp_7-1.json.kept")
        ('exp_7', None)
    """
    return name.removesuffix(".json") if _AGGREGATE_FILE.fullmatch(name) else None


def is_superseded_aggregate(name: str) -> bool:
    """Return True if the file name is that of a replaced aggregate, as this or an earlier release writes it."""
    return _SUPERSEDED_AGGREGATE.fullmatch(name) is not None


def superseded_aggregate_folder_of(name: str) -> str | None:
    """Return the folder name of the experiment in the file name of a replaced aggregate; None for another file name.

    Example:
        >>> superseded_aggregate_folder_of("superseded-exp-7-1.json.kept"), superseded_aggregate_folder_of("exp-7.json")
        ('exp-7', None)
    """
    folder = name.removeprefix("superseded-").rpartition("-")[0]
    return folder if is_superseded_aggregate(name) and is_folder_name(folder) else None

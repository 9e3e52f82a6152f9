"""Choose the id and the attempt number of a new run for `attempt="next"` and `attempt="suffix"`."""

from __future__ import annotations

from itertools import count
from typing import Literal

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.recorder.ranks import ProcessRank
from llm_energy_measure.results.store import layout
from llm_energy_measure.results.store.raw_folder import RawFolder
from llm_energy_measure.storage.base import Store

NewAttempt = Literal["next", "suffix"]
"""`next` archives the results of the earlier attempt; `suffix` appends a number to the id."""


def choose_attempt(store: Store, experiment_id: str, how: NewAttempt, rank: ProcessRank) -> tuple[str, int]:
    """Return id and attempt of a new run. All processes of one job get the same values.

    The first process of a job finds the manifest of an earlier job, or a result of its own rank, and chooses the next
    number. The other processes find the manifest of their own job, and use its number.

    Raises:
        ConfigurationError: There are several processes and no launcher gives the id of their job.
    """
    job = rank.launcher.job_id if rank.launcher is not None else None
    if rank.world_size > 1 and job is None:
        found = "several processes have to use the same attempt, and no launcher gives the id of their job"
        raise ConfigurationError(f"cannot use attempt={how!r} for {experiment_id!r}", found, "pass a number: attempt=1")
    if how == "next":
        attempt, is_used = _state(store, experiment_id, rank.process_index, job)
        return experiment_id, attempt + is_used
    for number in count(1):
        name = experiment_id if number == 1 else f"{experiment_id}-{number}"
        attempt, is_used = _state(store, name, rank.process_index, job)
        if not is_used:
            return name, attempt
    raise AssertionError  # unreachable: `count` does not end


def _state(store: Store, experiment_id: str, process_index: int, job: str | None) -> tuple[int, bool]:
    """Return the current attempt number of an experiment, and whether an earlier run has used this number."""
    raw = RawFolder(store, layout.folder_in(store, experiment_id))
    manifest = raw.readable_manifest()
    results = raw.process_indices()
    if manifest is None:
        return 0, bool(results)
    earlier_job = manifest.launcher.job_id if manifest.launcher is not None else None
    is_other_job = None not in (job, earlier_job) and job != earlier_job
    return manifest.attempt, is_other_job or process_index in results

"""Aggregate one stored experiment, as most tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_energy_measure.results import aggregate_all

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository
    from llm_energy_measure.results.batch.bulk import Outcome


def aggregate_one(repository: FileSystemRepository, experiment_id: str, **options: Any) -> Outcome:
    """Return the outcome of one experiment; raise its error if it failed."""
    [outcome] = aggregate_all(repository, [experiment_id], **options)
    if outcome.error is not None:
        raise outcome.error
    return outcome

"""Where a stored experiment stands: is its aggregate there, readable, and made from its raw files as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.exceptions import ResultCorruptError
from llm_energy_measure.results.repository import SourceChanges

if TYPE_CHECKING:
    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.storage.folder import Folder

Status = Literal["pending", "current", "stale", "external", "unreadable"]
"""No aggregate yet; made from the raw files as they are; made from others; made by another tool; can't be read."""


class ExperimentState(Struct, frozen=True, kw_only=True):
    """Where an experiment stands.

    Attributes:
        status: See `Status`.
        aggregated: Its aggregate, if there is a readable one.
        changes: How its raw files differ from the aggregate's sources, if it is stale.
        problem: Why its aggregate can't be read, if it can't.
    """

    status: Status
    aggregated: AggregatedSummary | None = None
    changes: SourceChanges | None = None
    problem: str | None = None


def is_up_to_date(raw: Folder, aggregated: Folder, folder: str) -> bool:
    """True if the stamps say that the raw files are those that the aggregate was made from; see `results.bulk`.

    Args:
        raw: The folder `raw/`.
        aggregated: The folder `aggregated/`.
        folder: The experiment's folder name.
    """
    made_ns = aggregated.timestamp_ns(f"{folder}.json")
    changed_ns = None if made_ns is None else raw.timestamp_ns(folder)
    return made_ns is not None and changed_ns is not None and changed_ns < made_ns


def inspect_experiment(repository: FileSystemRepository, experiment_id: str) -> ExperimentState:
    """Whether an experiment's aggregate is there, readable, and made from its raw files as they are now.

    The aggregate comes without its `process_results`.
    """
    try:
        aggregated = repository.load_summary(experiment_id)
    except ResultCorruptError as error:
        return ExperimentState(status="unreadable", problem=error.found)
    if aggregated is None:
        return ExperimentState(status="pending")
    if aggregated.sources is None:
        return ExperimentState(status="external", aggregated=aggregated)
    changes = repository.source_changes(aggregated)
    return ExperimentState(status="stale" if changes else "current", aggregated=aggregated, changes=changes or None)

"""Aggregate one experiment, as most tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_energy_measure.results import aggregate_all
from llm_energy_measure.results.aggregation import AggregationOptions
from llm_energy_measure.results.batch.verify import _aggregate_and_verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
    from llm_energy_measure.results import FileSystemRepository
    from llm_energy_measure.results.batch.bulk import AggregationOutcome
    from llm_energy_measure.verification.checks import Verification


def aggregate_one(repository: FileSystemRepository, experiment_id: str, **options: Any) -> AggregationOutcome:
    """Return the outcome of one experiment; raise its error if it failed."""
    [outcome] = aggregate_all(repository, [experiment_id], **options)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def aggregate_and_verify(
    experiment_id: str, records: Sequence[RawProcessResult], **options: Any
) -> tuple[AggregatedResult, Verification]:
    """Return the aggregated result and every finding, passed checks included."""
    return _aggregate_and_verify(experiment_id, records, AggregationOptions(**options))

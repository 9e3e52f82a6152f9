"""Read the experiments of a report or a figure: one snapshot of the catalogue for all tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from msgspec import Struct

from llm_energy_measure.analysis.energies import energy_of
from llm_energy_measure.analysis.observations import METRICS, EnergyKind, Observation, figures_of, observations_of
from llm_energy_measure.catalogue.facts import ExperimentFacts
from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.reader import CataloguedExperiment, paused_collector
from llm_energy_measure.catalogue.selection import Group, Query
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.results.repository import FileSystemRepository

Bounds = tuple[float, float | None]
"""The least and the greatest value that the records allow; None if they give no greatest value."""


class Results(Struct, frozen=True, kw_only=True, dict=True):
    """The experiments of a report.

    Attributes:
        repository: The results directory.
        where: The condition that selects the experiments. None if all are selected.
        kind: Kind of the energies: attributed, or plain sums.
        experiments: The selected experiments with an aggregate, sorted by id.
        observations: Observations of the experiments, in the same order.
        total: Totals of the experiments. None without experiments.
        pending: The selected experiments without an aggregate.
        values: Further values by column and experiment id.
    """

    repository: FileSystemRepository
    where: str | None
    kind: EnergyKind
    experiments: list[CataloguedExperiment]
    observations: list[Observation]
    total: Group | None
    pending: list[ExperimentSummary]
    values: dict[str, dict[str, Any]]

    @cached_property
    def by_id(self) -> dict[str, CataloguedExperiment]:
        """The experiments by id."""
        return {one.summary.experiment_id: one for one in self.experiments}

    @cached_property
    def observation_of(self) -> dict[str, Observation]:
        """The observations by experiment id."""
        return {one.experiment_id: one for one in self.observations}

    def bounds(self, experiment_id: str, metric: str) -> Bounds | None:
        """Return the least and the greatest value of a metric; None if it does not use the energy, or is unknown."""
        one = self.by_id[experiment_id]
        energy = energy_of(one.summary, self.kind)
        if not METRICS[metric].uses_energy or energy.low_j is None:
            return None
        facts = one.facts or ExperimentFacts()
        low, high = (figures_of(one.summary, facts, end_j)[metric] for end_j in (energy.low_j, energy.high_j))
        if low is None or high is None:
            return None
        # If processes are missing, their tokens are missing too. The energy per token is then no lower bound. If only
        # components of the energy are missing, all tokens are known, so the energy per token is a lower bound.
        is_open = energy.is_lower_bound and (metric in ("energy", "power") or energy.is_partial)
        return (low, None if is_open else high)

    def anchor(self, experiment_id: str) -> str:
        """Return the id of the row of an experiment in the document."""
        return f"e-{self.repository.folder_of(experiment_id)}"


@paused_collector()
def read_results(
    repository: FileSystemRepository,
    *,
    where: str | None = None,
    kind: EnergyKind = "attributed",
    by: Sequence[str] = (),
    columns: Sequence[str] = (),
    uses_energy: bool = True,
    warn: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Results:
    """Return the selected experiments of a results directory.

    Args:
        repository: The results directory.
        where: Condition in the grammar of `results list --where`. None selects all.
        kind: `attributed` counts each joule once; `plain` uses the plain sums.
        by: Values that separate repeats; see `read_observations`.
        columns: Further columns of the catalogue to read.
        uses_energy: Whether an undetermined energy excludes an experiment.
        warn: Function that is called with a message if the catalogue cannot be used.
        on_progress: Function that is called with a message before long work.

    Raises:
        ConfigurationError: The condition or a column is wrong.
    """
    query = Query(where=where, energy=kind)
    only_pending = "status = pending" if where is None else f"({where}) and status = pending"

    def read(catalogue: Catalogue) -> tuple[Any, ...]:
        ids = ["id", *columns]
        return (
            catalogue.experiments(query),
            catalogue.groups(query, []),
            catalogue.summaries(Query(where=only_pending, with_pending=True, energy=kind)),
            catalogue.values(query, ids) if columns else [],
        )

    # A column can be a configuration key. The name of a key is found among the keys of all experiments.
    needed = query.ids() if not columns else None
    found, groups, pending, rows = query_catalogue(
        repository, read, full=True, ids=needed, warn=warn, on_progress=on_progress
    )
    return Results(
        repository=repository,
        where=where,
        kind=kind,
        experiments=found,
        observations=observations_of(found, str(repository.base_path), energy=kind, by=by, uses_energy=uses_energy),
        total=groups[0] if found else None,
        pending=pending,
        values={name: {row[0]: row[number] for row in rows} for number, name in enumerate(columns, start=1)},
    )

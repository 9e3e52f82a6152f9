"""What the checks see of an experiment."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.domain.experiment import CompletenessReport, Manifest, RawProcessResult
from llm_energy_measure.results.verification.processes import Process, by_host, processes_of

if TYPE_CHECKING:
    from datetime import datetime

    from llm_energy_measure.domain.experiment import StoredBytes
    from llm_energy_measure.domain.metrics import EnergyMetrics, InferenceMetrics


class Evidence(Struct, frozen=True, kw_only=True, dict=True):
    """The facts of one experiment, from which every finding follows and nothing else does.

    What several checks look at is taken from the records once, a list a figure, in the order of the records. Most
    processes of most experiments are unremarkable: a check asks such a list first whether any process can be amiss, and
    only then goes through them one by one.

    Attributes:
        experiment_id: The experiment's id.
        records: Its readable results, at least one, by process index.
        report: What was expected and what was found.
        manifest: What was written down before the run, if anything was.
    """

    experiment_id: str
    records: list[RawProcessResult]
    report: CompletenessReport
    manifest: Manifest | None = None

    @cached_property
    def processes(self) -> list[Process]:
        """The processes that left the records; see `processes_of`."""
        return processes_of(self.records)

    @cached_property
    def hosts(self) -> dict[str | None, list[Process]]:
        """The processes by host; see `by_host`."""
        return by_host(self.processes)

    @cached_property
    def energies(self) -> list[EnergyMetrics]:
        """The energy of each process."""
        return [record.energy_metrics for record in self.records]

    @cached_property
    def works(self) -> list[InferenceMetrics | None]:
        """The work of each process; None if it counted none."""
        return [record.inference_metrics for record in self.records]

    @cached_property
    def totals_j(self) -> list[float | None]:
        """The total energy of each process, in joules; None if unknown."""
        return [energy.total_energy_j for energy in self.energies]

    @cached_property
    def starts(self) -> list[datetime]:
        """When processes started, as far as that is known."""
        return [start for record in self.records if (start := record.timestamps.start) is not None]

    @cached_property
    def ends(self) -> list[datetime]:
        """When processes ended, as far as that is known."""
        return [end for record in self.records if (end := record.timestamps.end) is not None]

    @cached_property
    def is_naive(self) -> set[bool]:
        """Whether their stamps have no UTC offset: of some that may be true, and of others not."""
        return {stamp.tzinfo is None for stamp in self.starts + self.ends}

    @cached_property
    def stored(self) -> list[StoredBytes | None]:
        """The file of each record; None if it came from none."""
        return [record.stored for record in self.records]

    @cached_property
    def any_sensors(self) -> bool:
        """Whether any process recorded the readings of its sensors."""
        return any(energy.sensors for energy in self.energies)

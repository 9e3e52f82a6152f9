"""One experiment in a notebook."""

from __future__ import annotations

from llm_energy_measure.analysis.energies import EnergyKind, energy_of
from llm_energy_measure.api.html import table_html
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain import formatting
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.results.batch.verify import VerifiedExperiment, verify_experiment
from llm_energy_measure.results.repository import FileSystemRepository

_HEADERS = (("fact", "left"), ("value", "left"))


class Experiment:
    """One experiment of a results directory. `load(...)[experiment_id]` returns it.

    Attributes:
        repository: The results directory.
        summary: The facts about the experiment that `results list` uses, such as its energy and its verdict.
        energy: Kind of the energy in the notebook table: `attributed` or `plain`.
    """

    def __init__(self, repository: FileSystemRepository, summary: ExperimentSummary, energy: EnergyKind) -> None:
        """Store the arguments. No file is read."""
        self.repository = repository
        self.summary = summary
        self.energy: EnergyKind = energy

    @property
    def result(self) -> AggregatedResult | None:
        """The aggregate; None if the experiment is not aggregated yet. See `FileSystemRepository.load_aggregated`."""
        return self.repository.load_aggregated(self.summary.experiment_id)

    @property
    def raw(self) -> list[RawProcessResult]:
        """The raw results, one per process. See `FileSystemRepository.load_all_raw`."""
        return self.repository.load_all_raw(self.summary.experiment_id)

    def verify(self) -> VerifiedExperiment:
        """Recompute the experiment from its raw files, and return the verdict and all findings."""
        return verify_experiment(self.repository, self.summary.experiment_id)

    def __repr__(self) -> str:
        """Return one line with the id, the energy and the verdict."""
        return f"<Experiment {self.summary.experiment_id}: {self._energy()}, {self.summary.verdict}>"

    def _energy(self) -> str:
        return energy_of(self.summary, self.energy).cell()

    def _repr_html_(self) -> str:
        """Return an HTML table of the main facts for a notebook, and the codes of failed checks below the table."""
        row = self.summary
        found, expected = formatting.count(row.found_processes), formatting.count(row.expected_processes)
        facts = {
            "verdict": formatting.verdict(row.verdict, row.attribution_basis),
            f"{self.energy} energy": self._energy(),
            "tokens": formatting.count(row.total_tokens),
            "model": row.model_name or formatting.UNKNOWN,
            "precision": ", ".join(row.precision) or formatting.UNKNOWN,
            "GPUs": ", ".join(row.gpus) or formatting.UNKNOWN,
            "processes": f"{found}/{expected}",
        }
        codes = f"checks that failed: {', '.join(row.failed)}" if row.failed else None
        notes = [note for note in (codes, *row.problems) if note is not None]
        return table_html(row.experiment_id, _HEADERS, [list(fact) for fact in facts.items()], notes=notes)

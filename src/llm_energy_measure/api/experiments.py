"""The function `load`, and the class of its return value, `Experiments`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llm_energy_measure.analysis import documents
from llm_energy_measure.analysis.comparison import compare
from llm_energy_measure.analysis.energies import NOTES, EnergyKind, energy_of, require_unit
from llm_energy_measure.analysis.observations import Observation, read_observations
from llm_energy_measure.analysis.pairing import Selection
from llm_energy_measure.analysis.repeats import DEFAULT_METRICS, repeats_of
from llm_energy_measure.analysis.selections import column, full_names, sides_of
from llm_energy_measure.analysis.verdicts import DEFAULT_MARGIN
from llm_energy_measure.api.arguments import metrics_of, names_of, text_of
from llm_energy_measure.api.experiment import Experiment
from llm_energy_measure.api.html import table_html
from llm_energy_measure.api.tables import ComparisonTable, RepeatTable, written
from llm_energy_measure.catalogue.export_table import exported_table, select_columns
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.query import where_clause
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain import formatting
from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError, ResultNotFoundError, StorageError
from llm_energy_measure.results.batch.bulk import aggregate_all
from llm_energy_measure.results.repository import FileSystemRepository

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from matplotlib.axes import Axes

    from llm_energy_measure.reports.plots import Kind

_HEADERS = (
    *(("id", "left"), ("model", "left"), ("processes", "right"), ("energy", "right"), ("tokens", "right")),
    *(("tokens/J", "right"), ("verdict", "left")),
)


def load(
    path: str | os.PathLike[str] | None = None,
    where: str | None = None,
    *,
    energy: EnergyKind = "attributed",
    aggregate: bool = False,
) -> Experiments:
    """Return the experiments of a results directory that match a condition.

    Args:
        path: The results directory. None is the default directory, as in `FileSystemRepository()`.
        where: Condition in the grammar of `results list --where`, for example `model ~ llama and energy < 1 kJ`. None
            selects all experiments.
        energy: `attributed` counts each joule once. `plain` uses the totals of the strategy, by default the plain sums
            over processes.
        aggregate: Aggregate pending and stale experiments first. Incomplete experiments stay pending or stale.

    Raises:
        StorageError: The directory does not exist.
        ConfigurationError: The condition or the kind of energy is wrong.

    Example:
        >>> load("results", where="model ~ llama").to_pandas()  # doctest: +SKIP
    """
    repository = FileSystemRepository(None if path is None else os.fspath(path))
    if (found := repository.missing_reason()) is not None:
        raise StorageError(f"cannot load {repository.base_path}", found, "pass the path of a results directory")
    if energy not in ("attributed", "plain"):
        raise ConfigurationError("cannot load", f"{energy!r} is no kind of energy", "use 'attributed' or 'plain'")
    if where is not None:
        where_clause(where, COLUMNS)  # a wrong condition raises here, and not in the first method call
    if aggregate:
        for _ in aggregate_all(repository):
            pass
    return Experiments(repository, where, energy)


class Experiments:
    """The experiments of a results directory that match a condition.

    `load` creates objects of this class. Each method reads the current state of the directory. The catalogue stores the
    facts of unchanged files, so a method reads only changed files.

    Attributes:
        repository: The results directory.
        where: The condition. None selects all experiments.
        energy: Kind of the energies: `attributed` or `plain`.
    """

    def __init__(self, repository: FileSystemRepository, where: str | None, energy: EnergyKind) -> None:
        """Store the arguments. No file is read."""
        self.repository = repository
        self.where = where
        self.energy: EnergyKind = energy

    def summaries(self) -> list[ExperimentSummary]:
        """Return one summary per experiment, sorted by id. Experiments that are not aggregated yet are included."""
        query = Query(where=self.where, with_pending=True, energy=self.energy)
        return query_catalogue(self.repository, lambda catalogue: catalogue.summaries(query), full=True)

    @property
    def ids(self) -> list[str]:
        """The sorted ids of the experiments. Experiments that are not aggregated yet are included."""
        return [row.experiment_id for row in self.summaries()]

    def __len__(self) -> int:
        query = Query(where=self.where, with_pending=True, energy=self.energy)
        return query_catalogue(self.repository, lambda catalogue: catalogue.count(query), full=True)

    def __iter__(self) -> Iterator[ExperimentSummary]:
        return iter(self.summaries())

    def __getitem__(self, experiment_id: str) -> Experiment:
        """Return the experiment with this id.

        Raises:
            ResultNotFoundError: The selected experiments do not include this id.
        """
        for row in self.summaries():
            if row.experiment_id == experiment_id:
                return Experiment(self.repository, row, self.energy)
        doing, found = f"cannot load the experiment {experiment_id!r}", f"it is not in {self!r}"
        raise ResultNotFoundError(doing, found, "use one of the ids in the attribute 'ids'")

    def where_also(self, where: str) -> Experiments:
        """Return the experiments of this object that also match `where`."""
        joined = where if self.where is None else f"({self.where}) and ({where})"
        return load(self.repository.base_path, joined, energy=self.energy)

    def to_pandas(self, table: str = "experiments") -> pd.DataFrame:
        """Return the aggregated experiments as a pandas DataFrame. Each cell is a scalar.

        Args:
            table: `experiments` (one row per experiment), `processes` or `findings`.

        Raises:
            MissingExtraError: pandas or pyarrow is not installed.
            ConfigurationError: The table does not exist.
        """
        from llm_energy_measure.catalogue.frames import to_pandas

        return to_pandas(self.repository, table, ids=self._frame_ids())

    def to_polars(self, table: str = "experiments") -> pl.DataFrame:
        """Return the aggregated experiments as a polars DataFrame; see `to_pandas`."""
        from llm_energy_measure.catalogue.frames import to_polars

        return to_polars(self.repository, table, ids=self._frame_ids())

    def to_latex(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> str:
        """Return the aggregated experiments as a LaTeX table for the package booktabs; write the table to `path`.

        Args:
            path: The file. None writes no file.
            columns: Columns of the table, by the names of `results export --columns`. None selects the default columns.
            unit: Unit of energies and energies per token: `J`, `mJ`, `kJ`, `MJ`, `Wh` or `kWh`. None chooses a unit for
                each column.

        Raises:
            ConfigurationError: A column or the unit is unknown, or a unit is given and no column has an energy.
            ExportError: The file can't be written.
        """
        return self._document("latex", path, columns, unit)

    def to_markdown(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> str:
        """Return the aggregated experiments as a Markdown table; see `to_latex`."""
        return self._document("markdown", path, columns, unit)

    def _document(
        self,
        form: documents.Form,
        path: str | os.PathLike[str] | None,
        columns: Sequence[str] | None,
        unit: str | None,
    ) -> str:
        require_unit(unit)
        ids = self._frame_ids()
        folders = None if ids is None else [self.repository.folder_of(name) for name in ids]
        exported = query_catalogue(self.repository, lambda catalogue: list(catalogue.exported(folders)), full=True)
        known = [one for one in exported if one.values is not None]  # noqa: PD011 - it is no data frame
        names = list(documents.COLUMNS) if columns is None else documents.column_names(columns)
        table = select_columns(exported_table(known), names, [one.summary for one in known])
        document = documents.document_of(table, [one.summary for one in known], energy=self.energy, unit=unit)
        return written(document.encoded(form).decode(), path)

    def _frame_ids(self) -> list[str] | None:
        if self.where is None:
            return None
        query = Query(where=self.where, energy=self.energy)
        rows = query_catalogue(self.repository, lambda catalogue: catalogue.values(query, ["id"]), full=True)
        return [name for [name] in rows]

    def observations(
        self,
        *,
        where: str | None = None,
        split_by: Sequence[str] = (),
        ignore: Sequence[str] = (),
        by: Sequence[str] = (),
        metrics: Sequence[str] | None = None,
    ) -> list[Observation]:
        """Return the aggregated experiments as observations; see `analysis.observations.read_observations`."""
        conditions = [f"({text})" for text in (self.where, where) if text is not None]
        return read_observations(
            self.repository,
            where=" and ".join(conditions) or None,
            energy=self.energy,
            split_by=split_by,
            ignore=ignore,
            by=by,
            metrics=metrics,
        )

    def repeats(
        self,
        metrics: str | Sequence[str] = DEFAULT_METRICS,
        *,
        by: str | Sequence[str] = (),
        split_by: str | Sequence[str] = (),
        ignore: str | Sequence[str] = (),
    ) -> RepeatTable:
        """Return mean and spread over the repeats of each configuration; see `results repeats --help`.

        Args:
            metrics: Names of metrics, such as `j_per_token`.
            by: Further values in which repeats must agree: `tag.KEY`, `config.KEY`, `date` or `host`.
            split_by: Configuration keys in which repeats must agree, although these keys are ignored by default.
            ignore: Configuration keys or facts in which repeats may differ.

        Raises:
            ConfigurationError: A name is unknown.
        """
        names = metrics_of(metrics)
        observations = self.observations(
            split_by=names_of(split_by), ignore=names_of(ignore), by=names_of(by), metrics=names
        )
        return RepeatTable(repeats_of(observations, names), self.energy)

    def compare(
        self,
        *selections: str | Experiments,
        by: str | None = None,
        base: object = None,
        metrics: str | Sequence[str] = "j_per_token",
        margin: float = DEFAULT_MARGIN,
        block: str | None = None,
        vary: str | Sequence[str] = (),
        ignore: str | Sequence[str] = (),
    ) -> ComparisonTable:
        """Compare configurations; see `results compare --help`.

        Args:
            selections: The base and one or more candidates: conditions, or objects that `load` returned. If there is
                only one selection, it is the candidate, and this object is the base.
            by: A column. The runs with the value `base` are the base, and each other value is a candidate. `by` cannot
                be used with `selections`.
            base: The value of the column `by` for the base.
            metrics: Names of metrics, such as `j_per_token`.
            margin: Smallest relative change of the mean that matters, between 0 and 1.
            block: A column, such as `date`, `host` or `tag.KEY`. Runs with equal values form a block. If at least three
                blocks have runs of both sides, the test is paired and uses only these blocks. None pairs no runs.
            vary: Fields, such as `gpu`, that may differ between base and candidate.
            ignore: Configuration keys or facts in which the runs of one configuration may differ.

        Raises:
            ConfigurationError: A name or a value is unknown, or the sides have no comparable runs.
            IncompatibleResultsError: The runs differ in a field, such as the GPU, that is not in `vary`.

        Example:
            >>> load("results").compare(by="config.batch_size", base=1)  # doctest: +SKIP
        """
        if by is not None:
            if base is None or selections:
                found = "`by` needs the argument `base`, and cannot be used with selections"
                raise ConfigurationError("cannot compare", found, "call compare(by='config.batch_size', base=1)")
            base_side, candidates = sides_of(self.observations(), by, text_of(base))
        else:
            if not selections or base is not None:
                found = "there is no candidate" if base is None else "`base` needs the argument `by`"
                raise ConfigurationError("cannot compare", found, "pass two conditions, or `by` and `base`")
            sides = [self._side(one) for one in selections]
            base_side, *candidates = sides if len(sides) > 1 else [self._side(self), *sides]
        runs = [one for side in (base_side, *candidates) for one in side.observations]
        comparison = compare(
            base_side,
            candidates,
            metrics=metrics_of(metrics),
            margin=margin,
            vary=full_names(names_of(vary), runs, "cannot vary"),
            ignore=full_names(names_of(ignore), runs, "cannot ignore"),
            block_of=None if block is None else column(block, runs, f"cannot pair by {block}"),
        )
        return ComparisonTable(comparison, self.energy)

    def plot(
        self,
        x: str,
        y: str = "j_per_output_token",
        *,
        by: str | None = None,
        kind: Kind = "points",
        pareto: bool = False,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one mark with its 95 % interval for each configuration, and return the axes; see `results plot --help`.

        Args:
            x: Value on the x axis: a metric such as `itl_p50`, a numeric column, `config.KEY` or `tag.KEY`.
            y: Value on the y axis: a metric or a numeric column.
            by: A configuration key or a fact. Each of its values has a colour.
            kind: `points`, `bars`, `box` or `line`.
            pareto: Whether to draw the Pareto front.
            ax: Axes of matplotlib to draw on. None creates a new figure with pyplot.

        Raises:
            MissingExtraError: matplotlib is not installed.
            ConfigurationError: A name is unknown, or no experiment has both values.

        Example:
            >>> load("results").plot("config.batch_size", by="model", kind="line")  # doctest: +SKIP
        """
        # Other methods do not need these imports.
        from llm_energy_measure.reports.drawing import axes_of
        from llm_energy_measure.reports.figures import Choice, figure_of, read_for
        from llm_energy_measure.reports.plots import KINDS

        if kind not in KINDS:
            raise ConfigurationError("cannot draw", f"{kind!r} is no kind of figure", f"use one of {', '.join(KINDS)}")
        choice = Choice(x=x, y=y, by=by, kind=kind, is_front_drawn=pareto)
        results = read_for(self.repository, choice, where=self.where, kind=self.energy)
        return axes_of(figure_of(results, choice), ax)

    def _side(self, selection: str | Experiments) -> Selection:
        if isinstance(selection, Experiments):
            return Selection(selection.where or str(selection.repository.base_path), selection.observations())
        return Selection(selection, self.observations(where=selection))

    def __repr__(self) -> str:
        """Return one line with the directory, the condition and the number of experiments by verdict."""
        return f"<Experiments {self._title()}>"

    def _title(self) -> str:
        selected = "" if self.where is None else f" where {self.where}"
        try:
            verdicts = Counter(row.verdict for row in self.summaries())
        except LLMEnergyMeasureError as error:
            return f"{self.repository.base_path}{selected}: {error}"
        words = [f"{number} {verdict}" for verdict, number in verdicts.most_common()]
        number = formatting.plural(verdicts.total(), "experiment")
        return f"{self.repository.base_path}{selected}: {', '.join([number, *words])}"

    def _repr_html_(self) -> str:
        """Return an HTML table of the first `MAX_ROWS` experiments for a notebook."""
        try:
            rows = self.summaries()
        except LLMEnergyMeasureError as error:
            return table_html(str(error), _HEADERS, [])
        cells = [self._cells(row) for row in rows]
        signs = {row[3][0] for row in cells}
        return table_html(self._title(), _HEADERS, cells, notes=[NOTES[sign] for sign in NOTES if sign in signs])

    def _cells(self, row: ExperimentSummary) -> list[str]:
        energy = energy_of(row, self.energy)
        tokens_per_joule = row.tokens_per_joule if self.energy == "plain" else row.attributed_tokens_per_joule
        return [
            row.experiment_id,
            row.model_name or formatting.UNKNOWN,
            f"{formatting.count(row.found_processes)}/{formatting.count(row.expected_processes)}",
            energy.cell(),
            formatting.count(row.total_tokens),
            energy.efficiency_cell(tokens_per_joule),
            formatting.verdict(row.verdict, row.attribution_basis),
        ]

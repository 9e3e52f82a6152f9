"""Build the report of a results directory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_energy_measure.analysis.comparison import Comparison
from llm_energy_measure.analysis.observations import EnergyKind
from llm_energy_measure.analysis.repeats import repeats_of
from llm_energy_measure.catalogue.query import no_match_hint
from llm_energy_measure.catalogue.sqlite_schema import COLUMNS
from llm_energy_measure.exceptions import ResultNotFoundError
from llm_energy_measure.reports import experiments, sections
from llm_energy_measure.reports.document import Report, Section
from llm_energy_measure.reports.html import encode_report
from llm_energy_measure.reports.reading import Results, read_results
from llm_energy_measure.results.exporters import write_export
from llm_energy_measure.results.repository import FileSystemRepository

_TITLE = "Energy report"


def write_report(
    repository: FileSystemRepository,
    path: str | Path,
    *,
    where: str | None = None,
    kind: EnergyKind = "attributed",
    warn: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the report of a results directory to a file, and return its path.

    Args:
        repository: The results directory.
        path: The file, which is replaced if it exists.
        where: Condition in the grammar of `results list --where`. None selects all experiments.
        kind: `attributed` counts each joule once; `plain` uses the plain sums.
        warn: Function that is called with a message if the catalogue cannot be used.

    Raises:
        ResultNotFoundError: No experiment is selected.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    results = read_results(repository, where=where, kind=kind, warn=warn)
    return write_export(path, encode_report(build_report(results)))


def build_report(
    results: Results,
    *,
    comparison: Comparison | None = None,
    commands: Sequence[str] = (),
    on_step: Callable[[Sequence[str]], Iterator[str]] = iter,
) -> Report:
    """Return the report of experiments.

    Args:
        results: The experiments.
        comparison: A comparison to show.
        commands: Command lines that create the report and the comparison; the report lists them.
        on_step: Function that gets the ids of the aggregates to read, returns an iterator over these ids, and may show
            progress.

    Raises:
        ResultNotFoundError: There is no experiment.
    """
    if not results.experiments and not results.pending:
        found = f"no experiment in {results.repository.base_path} is selected"
        hint = no_match_hint(results.where, COLUMNS)
        advice = hint or "run 'llm-energy-measure results list --all' to list all ids"
        raise ResultNotFoundError("cannot write a report", found, advice)
    repeats = repeats_of(results.observations, sections.REPEATS_METRICS)
    aggregates = experiments.read_aggregates(results, on_step=on_step)
    found_sections = [
        sections.summary(results),
        sections.energy_per_output_token(results, repeats),
        sections.trade_off(results, repeats),
        experiments.breakdown(results, repeats, aggregates),
        sections.repeats_section(results, repeats),
        None if comparison is None else sections.comparison(comparison, results.kind),
        experiments.power_section(aggregates.power),
        sections.provenance(results),
        sections.experiments_table(results),
        experiments.details_section(aggregates),
        sections.excluded(results, repeats),
        sections.environment(results),
        _how_to_reproduce(results, commands),
    ]
    title = _TITLE if results.where is None else f"{_TITLE}: {results.where}"
    return Report(title=title, sections=[section for section in found_sections if section is not None])


def _how_to_reproduce(results: Results, commands: Sequence[str]) -> Section:
    """Return the section with the commands that compute the numbers of the report again."""
    directory = results.repository.base_path.name or "results"
    where = "" if results.where is None else f" --where {shlex.quote(results.where)}"
    energy = "" if results.kind == "attributed" else " --energy plain"
    no_strict = " --no-strict" if any(one.summary.is_lower_bound for one in results.experiments) else ""
    program = f"llm-energy-measure -o {shlex.quote(directory)}"
    return Section(
        name="reproduce",
        title="How to reproduce",
        paragraphs=[
            "The raw files determine every number. The commands aggregate and check the files, and print the numbers.",
            "Equal results give an equal report, byte for byte.",
        ],
        commands=[
            f"{program} aggregate --all --force{no_strict}",
            f"{program} results verify --all",
            f"{program} results list{where}{energy} --json",
            f"{program} results repeats{where}{energy} --json",
            *commands,
        ],
    )

"""`llm-energy-measure aggregate`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from llm_energy_measure.catalogue.following import keep_catalogue
from llm_energy_measure.cli import formatting, options, selection, streams, terminal
from llm_energy_measure.cli.assume import parse_assumptions
from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.results.batch import bulk
from llm_energy_measure.results.batch.shards import Shard
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.layout import KEPT_SUFFIX
from llm_energy_measure.results.strategies import get_strategy
from llm_energy_measure.verification.codes import SUM_FAMILIES
from llm_energy_measure.verification.verdicts import VERDICTS, verdict_of

_MAX_ERRORS = 10
"""Maximum number of errors that `aggregate --all` prints without -v."""

_SKIPPED = {
    "current": "is up to date",
    "external": "was aggregated by another tool; use --force to replace its aggregate",
}
_JSON_FIELDS = (
    *("total_energy_j", "attributed_energy_j", "attribution_factor", "total_tokens"),
    *("avg_tokens_per_second", "is_lower_bound"),
)


@click.command(
    epilog=options.examples(
        "aggregate --all", "aggregate 'sweep_*' --no-strict", "aggregate exp_7 --assume gpu-scope=host"
    )
)
@selection.ids_argument
@click.option("--all", "all_experiments", is_flag=True, help="Aggregate all pending and stale experiments.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Aggregate also experiments that are up to date, or that another tool aggregated.",
)
@click.option(
    "--strict/--no-strict",
    default=True,
    show_default=True,
    help="Refuse incomplete experiments; --no-strict aggregates them as lower bounds.",
)
@click.option(
    "--allow-mixed-backends",
    "allow_mixed",
    is_flag=True,
    help="Accept results of different models or backends in one experiment.",
)
@click.option("--strategy", metavar="NAME", help="Use this strategy. [default: sum_energy_avg_throughput]")
@click.option(
    "--expected-processes",
    metavar="N",
    type=options.WholeNumber(min=1),
    help="Expect N processes. [default: from the manifest or the raw results]",
)
@click.option(
    "--assume",
    "assumed",
    metavar="KEY=VALUE",
    multiple=True,
    help="State a fact that the records don't contain: gpu-scope=device|host|process, hosts=N, boards=N, board=NAME; "
    "'none' removes the facts of an earlier aggregation. Can be repeated.",
)
@options.rehash_option
@click.option(
    "--jobs", metavar="N", type=options.WholeNumber(min=1), help="Number of worker processes. [default: automatic]"
)
@options.shard_option
@options.executor_option
@options.json_option
@options.shared_options
@streams.finish_work
def aggregate(
    *,
    ids: tuple[str, ...],
    all_experiments: bool,
    assumed: tuple[str, ...],
    rehash: bool,
    jobs: int | None,
    shard: Shard | None,
    executor: str | None,
    as_json: bool,
    **rule: Any,
) -> None:
    """Aggregate the raw results of each experiment into one result.

    If an experiment fails, its old aggregate is kept, and the command continues. The exit status is 1
    if any experiment failed. --all prints errors and a summary; -v also prints a line about each experiment. If you
    interrupt the command, run the command again: --all skips experiments that are up to date.
    """
    options.require_ids_or_all(ids, all_experiments=all_experiments)
    options.require_all_for(all_experiments=all_experiments, shard=shard, executor=executor)
    if rule["strategy"] is not None:
        with options.usage_errors("--strategy"):
            get_strategy(rule["strategy"])
    with options.usage_errors("--assume"):
        rule["assume"] = parse_assumptions(assumed) if assumed else None
    repository = options.repository(is_absolute=executor is not None)
    if all_experiments:
        outcomes = _aggregate_all(repository, executor, rehash=rehash, jobs=jobs or "auto", shard=shard, **rule)
    else:
        ids = tuple(selection.selected(repository, ids, must_exist=False))
        outcomes = _aggregate_ids(repository, ids, rule)
    summary = _Summary()
    is_detailed = not all_experiments or terminal.is_verbose()

    def documents() -> Iterator[dict[str, Any]]:
        for outcome in _with_progress(outcomes, lambda: len(ids) or bulk.count_folders(repository, shard)):
            summary.add(outcome)
            _print_problems(outcome, with_error=is_detailed or summary.results["failed"] <= _MAX_ERRORS)
            if is_detailed:
                _print_outcome(outcome, as_json=as_json, is_named=not all_experiments)
            yield _document(repository, outcome) if as_json else {}

    if as_json:
        terminal.print_json_list(documents())
    else:
        for _ in documents():
            pass
    if all_experiments or summary.results.total() > 1:
        summary.print(with_findings=not is_detailed)
    if summary.results["failed"]:
        raise SystemExit(1)


class _Summary:
    """Numbers of experiments for the summary.

    Attributes:
        results: Number of experiments by outcome.
        verdicts: Number of new aggregates by verdict.
        codes: Number of new aggregates by code of their errors and warnings.
    """

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def add(self, outcome: bulk.AggregationOutcome) -> None:
        """Count the outcome of one experiment."""
        self.results[outcome.result] += 1
        result = outcome.aggregated
        if result is not None and outcome.result == "aggregated":
            self.verdicts[verdict_of(result)] += 1
            self.codes.update({*result.codes_of("error"), *result.warning_codes})

    def print(self, *, with_findings: bool) -> None:
        """Print the number of experiments by outcome on stderr.

        Args:
            with_findings: Print also the numbers of new aggregates by verdict and by code, and the number of errors
                that were not printed.
        """
        results = self.results
        skipped = results["current"] + results["external"]
        interrupted = f", {results['interrupted']:,} interrupted" if results["interrupted"] else ""
        if with_findings and (hidden := results["failed"] - _MAX_ERRORS) > 0:
            terminal.error(f"{formatting.plural(hidden, 'more experiment')} failed; -v prints each reason")
        if with_findings and self.verdicts:
            terminal.info(f"verdicts: {_listed({word: self.verdicts[word] for word in VERDICTS})}")
        if with_findings and self.codes:
            advice = "'llm-energy-measure results verify --all' explains them"
            terminal.info(f"findings: {_listed(dict(self.codes.most_common()))}; {advice}")
        counts = f"{results['aggregated']:,} aggregated, {skipped:,} skipped, {results['failed']:,} failed"
        terminal.info(counts + interrupted)


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)


def _aggregate_all(
    repository: FileSystemRepository, executor: str | None, **arguments: Any
) -> Iterator[bulk.AggregationOutcome]:
    with options.executor_arguments(executor, repository) as how:
        yield from keep_catalogue(repository, bulk.aggregate_all(repository, **(arguments | how)))


def _aggregate_ids(
    repository: FileSystemRepository, ids: Sequence[str], rule: dict[str, Any]
) -> Iterator[bulk.AggregationOutcome]:
    """Aggregate the experiments with these ids one by one. An unknown id gives the outcome `failed`."""
    for name in ids:
        try:
            options.require_known(repository, name)
        except LLMEnergyMeasureError as error:
            yield bulk.AggregationOutcome(experiment_id=name, result="failed", error=error)
        else:
            yield from bulk.aggregate_all(repository, [name], **rule)


def _with_progress(
    outcomes: Iterator[bulk.AggregationOutcome], count: Callable[[], int]
) -> Iterator[bulk.AggregationOutcome]:
    """Return the outcomes. Show a progress bar if stderr is a terminal and `count()` is at least 2."""
    if terminal.shows_progress():
        total = count()
        if total > 1:
            # Only commands that print a table or a progress display import rich.
            from llm_energy_measure.cli.progress import with_progress_bar

            return with_progress_bar(outcomes, "aggregating", total)
    return outcomes


def _print_outcome(outcome: bulk.AggregationOutcome, *, as_json: bool, is_named: bool) -> None:
    """Print one line with the result of an experiment, and its warnings and failed checks."""
    name = outcome.experiment_id
    result = outcome.aggregated
    is_new = outcome.result == "aggregated"
    if result is not None and (is_new or is_named):
        for warning in result.aggregation.warnings:
            terminal.warn(f"{name}: {warning}")
    if result is not None and is_new and (codes := _codes_without_warning(result)):
        failed = f"{formatting.plural(len(codes), 'check')} failed ({', '.join(codes)})"
        terminal.info(f"{name}: {failed}; run 'llm-energy-measure results verify {name}' for details")
    if result is not None and is_new:
        _print_assumptions(result)
    if as_json:
        return
    if outcome.result in _SKIPPED:
        show = terminal.print_text if is_named and result is not None else terminal.debug
        show(f"{name} {_SKIPPED[outcome.result]}")
    elif result is not None:
        terminal.print_text(formatting.aggregate_line(result))


def _print_problems(outcome: bulk.AggregationOutcome, *, with_error: bool) -> None:
    """Print a line for each unreadable or unpublished file, and the reason if there is no new aggregate."""
    name = outcome.experiment_id
    for file in outcome.unreadable:
        terminal.warn(f"{name}/{file.name} is unreadable: {file.reason}")
    for text in outcome.unpublished:
        terminal.warn(text)
    if outcome.was_altered:
        kept = f"aggregated/superseded-{name}-*{KEPT_SUFFIX}"
        terminal.warn(f"{name}: another program changed values of the aggregate; the changed file is kept as {kept}")
    if outcome.error is not None and with_error:
        terminal.error(outcome.error)
    if outcome.result == "interrupted":
        found = "no process has a result, because all were killed or have not ended"
        terminal.warn(f"{name}: {found}; 'llm-energy-measure aggregate {name} --no-strict' uses the last checkpoints")


def _print_assumptions(result: AggregatedSummary) -> None:
    for finding in result.findings or ():
        if finding.code == "attribution.assumed":
            terminal.info(f"{result.experiment_id}: assumed {finding.message}")


def _codes_without_warning(result: AggregatedSummary) -> list[str]:
    """Return the codes of errors and warnings that the warnings of the aggregate do not mention."""
    families = ("completeness", *SUM_FAMILIES)
    warnings = result.aggregation.warnings
    warned = {one.code for one in result.findings or () if one.family in families or one.message in warnings}
    return [code for code in result.codes_of("error", "warning") if code not in warned]


def _document(repository: FileSystemRepository, outcome: bulk.AggregationOutcome) -> dict[str, Any]:
    result = outcome.aggregated
    if result is None and outcome.result == "current":  # --all does not read an aggregate that is up to date
        with contextlib.suppress(LLMEnergyMeasureError):
            result = repository.load_summary(outcome.experiment_id)
    return {
        "experiment_id": outcome.experiment_id,
        "result": outcome.result,
        **{name: getattr(result, name, None) for name in _JSON_FIELDS},
        "warnings": result.aggregation.warnings if result else [],
        "failed": result.failed_codes if result else [],
        "unreadable": [{"name": file.name, "reason": file.reason} for file in outcome.unreadable],
        "error": str(outcome.error) if outcome.error else None,
    }

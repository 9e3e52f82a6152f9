"""`llm-energy-measure aggregate`."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.results.batch import bulk
from llm_energy_measure.results.strategies import get_strategy
from llm_energy_measure.verification.codes import SUM_FAMILIES
from llm_energy_measure.verification.completeness import describe_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm_energy_measure.domain.experiment import AggregatedSummary
    from llm_energy_measure.results.repository import FileSystemRepository

_SAID = {"current": "is current, nothing to do", "external": "was derived by another tool; --force replaces it"}


@click.command(
    epilog=("\b\nExamples:\n  llm-energy-measure aggregate --all\n  llm-energy-measure aggregate exp_7 --no-strict")
)
@options.experiment_ids(required=False)
@click.option("--all", "every", is_flag=True, help="All pending and stale experiments.")
@click.option("--force", is_flag=True, help="Also those that are current, or that another tool derived.")
@click.option("--strict/--no-strict", default=True, show_default=True, help="Refuse incomplete experiments.")
@click.option("--strategy", metavar="NAME", help="Rule to aggregate by. [default: sum_energy_avg_throughput]")
@click.option("--expected-processes", metavar="N", type=click.IntRange(min=1), help="Processes that should be there.")
@click.option("--rehash", is_flag=True, help="Open all: edits in place leave no stamp on a folder.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Processes at work. [default: what pays]")
@options.json_option
@options.shared_options
def aggregate(
    *,
    ids: tuple[str, ...],
    every: bool,
    force: bool,
    strict: bool,
    strategy: str | None,
    expected_processes: int | None,
    rehash: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Make one result of each experiment's processes.

    An experiment that fails keeps the aggregate it had, and the others go on. The exit status is 1 if any failed. With
    --all, one whose folder did not change since it was aggregated is not opened. Interrupted, the next run goes on.
    """
    if every == bool(ids):
        raise click.UsageError("Name experiments, or give --all.")
    if strategy is not None:
        _require_strategy(strategy)
    repository = options.repository()
    rule: dict[str, Any] = {
        "strategy": strategy,
        "expected_processes": expected_processes,
        "strict": strict,
        "force": force,
    }
    if every:
        outcomes = bulk.aggregate_all(repository, rehash=rehash, jobs=jobs or "auto", **rule)
    else:
        outcomes = _named(repository, ids, rule)
    counts: Counter[str] = Counter()

    def documents() -> Iterator[dict[str, Any]]:
        for outcome in _with_bar(repository, outcomes, ids):
            counts[outcome.result] += 1
            _say(outcome, as_json=as_json, is_named=not every)
            yield _document(repository, outcome) if as_json else {}

    if as_json:
        terminal.out_json_items(documents())
    else:
        for _ in documents():
            pass
    if every or counts.total() > 1:
        skipped = counts["current"] + counts["external"]
        terminal.note(f"{counts['aggregated']} aggregated, {skipped} skipped, {counts['failed']} failed")
    if counts["failed"]:
        raise SystemExit(1)


def _named(repository: FileSystemRepository, ids: Sequence[str], rule: dict[str, Any]) -> Iterator[bulk.Outcome]:
    """The outcomes of experiments that were named, each of which has to be there."""
    for name in ids:
        try:
            options.require_known(repository, name)
        except LLMEnergyMeasureError as error:
            yield bulk.Outcome(experiment_id=name, result="failed", error=error)
        else:
            yield from bulk.aggregate_all(repository, [name], **rule)


def _with_bar(
    repository: FileSystemRepository, outcomes: Iterator[bulk.Outcome], ids: Sequence[str]
) -> Iterator[bulk.Outcome]:
    """The outcomes, with a bar on stderr where that is a terminal and there are several."""
    if terminal.is_terminal(sys.stderr):
        total = len(ids) or bulk.count_folders(repository)
        if total > 1:
            from llm_energy_measure.cli.progress import with_bar

            return with_bar(outcomes, "aggregating", total)
    return outcomes


def _require_strategy(name: str) -> None:
    try:
        get_strategy(name)
    except ConfigurationError as error:
        raise click.BadParameter(f"{error.found}; {error.advice}", param_hint="--strategy") from error


def _say(outcome: bulk.Outcome, *, as_json: bool, is_named: bool) -> None:
    """One line about an experiment, and what is amiss with it."""
    for file in outcome.unreadable:
        terminal.warn(f"{outcome.experiment_id}/{file.name} is unreadable: {file.reason}")
    if outcome.error is not None:
        terminal.error(outcome.error)
    result = outcome.aggregated
    if result is None:
        if outcome.result == "current" and not as_json:
            terminal.detail(f"{outcome.experiment_id} {_SAID['current']}")
        return
    for warning in result.aggregation.warnings:
        if outcome.result == "aggregated" or is_named:
            terminal.warn(f"{outcome.experiment_id}: {warning}")
    if outcome.result == "aggregated" and (untold := _untold(result)):
        terminal.note(
            f"{outcome.experiment_id}: {terminal.plural(len(untold), 'check')} failed ({', '.join(untold)}); "
            f"'results verify {outcome.experiment_id}' explains"
        )
    if as_json:
        return
    if outcome.result != "aggregated":
        say = terminal.out if is_named else terminal.detail
        say(f"{outcome.experiment_id} {_SAID[outcome.result]}")
        return
    found = describe_found(result.completeness)
    energy = terminal.energy(result.total_energy_j, at_least="at least " if result.is_lower_bound else "")
    terminal.out(f"{outcome.experiment_id}: {found}, {energy}, {terminal.count(result.total_tokens)} tokens")


def _untold(result: AggregatedSummary) -> list[str]:
    """Codes of failed checks that no warning tells."""
    told = {finding.code for finding in result.findings or () if finding.family in ("completeness", *SUM_FAMILIES)}
    return [code for code in result.failed_codes if code not in told]


def _document(repository: FileSystemRepository, outcome: bulk.Outcome) -> dict[str, Any]:
    result = outcome.aggregated
    if result is None and outcome.result == "current":  # it was not opened
        with contextlib.suppress(LLMEnergyMeasureError):
            result = repository.load_summary(outcome.experiment_id)
    return {
        "experiment_id": outcome.experiment_id,
        "result": outcome.result,
        "total_energy_j": result.total_energy_j if result else None,
        "attributed_energy_j": result.attributed_energy_j if result else None,
        "attribution_factor": result.attribution_factor if result else None,
        "total_tokens": result.total_tokens if result else None,
        "avg_tokens_per_second": result.avg_tokens_per_second if result else None,
        "is_lower_bound": result.is_lower_bound if result else None,
        "warnings": result.aggregation.warnings if result else [],
        "failed": result.failed_codes if result else [],
        "unreadable": [{"name": file.name, "reason": file.reason} for file in outcome.unreadable],
        "error": str(outcome.error) if outcome.error else None,
    }

"""`llm-energy-measure aggregate`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError
from llm_energy_measure.results import bulk
from llm_energy_measure.results.completeness import describe_found
from llm_energy_measure.results.strategies import get_strategy
from llm_energy_measure.results.verification.codes import SUM_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm_energy_measure.domain.experiment import AggregatedResult
    from llm_energy_measure.results.repository import FileSystemRepository

_SAID = {"current": "is current, nothing to do", "foreign": "was derived by another tool; --force replaces it"}


@click.command(
    epilog=("\b\nExamples:\n  llm-energy-measure aggregate --all\n  llm-energy-measure aggregate exp_7 --no-strict")
)
@options.experiment_ids(required=False)
@click.option("--all", "every", is_flag=True, help="All pending and stale experiments.")
@click.option("--force", is_flag=True, help="Also those that are current, or that another tool derived.")
@click.option("--strict/--no-strict", default=True, show_default=True, help="Refuse incomplete experiments.")
@click.option("--strategy", metavar="NAME", help="Rule to aggregate by. [default: sum_energy_avg_throughput]")
@click.option("--expected-processes", metavar="N", type=click.IntRange(min=1), help="Processes that should be there.")
@options.json_option
@options.results_dir_option
def aggregate(
    *,
    ids: tuple[str, ...],
    every: bool,
    force: bool,
    strict: bool,
    strategy: str | None,
    expected_processes: int | None,
    as_json: bool,
) -> None:
    """Make one result of each experiment's processes.

    An experiment that fails keeps the aggregate it had, and the others go on. The exit status is 1 if any failed.
    """
    if every == bool(ids):
        raise click.UsageError("Name experiments, or give --all.")
    if strategy is not None:
        _require_strategy(strategy)
    repository = options.repository()
    outcomes = []
    for outcome in _outcomes(
        repository.list_experiments() if every else ids,
        repository,
        check_ids=not every,
        strategy=strategy,
        expected_processes=expected_processes,
        strict=strict,
        force=force,
    ):
        outcomes.append(outcome)
        _say(outcome, as_json=as_json, is_named=not every)
    if as_json:
        terminal.out_json([_document(outcome) for outcome in outcomes])
    _count(outcomes, is_sweep=every)
    if any(outcome.result == "failed" for outcome in outcomes):
        raise SystemExit(1)


def _require_strategy(name: str) -> None:
    try:
        get_strategy(name)
    except ConfigurationError as error:
        raise click.BadParameter(f"{error.found}; {error.advice}", param_hint="--strategy") from error


def _outcomes(
    ids: Sequence[str],
    repository: FileSystemRepository,
    *,
    check_ids: bool,
    **rule: Any,  # noqa: ANN401 - passed through
) -> Iterator[bulk.Outcome]:
    """The outcomes, one by one, with a bar on stderr where that is a terminal."""
    with contextlib.ExitStack() as stack:
        progress = None
        if len(ids) > 1 and terminal.is_terminal(sys.stderr):
            from rich.console import Console  # noqa: PLC0415 - rich is imported only when it draws
            from rich.progress import Progress  # noqa: PLC0415

            progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            task = progress.add_task("aggregating", total=len(ids))
        for name in ids:
            try:
                if check_ids:
                    options.require_known(repository, name)
                [outcome] = bulk.aggregate_all(repository, [name], **rule)
            except LLMEnergyMeasureError as error:
                outcome = bulk.Outcome(experiment_id=name, result="failed", error=error)
            if progress is None:
                yield outcome
            else:
                # What is said of an experiment would otherwise stand in the line of the bar.
                progress.stop()
                yield outcome
                progress.start()
                progress.advance(task)


def _say(outcome: bulk.Outcome, *, as_json: bool, is_named: bool) -> None:
    """One line about an experiment, and what is amiss with it."""
    for file in outcome.unreadable:
        terminal.warn(f"{outcome.experiment_id}/{file.name} is unreadable: {file.reason}")
    if outcome.error is not None:
        terminal.error(outcome.error)
    result = outcome.aggregated
    if result is None:
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
    energy, tokens = terminal.quantity(result.total_energy_j, "J"), terminal.count(result.total_tokens)
    bound = "at least " if result.is_lower_bound else ""
    terminal.out(f"{outcome.experiment_id}: {found}, {bound}{energy}, {tokens} tokens")


def _untold(result: AggregatedResult) -> list[str]:
    """Codes of failed checks that no warning tells."""
    told = {finding.code for finding in result.findings or () if finding.family in ("completeness", *SUM_FAMILIES)}
    return [code for code in result.failed_codes if code not in told]


def _count(outcomes: Sequence[bulk.Outcome], *, is_sweep: bool) -> None:
    aggregated = sum(outcome.result == "aggregated" for outcome in outcomes)
    failed = sum(outcome.result == "failed" for outcome in outcomes)
    skipped = len(outcomes) - aggregated - failed
    if is_sweep or len(outcomes) > 1:
        terminal.note(f"{aggregated} aggregated, {skipped} skipped, {failed} failed")


def _document(outcome: bulk.Outcome) -> dict[str, Any]:
    result = outcome.aggregated
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

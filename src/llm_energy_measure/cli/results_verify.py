"""`llm-energy-measure results verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from llm_energy_measure.cli import formatting, options, selection, streams, terminal
from llm_energy_measure.domain.findings import SEVERITIES, Finding, Severity
from llm_energy_measure.results.batch.shards import Shard
from llm_energy_measure.results.batch.verify import VerifiedExperiment, names_to_verify, verify_all
from llm_energy_measure.verification.codes import CODES
from llm_energy_measure.verification.concurrency import CODE as CONCURRENT
from llm_energy_measure.verification.verdicts import VERDICTS

_FIELDS = (
    "experiment_id",
    "outcome",
    "verdict",
    "total_energy_j",
    "partial_energy_j",
    "is_lower_bound",
    "attributed_energy_j",
    "attributed_bounds_j",
    "attribution_status",
    "attribution_basis",
    "factor",
)
_FINDING_FIELDS = ("code", "outcome", "severity", "reason", "message", "expected", "found", "effect_j", "processes")
_MAX_ERROR_LINES = 12
_MAX_NAMES = 5


@click.command(
    epilog=options.examples(
        "results verify --all",
        "results verify 'exp_*' --json",
        "results verify --all --fail-on warning,sources.changed",
    )
)
@selection.selection_options
@click.option(
    "--all", "all_experiments", is_flag=True, help="Verify all experiments, and compare them with each other."
)
@click.option(
    "--fail-on",
    metavar="NAME,...",
    default="error",
    show_default=True,
    help="Exit with status 1 on findings of these severities (or higher), codes or families.",
)
@options.shard_option
@options.executor_option
@options.json_option
@options.shared_options
@streams.finish_work
def verify(
    *,
    ids: tuple[str, ...],
    where: str | None,
    all_experiments: bool,
    fail_on: str,
    shard: Shard | None,
    executor: str | None,
    as_json: bool,
) -> None:
    """Verify experiments: recompute them from their raw files, and explain each check that failed.

    For one experiment, the output has the verdict (see 'results list --help'), the plain sum over processes, the
    attributed energy, which counts each joule once, and all errors and warnings. For several experiments, the output
    has the number of experiments per code, the errors, the experiments without a result, and the experiments that
    counted the same joules. With -q, the output has only the errors. -v also prints all findings of each experiment.
    The command writes no file. The verdicts pending, partial and interrupted do not count as errors. With --shard, only
    experiments of one shard are compared with each other. docs/reference/checks.md explains codes and severities.
    """
    options.require_ids_or_all(ids, all_experiments=all_experiments, where=where)
    options.require_all_for(all_experiments=all_experiments, shard=shard, executor=executor)
    selected = _selected(fail_on)
    repository = options.repository(is_absolute=executor is not None)
    names = names_to_verify(repository) if all_experiments else selection.selected(repository, ids, where)
    if shard is not None:
        names = [name for name in names if shard.has(name)]
    with options.executor_arguments(executor, repository) as how:
        verified = list(verify_all(repository, names, **how))
    if as_json:
        terminal.print_json([_document(experiment) for experiment in verified])
    elif len(verified) == 1:
        _print_experiment(verified[0])
    else:
        _print_summary(verified)
    if all_experiments or len(names) > 1:
        found = Counter(experiment.verdict for experiment in verified)
        counts = ", ".join(f"{found[word]:,} {word}" for word in VERDICTS if found[word])
        terminal.info(f"{formatting.plural(len(verified), 'experiment')} verified: {counts or 'none'}")
    if any(not selected.isdisjoint(_reported(experiment)) for experiment in verified):
        raise SystemExit(1)


def _selected(fail_on: str) -> set[tuple[str, Severity]]:
    """Return the pairs (code, severity) that the value of --fail-on selects."""
    selected: set[tuple[str, Severity]] = set()
    for part in fail_on.split(","):
        name = part.strip()
        if name in SEVERITIES:
            severities = SEVERITIES[: SEVERITIES.index(name) + 1]
            selected |= {(code, severity) for code in CODES for severity in severities}
            continue
        matching = {code for code in CODES if name in (code, code.partition(".")[0])}
        if not matching:
            families = ", ".join(dict.fromkeys(code.partition(".")[0] for code in CODES))
            message = (
                f"unknown severity, code or family {name!r}; the severities are {', '.join(SEVERITIES)}, and the "
                f"families are {families}"
            )
            raise click.BadParameter(message, param_hint="--fail-on")
        selected |= {(code, severity) for code in matching for severity in SEVERITIES}
    return selected


def _reported(experiment: VerifiedExperiment) -> set[tuple[str, Severity]]:
    """Return code and severity of each finding that failed or has a message."""
    return {(finding.code, finding.severity or "error") for finding in experiment.findings if finding.is_reported}


def _print_experiment(experiment: VerifiedExperiment) -> None:
    """Print the verdict, the plain sum and the attributed energy in one line.

    The next lines have each error and warning, and the codes of the other findings.
    """
    terminal.print_text(_headline(experiment))
    for line in _lines(experiment, "error", "warning"):
        terminal.print_text(line)
    infos = sorted({code for code, severity in _reported(experiment) if severity == "info"})
    if infos:
        terminal.print_text(f"  info {', '.join(infos)} (-v explains)")
    _print_details(experiment, "info")


def _print_summary(verified: Sequence[VerifiedExperiment]) -> None:
    """Print the number of experiments per code, the most severe first, and the first errors. -q prints only errors."""
    counts = Counter(pair for experiment in verified for pair in _reported(experiment))
    if terminal.is_quiet():
        counts.clear()
    if counts:
        terminal.print_text("experiments  severity  code")
    for (code, severity), number in sorted(
        counts.items(), key=lambda row: (SEVERITIES.index(row[0][1]), -row[1], row[0][0])
    ):
        terminal.print_text(f"{number:>11,}  {severity:<8}  {code}")
    printed = 0
    failed = [experiment for experiment in verified if experiment.outcome == "failed"]
    for position, experiment in enumerate(failed):
        lines = [_headline(experiment), *_lines(experiment, "error")]
        if printed and printed + len(lines) > _MAX_ERROR_LINES:
            terminal.print_text(
                f"{formatting.plural(len(failed) - position, 'more experiment')} with errors; -v prints all"
            )
            break
        printed += len(lines)
        for line in lines:
            terminal.print_text(line)
    _print_names("interrupted, no process has a result", [one for one in verified if one.verdict == "interrupted"])
    concurrent = [one for one in verified if any(code == CONCURRENT for code, _ in _reported(one))]
    _print_names("counted the same joules, so do not add their energies (-v explains)", concurrent)
    for experiment in verified:
        terminal.debug(_headline(experiment))
        _print_details(experiment, *SEVERITIES)


def _print_names(text: str, experiments: Sequence[VerifiedExperiment]) -> None:
    """Print a text and the first experiments in one line. -q hides this line, because it reports no error."""
    if experiments and not terminal.is_quiet():
        names = ", ".join(one.experiment_id for one in experiments[:_MAX_NAMES])
        others = f" and {len(experiments) - _MAX_NAMES} more" if len(experiments) > _MAX_NAMES else ""
        terminal.print_text(f"{text}: {names}{others}")


def _headline(experiment: VerifiedExperiment) -> str:
    total_j, mark = experiment.total_energy_j, "≥ " if experiment.is_lower_bound else ""
    plain = formatting.quantity(experiment.partial_energy_j if total_j is None else total_j, "J")
    bounds_j = experiment.attributed_bounds_j
    attributed = formatting.attributed_energy(experiment.attributed_energy_j, bounds_j, experiment.factor)
    verdict = formatting.verdict(experiment.verdict, experiment.attribution_basis)
    text = f"{experiment.experiment_id}: {verdict}, plain sum {mark}{plain}"
    return text if bounds_j is None else f"{text}, attributed {mark}{attributed}"


def _lines(experiment: VerifiedExperiment, *severities: Severity) -> Iterator[str]:
    """Yield one line for each reported finding of these severities, in the order of the severities."""
    for severity in severities:
        for finding in experiment.findings:
            if finding.is_reported and (finding.severity or "error") == severity:
                yield f"  {severity} {finding.code}: {_text(finding)}"


def _text(finding: Finding) -> str:
    return f"{finding.message} ({finding.reason})" if finding.reason else finding.message


def _print_details(experiment: VerifiedExperiment, *severities: Severity) -> None:
    """With -v, print the findings of these severities, the checks that were not done, and the passed checks."""
    for line in _lines(experiment, *severities):
        terminal.debug(line)
    for finding in experiment.findings:
        if finding.outcome == "not_checked" and not finding.message:
            terminal.debug(f"  {finding.code} not checked: {finding.reason}")
    for finding in experiment.findings:
        if finding.outcome == "passed":
            terminal.debug(f"  {finding.code} passed")


def _document(experiment: VerifiedExperiment) -> dict[str, Any]:
    return {
        **{name: getattr(experiment, name) for name in _FIELDS},
        "findings": [{name: getattr(finding, name) for name in _FINDING_FIELDS} for finding in experiment.findings],
    }

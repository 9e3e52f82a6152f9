"""`llm-energy-measure results verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure.cli import formatting, options, terminal
from llm_energy_measure.results.batch.verify import Verdict, verify_experiments
from llm_energy_measure.verification.codes import CODES

if TYPE_CHECKING:
    from llm_energy_measure.domain.findings import Finding

_VERDICT_FIELDS = ("experiment_id", "outcome", "total_energy_j", "attributed_energy_j", "attributed_bounds_j", "factor")
_FINDING_FIELDS = ("code", "outcome", "severity", "reason", "message", "expected", "found", "effect_j", "processes")


@click.command(
    epilog=options.examples("results verify --all", "results verify exp_7 --json --fail-on energy,sources.changed")
)
@options.experiment_ids
@click.option(
    "--all", "all_experiments", is_flag=True, help="Verify all experiments, and compare them with each other."
)
@click.option("--fail-on", metavar="CODE,...", help="Exit with status 1 only if these codes or families failed.")
@options.json_option
@options.shared_options
def verify(*, ids: tuple[str, ...], all_experiments: bool, fail_on: str | None, as_json: bool) -> None:
    """Verify experiments: recompute them from their raw files, and explain each check that failed.

    The output has two totals: the plain sum over processes, and the attributed energy, which counts each joule once. No
    file is written. The exit status is 1 if a check failed. -v prints also the checks that passed or were not possible.
    docs/reference/checks.md explains the codes.
    """
    options.require_ids_or_all(ids, all_experiments=all_experiments)
    codes = _codes(fail_on)
    repository = options.repository()
    for name in ids:
        options.require_known(repository, name)
    names = options.all_ids(repository) if all_experiments else ids
    documents, failed_experiments, is_failure = [], 0, False
    for verdict in verify_experiments(repository, names):
        failures = [finding for finding in verdict.findings if finding.outcome == "failed"]
        failed_experiments += bool(failures)
        is_failure = is_failure or any(codes is None or finding.code in codes for finding in failures)
        if as_json:
            documents.append(_document(verdict))
        else:
            _print_verdict(verdict, failures)
    if as_json:
        terminal.print_json(documents)
    if all_experiments or len(names) > 1:
        verified = formatting.plural(len(names), "experiment")
        terminal.info(f"{verified} verified, {failed_experiments} with a failed check")
    if is_failure:
        raise SystemExit(1)


def _codes(fail_on: str | None) -> set[str] | None:
    """Return the codes that a list of codes and families selects; None means all codes."""
    if fail_on is None:
        return None
    selected = set()
    for part in fail_on.split(","):
        name = part.strip()
        matching = {code for code in CODES if name in (code, code.partition(".")[0])}
        if not matching:
            families = ", ".join(dict.fromkeys(code.partition(".")[0] for code in CODES))
            message = f"unknown code or family {name!r}; the families are {families}"
            raise click.BadParameter(message, param_hint="--fail-on")
        selected |= matching
    return selected


def _print_verdict(verdict: Verdict, failures: list[Finding]) -> None:
    """Print the outcome and the two totals in one line, and each finding in a line of its own."""
    attributed = formatting.attributed_energy(verdict.attributed_energy_j, verdict.attributed_bounds_j, verdict.factor)
    plain = formatting.quantity(verdict.total_energy_j, "J")
    outcome = verdict.outcome.replace("_", " ")
    terminal.print_line(f"{verdict.experiment_id}: {outcome}, plain sum {plain}, attributed {attributed}")
    for finding in failures:
        terminal.print_line(f"  {finding.code}: {finding.message}")
    for finding in verdict.findings:
        if finding.outcome == "not_checked" and finding.message:
            terminal.print_line(f"  {finding.code} ({finding.reason}): {finding.message}")
        elif finding.outcome == "not_checked":
            terminal.debug(f"  {finding.code} not checked: {finding.reason}")
    for finding in verdict.findings:
        if finding.outcome == "passed":
            terminal.debug(f"  {finding.code} passed")


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        **{name: getattr(verdict, name) for name in _VERDICT_FIELDS},
        "findings": [{name: getattr(finding, name) for name in _FINDING_FIELDS} for finding in verdict.findings],
    }

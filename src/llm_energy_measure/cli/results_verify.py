"""`llm-energy-measure results verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.results.batch.verify import Verdict, verify_experiments
from llm_energy_measure.verification.codes import CODES

if TYPE_CHECKING:
    from llm_energy_measure.domain.findings import Finding

_FIELDS = ("code", "outcome", "reason", "message", "expected", "found", "effect_j", "processes")


@click.command(
    epilog=(
        "\b\nExamples:\n  llm-energy-measure results verify --all\n"
        "  llm-energy-measure results verify exp_7 --json --fail-on energy,sources.changed"
    )
)
@options.experiment_ids(required=False)
@click.option("--all", "every", is_flag=True, help="All experiments, and what only all together show.")
@click.option("--fail-on", metavar="CODE,...", help="Only these codes or families make the exit status 1.")
@options.json_option
@options.shared_options
def verify(*, ids: tuple[str, ...], every: bool, fail_on: str | None, as_json: bool) -> None:
    """Recompute experiments from their raw files, and explain what does not hold.

    Each joule is attributed to the sensor that counted it, and what several processes counted is told beside the plain
    sum. Nothing is written. The exit status is 1 if a check failed. -v says also what passed and what was not checked;
    the codes are explained in docs/reference/checks.md.
    """
    if every == bool(ids):
        raise click.UsageError("Name experiments, or give --all.")
    codes = _codes(fail_on)
    repository = options.repository()
    for name in ids:
        options.require_known(repository, name)
    names = sorted({*repository.list_experiments(), *repository.list_aggregated()}) if every else ids
    documents, found_failed, stops = [], 0, False
    for verdict in verify_experiments(repository, names):
        failures = [finding for finding in verdict.findings if finding.outcome == "failed"]
        found_failed += bool(failures)
        stops = stops or any(codes is None or finding.code in codes for finding in failures)
        if as_json:
            documents.append(_document(verdict))
        else:
            _explain(verdict, failures)
    if as_json:
        terminal.out_json(documents)
    if every or len(names) > 1:
        terminal.note(f"{terminal.plural(len(names), 'experiment')} verified, {found_failed} with a failed check")
    if stops:
        raise SystemExit(1)


def _codes(fail_on: str | None) -> set[str] | None:
    """The codes that a list of codes and families means; None if all count."""
    if fail_on is None:
        return None
    chosen = set()
    for part in fail_on.split(","):
        name = part.strip()
        matching = {code for code in CODES if name in (code, code.partition(".")[0])}
        if not matching:
            families = ", ".join(dict.fromkeys(code.partition(".")[0] for code in CODES))
            message = f"there is no code or family {name!r}; families are {families}"
            raise click.BadParameter(message, param_hint="--fail-on")
        chosen |= matching
    return chosen


def _explain(verdict: Verdict, failures: list[Finding]) -> None:
    """An experiment's verdict and both its totals in a line, and each failure in one of its own."""
    words = [
        verdict.outcome.replace("_", " "),
        f"plain sum {terminal.quantity(verdict.total_energy_j, 'J')}",
        f"attributed {attributed_for_person(verdict.attributed_energy_j, verdict.attributed_bounds_j, verdict.factor)}",
    ]
    terminal.out(f"{verdict.experiment_id}: {', '.join(words)}")
    for finding in failures:
        terminal.out(f"  {finding.code}: {finding.message}")
    unproven = [finding for finding in verdict.findings if finding.outcome == "not_checked"]
    for finding in unproven:
        if finding.message:
            terminal.out(f"  {finding.code} ({finding.reason}): {finding.message}")
        else:
            terminal.detail(f"  {finding.code} not checked: {finding.reason}")
    for finding in verdict.findings:
        if finding.outcome == "passed":
            terminal.detail(f"  {finding.code} passed")


def attributed_for_person(energy_j: float | None, bounds_j: tuple[float, float] | None, factor: float | None) -> str:
    """An attributed total with its bounds where they are apart, and how often the plain sum counts it.

    Example:
        >>> attributed_for_person(27468.0, (21668.4, 31199.5), 4.0)
        '27.47 kJ (21.67 kJ to 31.2 kJ), counted 4 times'
    """
    text = terminal.quantity(energy_j, "J")
    if bounds_j is not None and bounds_j[0] != bounds_j[1]:
        text += f" ({terminal.quantity(bounds_j[0], 'J')} to {terminal.quantity(bounds_j[1], 'J')})"
    if factor is not None and factor > 1:
        text += f", counted {factor:.3g} times"
    return text


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "experiment_id": verdict.experiment_id,
        "outcome": verdict.outcome,
        "total_energy_j": verdict.total_energy_j,
        "attributed_energy_j": verdict.attributed_energy_j,
        "attributed_bounds_j": verdict.attributed_bounds_j,
        "factor": verdict.factor,
        "findings": [{name: getattr(finding, name) for name in _FIELDS} for finding in verdict.findings],
    }

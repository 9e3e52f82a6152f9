"""`llm-energy-measure results check`."""

from __future__ import annotations

import click
import msgspec

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results.batch.checking import check_store, sweep
from llm_energy_measure.results.batch.salvage import salvage_all


@click.command(epilog=("\b\nExamples:\n  llm-energy-measure results check\n  llm-energy-measure results check --clean"))
@options.experiment_ids(required=False)
@click.option("--clean", is_flag=True, help="Remove what is provably left over.")
@click.option("--sweep", "old_clean", is_flag=True, hidden=True, help="Old name of --clean.")
@click.option("--salvage", is_flag=True, help="Store what torn or unpublished results still hold.")
@options.json_option
@options.shared_options
def check(*, ids: tuple[str, ...], clean: bool, old_clean: bool, salvage: bool, as_json: bool) -> None:
    """Say what is amiss in the files: torn, empty, rejected, left over, misnamed, in conflict, stale.

    Everything is looked at unless experiments are named. The exit status is 1 if something needs a person.
    """
    if old_clean:
        terminal.warn_renamed("--sweep", "--clean")
    remove = clean or old_clean
    repository = options.repository()
    for name in ids:
        options.require_known(repository, name)
    findings = list(check_store(repository, ids or None))
    swept = sweep(repository, findings) if remove else []
    left = [finding for finding in findings if finding.key not in swept]
    if as_json:
        terminal.out_json(msgspec.to_builtins(left))
    else:
        for finding in left:
            terminal.out(f"{finding.code}  {finding.key}: {finding.message}; {finding.advice}")
    for key in swept:
        terminal.note(f"removed {key}")
    if salvage:
        torn = [finding.key for finding in left if finding.code in ("raw.torn", "raw.unpublished")]
        for key, outcome in salvage_all(repository, torn).items():
            terminal.note(f"{key}: {outcome}" if isinstance(outcome, ResultsError) else f"salvaged as {outcome}")
    # What a sweep could not remove is for somebody with more rights.
    needing = sum(finding.needs_person or (remove and finding.sweepable) for finding in left)
    terminal.note(f"{terminal.plural(len(left), 'finding')}, {needing} of them for a person to decide")
    if needing:
        raise SystemExit(1)

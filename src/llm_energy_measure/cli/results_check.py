"""`llm-energy-measure results check`."""

from __future__ import annotations

import click
import msgspec

from llm_energy_measure.cli import formatting, options, selection, streams, terminal
from llm_energy_measure.exceptions import ResultsError
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.batch.salvage import salvage_all


@click.command(epilog=options.examples("results check", "results check --clean"))
@selection.ids_argument
@click.option("--clean", is_flag=True, help="Remove the leftovers of interrupted writes and deletions.")
@click.option("--sweep", "old_clean", is_flag=True, hidden=True, help="Old name of --clean.")
@click.option("--salvage", is_flag=True, help="Save the readable sections of torn results as partial results.")
@options.json_option
@options.shared_options
@streams.finish_work
def check(*, ids: tuple[str, ...], clean: bool, old_clean: bool, salvage: bool, as_json: bool) -> None:
    """Check the stored files: find torn, empty, rejected, leftover, misnamed, conflicting and stale files.

    Without ids, the whole results directory is checked. Files change only with --clean or --salvage. The exit status is
    1 if a finding needs a decision.
    """
    if old_clean:
        terminal.warn_renamed("--sweep", "--clean")
        clean = True
    repository = options.repository()
    findings = list(check_store(repository, selection.selected(repository, ids) or None))
    removed = remove_leftovers(repository, findings) if clean else []
    left = [finding for finding in findings if finding.key not in removed]
    if as_json:
        terminal.print_json(msgspec.to_builtins(left))
    else:
        for finding in left:
            terminal.print_text(f"{finding.code}  {finding.key}: {finding.message}; {finding.advice}")
    for key in removed:
        terminal.info(f"removed {key}")
    if salvage:
        torn = [finding.key for finding in left if finding.code in ("raw.torn", "raw.unpublished")]
        for key, outcome in salvage_all(repository, torn).items():
            terminal.info(f"{key}: {outcome}" if isinstance(outcome, ResultsError) else f"salvaged as {outcome}")
    # Only a user with more permissions can remove the leftovers that --clean could not remove.
    undecided = sum(finding.needs_decision or (clean and finding.is_removable) for finding in left)
    terminal.info(f"{formatting.plural(len(left), 'finding')}, {undecided} of them need a decision")
    if undecided:
        raise SystemExit(1)

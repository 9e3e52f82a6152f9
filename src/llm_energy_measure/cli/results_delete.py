"""`llm-energy-measure results delete`."""

from __future__ import annotations

import sys

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import ConfigurationError


@click.command(epilog=("\b\nExamples:\n  llm-energy-measure results delete exp_7 --yes"))
@options.experiment_id
@click.option("--yes", is_flag=True, help="Don't ask.")
@options.shared_options
def delete(*, experiment: str, yes: bool) -> None:
    """Delete one experiment: its raw results, its aggregate and everything else in its folder."""
    repository = options.repository()
    options.require_known(repository, experiment)
    files = terminal.plural(len(repository.list_raw(experiment)), "raw result")
    if not yes:
        if not terminal.is_terminal(sys.stdin):
            doing, found = f"cannot delete {experiment!r}", "nobody is there to be asked"
            raise ConfigurationError(doing, found, "give --yes")
        question = f"Delete {terminal.plain(experiment)} with {files}? It can't be undone."
        if not click.confirm(question, err=True):
            terminal.note("nothing was deleted")
            raise SystemExit(1)
    repository.delete_experiment(experiment)
    terminal.note(f"{experiment} deleted, {files}")

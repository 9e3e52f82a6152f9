"""`llm-energy-measure results delete`."""

from __future__ import annotations

import sys

import click

from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.exceptions import ConfigurationError


@click.command(epilog=options.examples("results delete exp_7 --yes"))
@options.experiment_id
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@options.shared_options
@streams.finish_work
def delete(*, experiment: str, yes: bool) -> None:
    """Delete one experiment: its raw results, its aggregate, its tags and all other files in its folder."""
    repository = options.repository()
    options.require_known(repository, experiment)
    files = formatting.plural(len(repository.list_raw(experiment)), "raw result")
    if not yes:
        if not terminal.is_terminal(sys.stdin):
            found = "stdin is not a terminal, so the command cannot ask for confirmation"
            raise ConfigurationError(f"cannot delete {experiment!r}", found, "add --yes")
        question = f"Delete {terminal.escape(experiment)} with {files}? This cannot be undone."
        if not click.confirm(question, err=True):
            terminal.info("nothing was deleted")
            raise SystemExit(1)
    repository.delete_experiment(experiment)
    terminal.info(f"{experiment} deleted, {files}")

"""`llm-energy-measure results delete`."""

from __future__ import annotations

import sys

import click

from llm_energy_measure.cli import formatting, options, selection, streams, terminal
from llm_energy_measure.exceptions import ConfigurationError


@click.command(
    epilog=options.examples(
        "results delete exp_7 --yes",
        'results delete --where "tag.draft = yes" --dry-run',
        "results delete 'test_*' --yes",
    )
)
@selection.selection_options
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Delete nothing; list what would be deleted.")
@options.shared_options
@streams.finish_work
def delete(*, ids: tuple[str, ...], where: str | None, yes: bool, dry_run: bool) -> None:
    """Delete experiments: their raw results, aggregates, tags and all other files in their folders.

    A glob such as 'exp_*' selects by id, and --where selects by a condition; see 'results list --help'. Without --yes,
    the command lists the experiments and asks for confirmation.
    """
    if not ids and where is None:
        raise click.UsageError("Give an id, a glob or --where.")
    repository = options.repository()
    names = selection.selected(repository, ids, where)
    files = {name: formatting.plural(len(repository.list_raw(name)), "raw result") for name in names}
    shown = terminal.escape(names[0]) if len(names) == 1 else formatting.plural(len(names), "experiment")
    if (len(names) > 1 and not yes) or dry_run:
        for name in names:
            terminal.print_text(f"{name}: {files[name]}")
    if dry_run:
        terminal.info(f"{formatting.plural(len(names), 'experiment')} would be deleted; nothing was deleted")
        return
    if not yes:
        if not terminal.is_terminal(sys.stdin):
            found = "stdin is not a terminal, so the command cannot ask for confirmation"
            named = repr(names[0]) if len(names) == 1 else shown
            raise ConfigurationError(f"cannot delete {named}", found, "add --yes")
        with_files = f" with {files[names[0]]}" if len(names) == 1 else ""
        if not click.confirm(f"Delete {shown}{with_files}? This cannot be undone.", err=True):
            terminal.info("nothing was deleted")
            raise SystemExit(1)
    for name in names:
        repository.delete_experiment(name)
        terminal.info(f"{name} deleted, {files[name]}")
    if len(names) > 1:
        terminal.info(f"{shown} deleted")

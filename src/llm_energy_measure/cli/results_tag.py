"""`llm-energy-measure results tag`."""

from __future__ import annotations

import click
import msgspec

from llm_energy_measure.cli import options, streams, terminal
from llm_energy_measure.results.store.tags import change_tags, load_tags, parse_assignments


@click.command(
    epilog=options.examples(
        "results tag exp_7 paper=fig3 reviewed=yes", 'results tag exp_7 draft= --note "the fan was loud"'
    ),
)
@options.experiment_id
@click.argument("assignments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--note", metavar="TEXT", help="Replace the note by this text; an empty text removes the note.")
@options.json_option
@options.shared_options
@streams.finish_work
def tag(*, experiment: str, assignments: tuple[str, ...], note: str | None, as_json: bool) -> None:
    """Set the tags and the note of one experiment, or show them.

    KEY=VALUE sets a tag, and KEY= removes it. Tags are stored in tags/<id>.json, so the results do not change.
    """
    repository = options.repository()
    options.require_known(repository, experiment)
    if assignments or note is not None:
        tags = change_tags(repository.store, experiment, parse_assignments(assignments), note=note)
    else:
        tags = load_tags(repository.store, experiment)
    if as_json:
        terminal.print_json(msgspec.to_builtins(tags))
        return
    fields = [*sorted(tags.tags.items()), *([("note", tags.note)] if tags.note is not None else [])]
    if fields:
        terminal.print_fields(fields)
    else:
        terminal.info(f"{experiment} has no tags")

"""`llm-energy-measure results tag`."""

from __future__ import annotations

import click
import msgspec

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.results.store.tags import change_tags, load_tags, parse_assignments


@click.command(
    epilog="\b\n"
    "Examples:\n"
    "  llm-energy-measure results tag exp_7 paper=fig3 reviewed=yes\n"
    '  llm-energy-measure results tag exp_7 draft= --note "the fan was loud"'
)
@options.experiment_id
@click.argument("assignments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--note", metavar="TEXT", help="Free text in place of the note that is there; '' removes it.")
@options.json_option
@options.shared_options
def tag(*, experiment: str, assignments: tuple[str, ...], note: str | None, as_json: bool) -> None:
    """Set tags and a note on one experiment, or show them.

    KEY= removes a tag. They stand in tags/<id>.json, apart from what was measured.
    """
    repository = options.repository()
    options.require_known(repository, experiment)
    if assignments or note is not None:
        said = change_tags(repository.store, experiment, parse_assignments(assignments), note=note)
    else:
        said = load_tags(repository.store, experiment)
    if as_json:
        terminal.out_json(msgspec.to_builtins(said))
        return
    fields = [*sorted(said.tags.items()), *([("note", said.note)] if said.note is not None else [])]
    if fields:
        terminal.out_fields(fields)
    else:
        terminal.note(f"{experiment} has no tags")

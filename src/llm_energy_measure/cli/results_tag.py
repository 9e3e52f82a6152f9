"""`llm-energy-measure results tag`."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from llm_energy_measure.cli import formatting, options, selection, streams, terminal
from llm_energy_measure.exceptions import ExperimentIdError, ResultNotFoundError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.tags import Tags, change_tags, load_tags, parse_assignments


@click.command(
    epilog=options.examples(
        "results tag exp_7 paper=fig3 reviewed=yes",
        'results tag exp_7 draft= --note "the fan was loud"',
        'results tag --where "model ~ llama and config.batch_size = 8" paper=fig3',
        "results tag 'sweep_*' nightly=yes",
    ),
)
@click.argument("words", metavar="[ID|GLOB]... [KEY=VALUE]...", nargs=-1, shell_complete=options.complete_id)
@options.where_option
@click.option("--note", metavar="TEXT", help="Replace the note by this text; an empty text removes the note.")
@options.json_option
@options.shared_options
@streams.finish_work
def tag(*, words: tuple[str, ...], where: str | None, note: str | None, as_json: bool) -> None:
    """Set the tags and the notes of experiments, or show them.

    KEY=VALUE sets a tag, and KEY= removes it. Tags are stored in tags/<id>.json, so the results do not change. A glob
    such as 'exp_*' selects by id, and --where selects by a condition; see 'results list --help'.
    """
    repository = options.repository()
    ids, assignments = _split(repository, words, has_where=where is not None)
    if not ids and where is None:
        raise click.UsageError("Give an id, a glob or --where.")
    if "=" in "".join(ids[:1]) and not selection.is_glob(ids[0]):
        try:
            options.require_known(repository, ids[0])
        except (ExperimentIdError, ResultNotFoundError) as error:
            message = f"No experiment has the id {ids[0]!r}. To set this tag, give an id, a glob or --where before it."
            raise click.UsageError(message) from error
    names = selection.selected(repository, ids, where)
    tags = [_changed(repository, name, assignments, note) for name in names]
    if as_json:
        documents = [msgspec.to_builtins(one) for one in tags]
        terminal.print_json(documents[0] if _names_one(ids, where) else documents)
    elif len(tags) == 1:
        _print_one(names[0], tags[0])
    elif assignments or note is not None:
        terminal.info(f"{formatting.plural(len(tags), 'experiment')} tagged")
    else:
        for name, one in zip(names, tags, strict=True):
            terminal.print_text(f"{name}: {_listed(one) or 'no tags'}")


def _names_one(ids: Sequence[str], where: str | None) -> bool:
    return where is None and len(ids) == 1 and not selection.is_glob(ids[0])


def _split(repository: FileSystemRepository, words: Sequence[str], *, has_where: bool) -> tuple[list[str], list[str]]:
    """Return the ids and globs, and the assignments. Without --where, the first word is an id, even with `=` in it."""
    ids: list[str] = []
    assignments: list[str] = []
    for number, word in enumerate(words):
        is_first = number == 0 and not has_where
        is_id = is_first or (not assignments and "=" not in word and _is_known(repository, word))
        (ids if is_id else assignments).append(word)
    parse_assignments(assignments)  # raises for a wrong assignment before any tag changes
    return ids, assignments


def _is_known(repository: FileSystemRepository, word: str) -> bool:
    return selection.is_glob(word) or repository.has_raw(word) or repository.has_aggregated(word)


def _changed(repository: FileSystemRepository, name: str, assignments: Sequence[str], note: str | None) -> Tags:
    """Change the tags of an experiment, and return the tags after the change."""
    if assignments or note is not None:
        return change_tags(repository.store, name, parse_assignments(assignments), note=note)
    return load_tags(repository.store, name)


def _print_one(name: str, tags: Tags) -> None:
    fields = [*sorted(tags.tags.items()), *([("note", tags.note)] if tags.note is not None else [])]
    if fields:
        terminal.print_fields(fields)
    else:
        terminal.info(f"{name} has no tags")


def _listed(tags: Tags) -> str:
    words = [f"{key}={value}" for key, value in sorted(tags.tags.items())]
    return ", ".join([*words, *([f"note: {tags.note}"] if tags.note is not None else [])])

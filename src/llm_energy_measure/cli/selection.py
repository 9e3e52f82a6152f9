"""Select the experiments for a command by ids, globs and `--where`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.domain.formatting import natural_key
from llm_energy_measure.exceptions import ResultNotFoundError

if TYPE_CHECKING:
    from llm_energy_measure.results.repository import FileSystemRepository

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any] | click.Command")

_GLOB = re.compile(r"[*?\[]")


def selection_options(function: FunctionT) -> FunctionT:
    """Add the argument `[ID|GLOB]...` and the option `--where`."""
    return ids_argument(options.where_option(function))


def ids_argument(function: FunctionT) -> FunctionT:
    """Add the argument `[ID|GLOB]...`, with shell completion of ids."""
    return click.argument("ids", metavar="[ID|GLOB]...", nargs=-1, shell_complete=options.complete_id)(function)


def is_glob(word: str) -> bool:
    """Return True if a word is a pattern: `exp_*`, `exp_?` or `exp_[12]`. No folder name has these characters."""
    return _GLOB.search(word) is not None


def selected(
    repository: FileSystemRepository,
    words: Sequence[str],
    where: str | None = None,
    *,
    with_pending: bool = True,
    must_exist: bool = True,
) -> list[str]:
    """Return the ids that the words and the condition select, without repetitions.

    Ids keep the order of `words`, and the ids of a glob are in natural order. With words and a condition, both must
    match, and the ids are in natural order. With neither words nor a condition, the list is empty.

    Args:
        repository: The results directory.
        words: Ids and globs.
        where: Condition in the grammar of `results list --where`.
        with_pending: Whether the condition also selects experiments without an aggregate.
        must_exist: Raise an error for an id that does not exist. If False, the list can contain unknown ids.

    Raises:
        ResultNotFoundError: An id does not exist, or a glob or the condition matches no experiment.
    """
    names: dict[str, None] = {}
    known: list[str] | None = None
    for word in words:
        if not is_glob(word):
            names[options.require_known(repository, word) if must_exist else word] = None
            continue
        known = options.all_ids(repository) if known is None else known
        matching = fnmatch.filter(known, word)
        if not matching:
            found = f"{repository.base_path} has no experiment with an id of this pattern"
            advice = f"run '{options.PROGRAM} results list --all' to list all ids"
            raise ResultNotFoundError(f"no experiment matches {word!r}", found, advice)
        names |= dict.fromkeys(sorted(matching, key=natural_key))
    if where is None:
        return list(names)
    matching = _matching(repository, where, list(names), with_pending=with_pending)
    if words:
        folders = {repository.folder_of(name): name for name in names}
        matching = [folders[folder] for name in matching if (folder := repository.folder_of(name)) in folders]
    if not matching:
        # Commands without --where do not need these imports.
        from llm_energy_measure.catalogue.query import no_match_hint
        from llm_energy_measure.catalogue.sqlite_schema import COLUMNS

        advice = no_match_hint(where, COLUMNS)
        advice = advice or f"run '{options.PROGRAM} results list --all --where CONDITION' to try a condition"
        raise ResultNotFoundError("no experiment is selected", f"none matches {where!r}", advice)
    return matching


def _matching(repository: FileSystemRepository, where: str, names: Sequence[str], *, with_pending: bool) -> list[str]:
    """Return the ids that match a condition, in natural order.

    If `names` is not empty, the caller uses only these ids. If the results are in a bucket, the list can then lack
    other matching ids.
    """
    # Commands without --where do not need these imports.
    from llm_energy_measure.catalogue.index import query_catalogue
    from llm_energy_measure.catalogue.selection import Query

    query = Query(where=where, with_pending=with_pending)
    ids = query.ids()
    if ids is None:
        ids = Query(where=condition_of(names, where)).ids()
    rows = query_catalogue(
        repository, lambda catalogue: catalogue.values(query, ["id"]), full=True, ids=ids, warn=terminal.warn
    )
    return [name for [name] in rows]


def condition_of(names: Sequence[str], where: str | None) -> str | None:
    """Return a condition that requires one of these ids and `where`. Without ids, return `where`."""
    if not names:
        return where
    quoted = ", ".join('"' + re.sub(r'(["\\])', r"\\\1", name) + '"' for name in names)
    return f"id in ({quoted})" if where is None else f"id in ({quoted}) and ({where})"

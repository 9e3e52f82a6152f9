"""`llm-energy-measure results configs`."""

from __future__ import annotations

from collections.abc import Collection

import click
import msgspec

from llm_energy_measure.analysis.configs import KeyValues, key_values
from llm_energy_measure.catalogue.index import query_catalogue
from llm_energy_measure.catalogue.reader import paused_collector
from llm_energy_measure.catalogue.selection import Query
from llm_energy_measure.cli import formatting, options, terminal
from llm_energy_measure.domain.configuration import PREFIX, Value, shortest_name

_HEADERS = (("key", "left"), ("values (experiments)", "left"), ("distinct", "right"), ("separates repeats", "left"))

# Maximum number of values of a key in a table cell. --json lists all values.
_MAX_VALUES = 8
_MAX_TEXT = 40


@click.command(
    epilog=options.examples("results configs", 'results configs --where "date >= 2026-03" --all-keys --json')
)
@options.where_option
@click.option("--all-keys", is_flag=True, help="List also the keys that have one value in all selected experiments.")
@options.json_option
@options.shared_options
@paused_collector()
def configs(*, where: str | None, all_keys: bool, as_json: bool) -> None:
    """List the configuration keys that vary, with their values and the number of experiments of each value.

    A key with dots names a nested setting. Conditions and columns accept the last part of a key, such as
    config.batch_size, if only one key ends in this part. If several keys end in batch_size, config..batch_size (with
    two dots) selects the key batch_size. Keys that do not separate repeats are ids, seeds, output paths, schedules and
    counters of repeats. A key whose value is null counts as absent (-).
    """
    query = Query(where=where)
    values, number, pending = query_catalogue(
        options.repository(),
        lambda catalogue: (catalogue.config_values(query), catalogue.count(query), catalogue.pending()),
        full=True,
        warn=terminal.warn,
    )
    keys = key_values(values, number, only_varying=not all_keys)
    if as_json:
        terminal.print_json(msgspec.to_builtins(keys))
    elif keys:
        names = {one.key for one in values}
        terminal.print_table(_HEADERS, (_cells(key, names) for key in keys), optional=(2,))
    elif number:
        terminal.info("all selected experiments have one configuration; --all-keys lists its keys")
    text = f"{formatting.plural(len(keys), 'key')} of {formatting.plural(number, 'experiment')}"
    if pending:
        text += f"; {pending:,} not aggregated yet ('aggregate --all' aggregates them)"
    terminal.info(text)


def _cells(key: KeyValues, names: Collection[str]) -> tuple[str, ...]:
    # The cell has the most frequent values, in the order of the values and not of their frequency.
    limit = sorted((one.experiments for one in key.values), reverse=True)[:_MAX_VALUES][-1]
    shown = [one for one in key.values if one.experiments >= limit][:_MAX_VALUES]
    words = [f"{_text(one.value)} ({one.experiments})" for one in shown]
    words += [f"{len(key.values) - len(shown)} more"] if len(shown) < len(key.values) else []
    words += [f"{formatting.UNKNOWN} ({key.absent})"] if key.absent else []
    name = PREFIX + shortest_name(key.key.removeprefix(PREFIX), names)
    return name, ", ".join(words), str(len(key.values)), "yes" if key.separates_repeats else "no"


def _text(value: Value) -> str:
    text = formatting.config_value(value)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"

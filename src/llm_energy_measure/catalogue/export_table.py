"""The exported table of experiments: `AGGREGATED_COLUMNS`, facts of the catalogue, and the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from llm_energy_measure.catalogue.query import ALIASES, SEPARATOR, full_key, is_config, key_advice
from llm_energy_measure.catalogue.reader import ExportedExperiment
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain.configuration import PREFIX
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS
from llm_energy_measure.results.exporters import Table, with_configuration

TAG_PREFIX = "tag."
_MAX_NEAR = 5
# Columns by short name, in order of preference: the first of them that is in the table is used. A table of processes
# has only the second one.
_SHOWN = {
    "energy": ("attributed_energy_j", "total_energy_j"),
    **dict.fromkeys(("efficiency", "tokens/j"), ("attributed_tokens_per_joule", "tokens_per_joule")),
}

FACT_COLUMNS = ("config_name", "precision", "gpus", "hosts", "verdict", "tags")
"""The columns between those of `AGGREGATED_COLUMNS` and the configuration."""


def fact_values(row: ExperimentSummary) -> list[str | None]:
    """Return the values of `FACT_COLUMNS`. Several values of one column are joined to one text."""
    tags = SEPARATOR.join(f"{key}={value}" for key, value in sorted(row.tags.items()))
    lists = (SEPARATOR.join(values) or None for values in (row.precision, row.gpus, row.hosts))
    return [row.config_name, *lists, row.verdict, tags or None]


def exported_table(exported: Sequence[ExportedExperiment]) -> Table:
    """Return the export table of experiments. Each experiment must have exported values."""
    names = [*(column.name for column in AGGREGATED_COLUMNS), *FACT_COLUMNS]
    rows = [(*(one.values or ()), *fact_values(one.summary)) for one in exported]
    return with_configuration(Table(names=names, rows=rows), [one.configuration for one in exported])


def select_columns(table: Table, words: Sequence[str], summaries: Sequence[ExperimentSummary] = ()) -> Table:
    """Return the table with only the selected columns.

    Args:
        table: The table.
        words: Names or short names of columns, `config.KEY` (the end of a key is enough) or `tag.KEY`.
        summaries: The experiments in the order of the rows, for tags. Empty for a table of processes.

    Raises:
        ConfigurationError: A column does not exist. The message names at most five similar columns.
    """
    if summaries and (tags := [word.removeprefix(TAG_PREFIX) for word in words if word.startswith(TAG_PREFIX)]):
        table = _with_tags(table, tags, summaries)
    keys = {name.removeprefix(PREFIX) for name in table.names if name.startswith(PREFIX)}
    doing, names = "cannot select columns", []
    for word in words:
        is_tag = word.startswith(TAG_PREFIX)
        if is_config(word):
            name = PREFIX + full_key(word, keys, doing)
        else:
            lower = word.lower()
            short = (*_SHOWN.get(lower, ()), lower, ALIASES.get(lower, lower))
            name = word if is_tag else next((one for one in short if one in table.names), lower)
        if name not in table.names:
            near = get_close_matches(word.lower(), [*table.names, *ALIASES], n=_MAX_NEAR, cutoff=0.5)
            listed = f"did you mean {' or '.join(near)}?" if near else "omit --columns to see all names"
            advice = key_advice(word, keys) or listed
            raise ConfigurationError(doing, f"the table has no column {word!r}", advice)
        names.append(name)
    indices = [list(table.names).index(name) for name in names]
    return Table(names=names, rows=[[row[index] for index in indices] for row in table.rows])


def _with_tags(table: Table, keys: Iterable[str], summaries: Sequence[ExperimentSummary]) -> Table:
    """Return the table with one more column `tag.<key>` for each key; `summaries` are in the order of the rows."""
    words = list(keys)
    rows: list[Sequence[Any]] = [
        [*row, *(one.tags.get(key) for key in words)] for row, one in zip(table.rows, summaries, strict=True)
    ]
    return Table(names=[*table.names, *(TAG_PREFIX + key for key in words)], rows=rows)

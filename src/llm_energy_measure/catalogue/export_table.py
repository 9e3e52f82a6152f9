"""The exported table of experiments: `AGGREGATED_COLUMNS`, facts of the catalogue, and the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llm_energy_measure.catalogue.query import SEPARATOR
from llm_energy_measure.catalogue.reader import ExportedExperiment
from llm_energy_measure.catalogue.summary import ExperimentSummary
from llm_energy_measure.domain.configuration import Value
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS
from llm_energy_measure.results.exporters import Table, with_configuration

TAG_PREFIX = "tag."

FACT_COLUMNS = ("config_name", "precision", "gpus", "hosts", "verdict", "tags")
"""The columns between those of `AGGREGATED_COLUMNS` and the configuration."""


def fact_values(row: ExperimentSummary) -> list[str | None]:
    """Return the values of `FACT_COLUMNS`. Several values are one text."""
    tags = SEPARATOR.join(f"{key}={value}" for key, value in sorted(row.tags.items()))
    lists = (SEPARATOR.join(values) or None for values in (row.precision, row.gpus, row.hosts))
    return [row.config_name, *lists, row.verdict, tags or None]


def exported_table(exported: Sequence[ExportedExperiment]) -> Table:
    """Return the table of experiments of the catalogue, all of which have values."""
    merged: dict[tuple[int, int], dict[str, Value]] = {}
    configurations = []
    for one in exported:  # experiments share the two parts of their configuration
        key = (id(one.configuration.settings), id(one.configuration.others))
        if key not in merged:
            merged[key] = {**one.configuration.settings, **one.configuration.others}
        configurations.append(merged[key])
    names = [*(column.name for column in AGGREGATED_COLUMNS), *FACT_COLUMNS]
    rows = [(*(one.values or ()), *fact_values(one.summary)) for one in exported]
    return with_configuration(Table(names=names, rows=rows), configurations)


def with_tags(table: Table, keys: Iterable[str], summaries: Sequence[ExperimentSummary]) -> Table:
    """Return the table with one more column `tag.<key>` for each key; `summaries` are in the order of the rows."""
    words = list(keys)
    rows: list[Sequence[Any]] = [
        [*row, *(one.tags.get(key) for key in words)] for row, one in zip(table.rows, summaries, strict=True)
    ]
    return Table(names=[*table.names, *(TAG_PREFIX + key for key in words)], rows=rows)

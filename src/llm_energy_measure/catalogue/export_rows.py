"""Encode and decode the exported values of an experiment: exactly the values of `AGGREGATED_COLUMNS`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.results.columns import SUMMARY_COLUMNS

_TYPES: dict[str, Any] = {"text": str, "integer": int, "number": float, "boolean": bool, "time": datetime}
_DECODER: msgspec.json.Decoder[tuple[Any, ...] | None] = msgspec.json.Decoder(
    tuple[tuple(_TYPES[column.type] | None for column in SUMMARY_COLUMNS)] | None  # type: ignore[misc]  # the types come from a table
)


def encode_row(aggregated: AggregatedSummary | None, process_values: Mapping[str, Any]) -> bytes:
    """Return the exported values of an aggregate as JSON.

    `null` without an aggregate, or if an integer has more than 63 bits.

    Args:
        aggregated: The aggregate.
        process_values: Values of the columns that are computed from the processes, by column name.
    """
    if aggregated is None:
        return b"null"
    values = [process_values.get(column.name, column.getter(aggregated)) for column in SUMMARY_COLUMNS]
    if any(type(value) is int and value.bit_length() > 63 for value in values):
        return b"null"
    return msgspec.json.encode(values)


def decode_row(data: bytes) -> tuple[Any, ...] | None:
    """Return the exported values in the order of `AGGREGATED_COLUMNS`. Raises `ValueError` for damaged data."""
    return _DECODER.decode(data)

"""The exported values of an experiment as the catalogue stores them: those of `AGGREGATED_COLUMNS`, bit for bit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import AggregatedSummary
from llm_energy_measure.results.columns import SUMMARY_COLUMNS

_TYPES: dict[str, Any] = {"text": str, "integer": int, "number": float, "boolean": bool, "time": datetime}
_DECODER: msgspec.json.Decoder[tuple[Any, ...] | None] = msgspec.json.Decoder(
    tuple[tuple(_TYPES[column.type] | None for column in SUMMARY_COLUMNS)] | None  # type: ignore[misc]  # the types come from a table
)
_MODEL_NAME = next(index for index, column in enumerate(SUMMARY_COLUMNS) if column.name == "model_name")


def encode_row(aggregated: AggregatedSummary | None, model_name: str | None) -> bytes:
    """Return the exported values of an aggregate as JSON; `null` without an aggregate or with integers above 64 bits.

    Args:
        aggregated: The aggregate.
        model_name: Value of the column `model_name`, which can come from the processes.
    """
    if aggregated is None:
        return b"null"
    values = [column.getter(aggregated) for column in SUMMARY_COLUMNS]
    values[_MODEL_NAME] = model_name
    if any(type(value) is int and value.bit_length() > 63 for value in values):
        return b"null"
    return msgspec.json.encode(values)


def decode_row(data: bytes) -> tuple[Any, ...] | None:
    """Return the exported values in the order of `AGGREGATED_COLUMNS`. Raises `ValueError` for damaged data."""
    return _DECODER.decode(data)

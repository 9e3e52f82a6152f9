"""The base of the record classes: change fields, convert to plain values."""

from __future__ import annotations

from typing import Any, Self

import msgspec
from msgspec import Struct


class Record(Struct, frozen=True, kw_only=True):
    """An immutable record."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of some fields.

        Raises:
            TypeError: A name is no field.

        Example:
            >>> from llm_energy_measure.domain.metrics import Timestamps
            >>> Timestamps(start=None, end=None, duration_sec=2.0).replace(duration_sec=3.0).duration_sec
            3.0
        """
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as the dictionary that its JSON file contains: times are text, nested records dictionaries.

        Example:
            >>> from llm_energy_measure.domain.metrics import Timestamps
            >>> Timestamps(start=None, end=None, duration_sec=2.0).to_dict()
            {'start': None, 'end': None, 'duration_sec': 2.0}
        """
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

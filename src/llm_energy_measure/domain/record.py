"""The base of the record classes: create them, change fields, convert to plain values."""

from __future__ import annotations

from typing import Any, Self

import msgspec
from msgspec import Struct, StructMeta


class NamesAllFields(StructMeta):
    """The metaclass of the records. It takes no time when a file is read, because decoders do not call it."""

    def __call__(self, *arguments: Any, **fields: Any) -> Any:
        """Return a record.

        Raises:
            TypeError: Fields are missing or unknown. The message names all of them.
        """
        try:
            return super().__call__(*arguments, **fields)
        except TypeError as error:
            known = msgspec.structs.fields(self)  # type: ignore[arg-type]  # mypy takes a class for an instance
            missing = [field.name for field in known if field.required and field.name not in fields]
            unknown = sorted(fields.keys() - {field.name for field in known})
            if arguments or not (missing or unknown):
                raise
            found = [f"missing: {', '.join(missing)}"] if missing else []
            found += [f"no field {', '.join(unknown)}"] if unknown else []
            advice = f"; use {self.__name__}.of(...), which computes some fields" if hasattr(self, "of") else ""
            raise TypeError(f"cannot create {self.__name__}: {'; '.join(found)}{advice}") from error


class Record(Struct, metaclass=NamesAllFields, frozen=True, kw_only=True):
    """An immutable record."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of some fields.

        Raises:
            TypeError: The record has no field with this name.

        Example:
            >>> from llm_energy_measure.domain.metrics import Timestamps
            >>> Timestamps(start=None, end=None, duration_sec=2.0).replace(duration_sec=3.0).duration_sec
            3.0
        """
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as the dictionary that its JSON file contains.

        Times become text, and nested records become dictionaries.

        Example:
            >>> from llm_energy_measure.domain.metrics import Timestamps
            >>> Timestamps(start=None, end=None, duration_sec=2.0).to_dict()
            {'start': None, 'end': None, 'duration_sec': 2.0}
        """
        document: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_as_list)
        return document


def _as_list(samples: Any) -> Any:
    """Return an array of samples as a list.

    A record that was read from a large file can have samples as `array.array`, and a script can pass NumPy arrays.
    """
    if not hasattr(samples, "tolist"):
        raise TypeError(f"a record cannot contain the type {type(samples).__name__}")
    return samples.tolist()

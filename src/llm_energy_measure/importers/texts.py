"""Drop prompts and generated texts, which can be personal data, from the configuration of a record."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult

_NAMES = frozenset(
    {
        *("prompts", "input_text", "input_texts", "question", "questions", "messages", "conversation"),
        *("generated_text", "generated_texts", "output_text", "output_texts", "completion", "completions", "content"),
        *("response", "responses", "output", "outputs", "answer", "answers"),
    }
)
"""Names of fields in which tools store texts. A number under one of these names is kept."""


# In run tables, `prompt` is also the name of a factor with values such as `long`.
_NAME_OF_LABEL_OR_TEXT = "prompt"
_LABEL = re.compile(r"\S{0,32}")


def without_texts(record: RawProcessResult) -> RawProcessResult:
    """Return a record without the texts of requests in its configuration, at any depth."""
    config = _without_texts(record.effective_config)
    return record if config is record.effective_config else msgspec.structs.replace(record, effective_config=config)


def _without_texts(value: Any) -> Any:
    """Return a JSON value without texts; the same object if it has none."""
    if isinstance(value, dict):
        kept = {name: _without_texts(one) for name, one in value.items() if not _is_text(name, one)}
        return value if len(kept) == len(value) and all(kept[name] is value[name] for name in kept) else kept
    if isinstance(value, list):
        new = [_without_texts(one) for one in value]
        return value if all(one is other for one, other in zip(new, value, strict=True)) else new
    return value


def _is_text(name: str, value: object) -> bool:
    lower = name.lower()
    if lower == _NAME_OF_LABEL_OR_TEXT and isinstance(value, str):
        return _LABEL.fullmatch(value) is None
    return isinstance(value, str | list) and (lower in _NAMES or lower == _NAME_OF_LABEL_OR_TEXT)

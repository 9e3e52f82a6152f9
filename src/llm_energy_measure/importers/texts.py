"""Drop prompts, generated texts and credentials from the configuration of a record."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult

_PROMPT = "prompt"
_NAMES = frozenset(
    {
        *(_PROMPT, "prompts", "input_text", "input_texts", "question", "questions", "messages", "conversation"),
        *("generated_text", "generated_texts", "output_text", "output_texts", "completion", "completions", "content"),
        *("response", "responses", "output", "outputs", "answer", "answers"),
    }
)
"""Names of fields in which tools store texts. Only texts and lists under these names are dropped, not numbers."""

_CREDENTIALS = frozenset(("api_key", "authorization", "headers"))
"""Names of fields with credentials of a server, as in the `input_config` of AIPerf."""

# A factor of a run table can have one of these names, and a value such as `long`. A value of up to 32 characters
# without spaces is kept at the top level of the configuration, where factors are stored, and under `prompt` at every
# level.
_LABEL = re.compile(r"\S{0,32}")


def without_texts(record: RawProcessResult) -> RawProcessResult:
    """Return a record whose configuration contains, at any depth, neither texts of requests nor credentials."""
    config = _without_texts(record.effective_config, is_top=True)
    return record if config is record.effective_config else msgspec.structs.replace(record, effective_config=config)


def _without_texts(value: Any, *, is_top: bool = False) -> Any:
    """Return a JSON value without texts and credentials; the same object if it has none."""
    if isinstance(value, dict):
        kept = {name: _without_texts(one) for name, one in value.items() if not _is_dropped(name, one, is_top=is_top)}
        return value if len(kept) == len(value) and all(kept[name] is value[name] for name in kept) else kept
    if isinstance(value, list):
        new = [_without_texts(one) for one in value]
        return value if all(one is other for one, other in zip(new, value, strict=True)) else new
    return value


def _is_dropped(name: str, value: object, *, is_top: bool) -> bool:
    lower = name.lower()
    if lower in _CREDENTIALS:
        return isinstance(value, str | list | dict)
    if lower not in _NAMES or not isinstance(value, str | list):
        return False
    is_label = (is_top or lower == _PROMPT) and isinstance(value, str) and _LABEL.fullmatch(value)
    return not is_label

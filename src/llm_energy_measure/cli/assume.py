"""The option `--assume` of `aggregate`: facts that the records don't contain."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.metrics import Scope
from llm_energy_measure.exceptions import ConfigurationError

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST = 1_000_000


def parse_assumptions(words: Iterable[str]) -> Assumptions:
    """Return the assumptions that `key=value` words state. If `none` is the only word, there is no assumption.

    Raises:
        ConfigurationError: A key is unknown or occurs twice, or a value does not fit its key.

    Example:
        >>> parse_assumptions(["gpu-scope=device", "hosts=2"])
        Assumptions(gpu_scope='device', hosts=2, boards=None, board=None)
    """
    words = list(words)
    if words == ["none"]:
        return Assumptions()
    values: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        doing = f"cannot use the assumption {word!r}"
        if key not in _PARSERS:
            near = difflib.get_close_matches(key, _PARSERS, n=1)
            advice = f"did you mean {near[0]}=...?" if near else f"use one of {', '.join(_PARSERS)}"
            raise ConfigurationError(doing, f"{key!r} is not a fact that can be assumed", advice)
        name = key.replace("-", "_")
        if name in values:
            raise ConfigurationError(doing, f"{key} is stated twice", f"state {key} once")
        values[name] = _PARSERS[key](doing, value)
    return Assumptions(**values)


def _scope(doing: str, value: str) -> str:
    scopes = typing.get_args(Scope)
    if value not in scopes:
        raise ConfigurationError(doing, f"{value!r} is not a scope", f"use one of {', '.join(scopes)}")
    return value


def _count(doing: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= len(str(_MOST)) and 1 <= int(value) <= _MOST):
        found = f"{value!r} is not a whole number from 1 to {_MOST:,}"
        raise ConfigurationError(doing, found, "use a whole number, such as 2")
    return int(value)


def _name(doing: str, value: str) -> str:
    if not value.strip():
        raise ConfigurationError(doing, "the name is empty", "use a name such as 'NVIDIA A100-PCIE-40GB'")
    if value.strip().isdecimal():
        advice = f"for a number of boards, write boards={value.strip()}"
        raise ConfigurationError(doing, f"{value!r} is not the name of a board", advice)
    return value


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "gpu-scope": _scope,
    "hosts": _count,
    "boards": _count,
    "board": _name,
}

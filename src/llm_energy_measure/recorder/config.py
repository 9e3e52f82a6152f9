"""The configuration of a run as JSON values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_energy_measure.exceptions import ConfigurationError

_DOING = "cannot record the configuration"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return a configuration from words of the form `key=value`.

    Dots in a key separate nested names. A value that is JSON (a number, `true`, `null`, a list) is decoded. Any other
    value is text.

    Raises:
        ConfigurationError: A word has no `=`, a name is empty, or a key occurs twice.

    Example:
        >>> parse_settings(["batching.batch_size=8", "precision=float16", "streaming=true"])
        {'batching': {'batch_size': 8}, 'precision': 'float16', 'streaming': True}
    """
    config: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        *sections, name = key.split(".")
        if not equals or "" in (*sections, name):
            advice = "write KEY=VALUE, with dots between nested names"
            raise ConfigurationError(f"cannot set {word!r}", "it is not a setting", advice)
        inner = config
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                break
        if not isinstance(inner, dict) or name in inner:
            raise ConfigurationError(f"cannot set {word!r}", "the key has another value already", "give each key once")
        try:
            inner[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            inner[name] = text
    return config


def stored_config(config: object) -> dict[str, Any]:
    """Return a configuration as JSON values. Equal configurations give equal values in every process.

    Mappings, dataclasses, msgspec structs, pydantic models, `argparse.Namespace` and objects with `to_dict` (as
    `transformers.GenerationConfig`) become dictionaries. Sets become sorted lists. NaN, the infinities and values
    without a JSON form become their text. None becomes an empty dictionary.

    Raises:
        ConfigurationError: `config` is of another type, or contains an object whose text differs between processes.

    Example:
        >>> stored_config({"stop": {"b", "a"}, "top_p": float("inf")})
        {'stop': ['a', 'b'], 'top_p': 'inf'}
    """
    if config is None:
        return {}
    try:
        plain = msgspec.to_builtins(_as_mapping(config), enc_hook=_text_of, str_keys=True, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(_DOING, str(error), "give a mapping of numbers, texts, lists and mappings") from error
    if not isinstance(plain, dict):
        raise ConfigurationError(_DOING, f"a {type(config).__name__} is not a configuration", "give a mapping")
    return {_storable(key): _storable(value) for key, value in plain.items()}


def _as_mapping(config: object) -> object:
    """Return the settings of an object as a dictionary. Return other objects unchanged."""
    # Comparing the name of the class avoids an import of argparse.
    if f"{type(config).__module__}.{type(config).__qualname__}" == "argparse.Namespace":
        return vars(config)
    dump = getattr(config, "model_dump", None) or getattr(config, "to_dict", None)
    return dump() if callable(dump) and not isinstance(config, type) else config


def _text_of(value: object) -> str:
    """Return the text of a value. Raise `ConfigurationError` if the text contains a memory address (default `repr`)."""
    text = str(value)
    if _ADDRESS.search(text):
        found = f"the text of {text} differs in each process"
        raise ConfigurationError(_DOING, found, "replace this object by its values, or leave it out")
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return storable_text(value) if isinstance(value, str) else value


def storable_text(text: str) -> str:
    """Escape surrogates, which UTF-8 cannot encode. Python decodes invalid bytes of file names to surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()

"""The configuration of a serving engine, as flat settings: from its command line, or from an object of its library."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from msgspec import UNSET

_MAX_SETTINGS = 500
_MAX_DEPTH = 6
_MAX_TEXT = 500
_MAX_ITEMS = 50
_TRUE = "true"


class EngineConfig(NamedTuple):
    """A serving engine and its settings.

    Attributes:
        name: Name of the engine.
        settings: Settings by name, with dots between nested names.
    """

    name: str
    settings: dict[str, Any]


# Commands that start an engine: the name of the engine, and the first words of the command.
_COMMANDS = (
    ("vllm", ("vllm", "serve")),
    ("vllm", ("-m", "vllm.entrypoints.openai.api_server")),
    ("vllm", ("-m", "vllm.entrypoints.cli.main", "serve")),
    ("sglang", ("-m", "sglang.launch_server")),
    ("sglang", ("sglang", "serve")),
    ("tensorrt_llm", ("trtllm-serve",)),
    ("llama.cpp", ("llama-server",)),
    ("llama.cpp", ("-m", "llama_cpp.server")),
    ("tgi", ("text-generation-launcher",)),
    ("ollama", ("ollama", "serve")),
)

_REMOVED = "(removed)"
# The value of a setting is removed if its name matches. `max-num-batched-tokens` and `tokenizer` are no secrets.
_SECRET = re.compile(r"api[-_]?key|password|secret|token$", re.IGNORECASE)


def engine_of_command(command: Sequence[str]) -> EngineConfig | None:
    """Return engine and settings of a command line; None if it starts no known engine.

    Example:
        >>> engine_of_command(["vllm", "serve", "org/model", "--max-num-seqs", "4", "--enforce-eager"])
        EngineConfig(name='vllm', settings={'arguments': 'org/model', 'max-num-seqs': '4', 'enforce-eager': 'true'})
    """
    words = [PurePath(command[0]).name, *command[1:]] if command else []
    for name, start in _COMMANDS:
        for place in range(len(words) - len(start) + 1):
            is_program = start[0] == "-m" or place == 0 or PurePath(words[place]).name == start[0]
            if is_program and tuple(words[place : place + len(start)]) == start:
                return EngineConfig(name, _options(words[place + len(start) :]))
    return None


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line. The word after an option is its value, unless the word is an option."""
    found: dict[str, Any] = {}
    place = 0
    while place < len(words) and len(found) < _MAX_SETTINGS:
        word = words[place]
        place += 1
        if not _is_option(word) or word == "-":
            arguments = found.get("arguments")
            found["arguments"] = word if arguments is None else f"{arguments} {word}"
            continue
        key, equals, value = word.lstrip("-").partition("=")
        if not equals:
            follows = place < len(words) and not _is_option(words[place])
            value = words[place] if follows else _TRUE
            place += follows
        found[key] = value[:_MAX_TEXT]
        if _SECRET.search(key):
            found[key] = _REMOVED
            while place < len(words) and not _is_option(words[place]):
                place += 1  # vLLM takes several keys: --api-key K1 K2
    return found


def _is_option(word: str) -> bool:
    return word.startswith("-") and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def engine_of_object(engine: object) -> EngineConfig:
    """Return engine and settings of an object: an engine of vLLM or SGLang, a dataclass, or a mapping.

    Settings other than numbers, texts, and lists of numbers and texts are left out.
    """
    name = type(engine).__module__.partition(".")[0]
    for path in ("llm_engine.vllm_config", "vllm_config", "server_args", "args", "config"):
        inner: Any = engine
        for part in path.split("."):
            inner = getattr(inner, part, None)
        if inner is not None:
            engine = inner
            break
    settings: dict[str, Any] = {}
    for key, value in _flat(engine, "", 0):
        if len(settings) >= _MAX_SETTINGS:
            break
        settings[key] = _REMOVED if value is not None and _SECRET.search(key) else value
    return EngineConfig(name, settings)


def _flat(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each setting that `_plain` accepts, with dots between nested names."""
    plain = _plain(value)
    if plain is not UNSET:
        if prefix:
            yield prefix, plain
    elif depth < _MAX_DEPTH:
        for key, inner in _items(value, is_top=depth == 0).items():
            if not str(key).startswith("_"):
                yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)


def _plain(value: Any) -> Any:
    """Return a number or a text unchanged, and a list of numbers and texts as one text; UNSET for another value."""
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS:
        is_plain = all(isinstance(item, bool | int | float | str) for item in value)
        return ", ".join(map(str, value))[:_MAX_TEXT] if is_plain else UNSET
    return UNSET


def _items(value: Any, *, is_top: bool) -> Mapping[Any, Any]:
    """Return the values of a mapping or a dataclass by name; at the top level, also the attributes of any object."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    found: Mapping[Any, Any] = getattr(value, "__dict__", {}) if is_top else {}
    return found

"""Checks of untrusted input: experiment ids, paths that could leave their base folder, and duplicate JSON keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llm_energy_measure.constants import MAX_ID_LENGTH, SUPERSEDED_AGGREGATE_PATTERN
from llm_energy_measure.exceptions import ExperimentIdError, ResultNotFoundError, UnsafePathError

_KEY = re.compile(rb'"([^"]{0,200})"[ \t\r\n]*:')
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_RESERVED = re.compile(SUPERSEDED_AGGREGATE_PATTERN)

# Memory in bytes of values that were decoded from JSON, measured with CPython 3.11: a dict with one entry, an empty
# list, a float in a list, a short string, and an entry of a large dict with its key.
_OBJECT_BYTES, _LIST_BYTES, _NUMBER_BYTES, _STRING_BYTES, _KEY_BYTES = 200, 88, 32, 56, 120
# The values in 1 MB of valid JSON count as at most 77 MB (each `{},` as 232 bytes), which is less than `free_bytes`.
_NEVER_TOO_LARGE_BYTES = 1_000_000
_LONG_STRING_BYTES = 2_500_000
_KEY_SAMPLES, _KEY_SAMPLE_BYTES, _MIN_KEYS = 32, 8192, 1000

UNPRINTABLE = (
    "\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff"
)
"""Control characters, surrogates, and characters that reorder or hide text, as a character class of `re`."""


def sanitize_experiment_id(experiment_id: str) -> str:
    """Return the folder name of an experiment: characters outside `A-Za-z0-9._-` become `_`.

    Different ids can have the same folder name (`a/b` and `a_b`). The repository detects the conflict from the ids
    in the files. If `experiment_id` is a folder name, the function returns `experiment_id` unchanged.

    Windows cannot open names of devices (`CON`, `aux.json`) and names that end with a dot. The function changes these
    names to `CON_`, `aux_json` and `exp_`. Source: "Naming Files, Paths, and Namespaces" of the Windows documentation.

    Args:
        experiment_id: Text of 1 to 200 characters.

    Raises:
        ExperimentIdError: The id is not a string, is blank, consists of dots, is longer than 200 characters, or has
            the reserved form `superseded-<id>-<number>`.

    Example:
        >>> sanitize_experiment_id("exp/with/slashes"), sanitize_experiment_id("aux.json")
        ('exp_with_slashes', 'aux_json')
    """
    return windows_name(former_folder_name(experiment_id))


def windows_name(name: str) -> str:
    """Return the name, changed only if Windows cannot open a file with this name."""
    if _WINDOWS_DEVICE.fullmatch(name):
        name = name.replace(".", "_", 1) if "." in name else f"{name}_"
    return f"{name[:-1]}_" if name.endswith(".") else name


def former_folder_name(experiment_id: str) -> str:
    """Return the folder name without the changes for Windows, as in earlier releases. Raises `ExperimentIdError`."""
    if not isinstance(experiment_id, str) or not experiment_id.strip():
        problem = f"{experiment_id!r} is {'empty' if isinstance(experiment_id, str) else 'not a string'}"
    elif not experiment_id.strip("."):
        problem = f"{experiment_id!r} consists of dots only"
    elif len(experiment_id) > MAX_ID_LENGTH:
        problem = f"{experiment_id[:20]!r}... has {len(experiment_id)} characters; the limit is {MAX_ID_LENGTH}"
    elif _RESERVED.fullmatch(f"{(safe := _UNSAFE.sub('_', experiment_id))}.json"):
        problem = f"{experiment_id!r} has the reserved form superseded-<id>-<number>"
    else:
        return safe
    raise ExperimentIdError("cannot use the experiment id", problem, "use another id")


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the dict of a JSON object. The function is an `object_pairs_hook` for Python's `json`.

    Without this function, Python and msgspec silently use the last value of a duplicate key.

    Args:
        pairs: The keys and values of one JSON object, in order.

    Raises:
        ValueError: A key occurs twice.

    Example:
        >>> reject_duplicate_keys([("a", 1), ("b", 2)])
        {'a': 1, 'b': 2}
    """
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None
        msg = f"the key {duplicate[:40]!r} occurs twice in one object"
        raise ValueError(msg)
    return document


def is_safe_path(base: str | Path, target: str | Path) -> bool:
    """Return True if `target` is `base` or is inside `base`, after all symbolic links are resolved.

    A folder with the same prefix (`results-evil` next to `results`) is not inside `base`.

    Args:
        base: The base folder. It need not exist.
        target: The path to check. A relative path starts at the working directory.
    """
    try:
        folder = Path(base).resolve().parts
        # In Python 3.12, the time of Path.is_relative_to is quadratic in the number of folders.
        return Path(target).resolve().parts[: len(folder)] == folder
    except (OSError, RuntimeError, ValueError):
        # The path has a loop of symbolic links or a NUL character.
        return False


def validate_path(path: str | Path, base: str | Path | None = None, *, must_exist: bool = False) -> Path:
    """Return `path` as an absolute path with all symbolic links resolved.

    Args:
        path: The path to check. `~` is not expanded.
        base: The folder that must contain `path`. A relative `path` starts at `base`. None allows every folder; a
            relative `path` then starts at the working directory.
        must_exist: Require that the path exists.

    Raises:
        UnsafePathError: The path is empty, contains a NUL character, leaves `base`, or cannot be resolved.
        ResultNotFoundError: `must_exist` is set and the path does not exist.
    """
    text = str(path)
    doing = f"cannot use the path {text!r}"
    if not text or "\0" in text:
        raise UnsafePathError(doing, "it is empty or contains a NUL character", "give another path")
    full = Path(path) if base is None else Path(base) / path
    if base is not None and not is_safe_path(base, full):
        raise UnsafePathError(doing, f"it is outside {str(base)!r}", "give a path inside this folder")
    try:
        resolved = full.resolve()
        is_missing = must_exist and not resolved.exists()
    except (OSError, RuntimeError, ValueError) as error:
        # ValueError: the path has a lone surrogate, which cannot be encoded. OSError: for example, a name is too long.
        raise UnsafePathError(doing, str(error), "give another path") from error
    if is_missing:
        raise ResultNotFoundError(doing, "it does not exist", "check the spelling")
    return resolved


def require_bounded_json(
    text: bytes, *, file_bytes: int | None = None, number_count: int = 0, free_bytes: int = 100_000_000
) -> None:
    """Check, without parsing, that the values of a JSON text need at most 3 * file size + `free_bytes` of memory.

    A file of 60 MB can contain 20 million empty objects, which need 1.4 GB. Each value of a list or an object needs a
    comma or a bracket in the text. The function counts these characters, also in strings, so the counts are upper
    bounds.

    Args:
        text: The text.
        file_bytes: Size of the file in bytes, if `text` is only a part of the file. None if `text` is the whole file.
        number_count: Number of numbers in the part of the file that is not in `text`. Each of these numbers needs 8
            bytes of memory.
        free_bytes: Memory in addition to 3 times the file size, in bytes.

    Raises:
        ValueError: The values need more memory. The message is a clause, such as `its 20,000,000 values need ...`.
    """
    size = len(text) if file_bytes is None else file_bytes
    if size <= _NEVER_TOO_LARGE_BYTES:
        return
    objects, lists, commas = text.count(b"{"), text.count(b"["), text.count(b",")
    keys = text.count(b'":') + text.count(b'" :')
    strings = max(0, text.count(b'"') // 2 - keys)
    needed = (
        _OBJECT_BYTES * objects
        + _LIST_BYTES * lists
        + _NUMBER_BYTES * commas
        + _STRING_BYTES * strings
        + (_KEY_BYTES * keys if _keys_differ(text) else 0)
        + 8 * number_count
    )
    if not text.isascii() and _has_long_string(text):
        needed += 4 * size  # Python stores up to 4 bytes for each character of a string that is not ASCII
    if needed > 3 * size + free_bytes:
        count = objects + lists + commas + number_count
        limit = f"the limit is 3 times its {size / 1e6:,.0f} MB plus {free_bytes / 1e6:,.0f} MB"
        msg = f"its {count:,} values need {needed / 1e6:,.0f} MB of memory; {limit}"
        raise ValueError(msg)


def _has_long_string(text: bytes) -> bool:
    step = _LONG_STRING_BYTES
    return any(text.find(b'"', start, start + step) < 0 for start in range(0, len(text) - step, step))


def _keys_differ(text: bytes) -> bool:
    """Return True if samples of a text have more than `_MIN_KEYS` keys, and more than half of these keys are distinct.

    A decoder stores equal keys once, so only distinct keys need memory.
    """
    step = max(1, len(text) // _KEY_SAMPLES)
    keys = [key for start in range(0, len(text), step) for key in _KEY.findall(text[start : start + _KEY_SAMPLE_BYTES])]
    return len(keys) > _MIN_KEYS and 2 * len(set(keys)) > len(keys)

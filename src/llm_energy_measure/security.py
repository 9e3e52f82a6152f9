"""Checks of untrusted input: experiment ids, paths that could leave their base folder, and duplicate JSON keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llm_energy_measure.constants import MAX_ID_LENGTH, SUPERSEDED_AGGREGATE_PATTERN
from llm_energy_measure.exceptions import ConfigurationError, ExperimentIdError, ResultNotFoundError, UnsafePathError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?((?:[kmgt]i?)?b?)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_RESERVED = re.compile(SUPERSEDED_AGGREGATE_PATTERN)

UNPRINTABLE = (
    "\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff"
)
"""Control characters, surrogates, and characters that reorder or hide text, as a character class of `re`."""


def parse_size(text: str) -> int:
    """Return a size in bytes, at least 1.

    Args:
        text: A number with an optional unit: `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB`.

    Raises:
        ConfigurationError: The text is not a size.

    Example:
        >>> parse_size("1.5 GB"), parse_size("2GiB"), parse_size("4096")
        (1500000000, 2147483648, 4096)
    """
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    size = int(float(found[1]) * (1024 if "i" in unit else 1000) ** ("bkmgt".index(unit[:1] or "b"))) if found else 0
    if size < 1:
        raise ConfigurationError(
            f"cannot use {text[:40]!r} as a size", "it is not a number of bytes", "use for example 2GB"
        )
    return size


def sanitize_experiment_id(experiment_id: str) -> str:
    """Return the folder name of an experiment: characters outside `A-Za-z0-9._-` become `_`.

    Different ids can have the same folder name (`a/b` and `a_b`). The repository detects this from the id inside
    the files. For a folder name, the result is the same name.

    Windows cannot open names of devices (`CON`, `aux.json`) and names that end with a dot, so these names change too:
    `CON_`, `aux_json`, `exp_`. Source: "Naming Files, Paths, and Namespaces" of the Windows documentation.

    Args:
        experiment_id: Text of 1 to 200 characters.

    Raises:
        ExperimentIdError: The id is not a string, is blank, consists of dots, is longer than 200 characters, or has
            the reserved form `superseded-<id>-<number>`.

    Example:
        >>> sanitize_experiment_id("exp/with/slashes"), sanitize_experiment_id("aux.json")
        ('exp_with_slashes', 'aux_json')
    """
    name = former_folder_name(experiment_id)
    if _WINDOWS_DEVICE.fullmatch(name):
        name = name.replace(".", "_", 1) if "." in name else f"{name}_"
    return f"{name[:-1]}_" if name.endswith(".") else name


def former_folder_name(experiment_id: str) -> str:
    """Return the folder name that releases without the rule for Windows used. Raises `ExperimentIdError`."""
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


def require_local_path(path: str | Path) -> Path:
    """Return the path of a results directory, if it is not a URL.

    As a path, `s3://bucket/results` names the local folder `s3:/bucket/results`: results written there are lost with
    the machine. `Path` has already removed one of the slashes.

    Args:
        path: The results directory.

    Raises:
        ConfigurationError: The path starts with a scheme such as `s3:/`. A scheme has at least two characters, so that
            the drive letters of Windows are paths.

    Example:
        >>> require_local_path("results").name
        'results'
    """
    if scheme := _SCHEME.match(str(path)):
        found = f"no store for the scheme {scheme[1]!r} exists, only local folders are supported"
        raise ConfigurationError(f"cannot use {str(path)!r} as results directory", found, "pass a local folder")
    return Path(path)


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the dict of a JSON object; an `object_pairs_hook` for Python's `json`.

    Python and msgspec silently use the last value of a duplicate key.

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
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None is false
        msg = f"the key {duplicate[:40]!r} occurs twice in one object"
        raise ValueError(msg)
    return document


def is_safe_path(base: str | Path, target: str | Path) -> bool:
    """Return True if `target` is `base` or inside it, after all symbolic links are resolved.

    A sibling with the same prefix (`results-evil` next to `results`) is outside.

    Args:
        base: The base folder. It need not exist.
        target: The path to check. A relative path starts at the working directory.
    """
    try:
        folder = Path(base).resolve().parts
        # Not is_relative_to: in Python 3.12 its cost is quadratic in the number of folders.
        return Path(target).resolve().parts[: len(folder)] == folder
    except (OSError, RuntimeError, ValueError):
        # A loop of symbolic links, or a NUL character.
        return False


def validate_path(path: str | Path, base: str | Path | None = None, *, must_exist: bool = False) -> Path:
    """Return `path` as an absolute path with all symbolic links resolved.

    Args:
        path: The path to check. `~` is not expanded.
        base: The folder that must contain `path`; a relative `path` starts at it. None allows every folder.
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
        # ValueError: a lone surrogate, which cannot be encoded. OSError: for example a name that is too long.
        raise UnsafePathError(doing, str(error), "give another path") from error
    if is_missing:
        raise ResultNotFoundError(doing, "it does not exist", "check the spelling")
    return resolved

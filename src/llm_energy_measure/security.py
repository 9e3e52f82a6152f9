"""What is not trusted: experiment ids and paths that could escape their place, and JSON that says a thing twice.

Pure work on strings, paths and parsed pairs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llm_energy_measure.constants import MAX_ID_LENGTH, SUPERSEDED_AGGREGATE_PATTERN
from llm_energy_measure.exceptions import ExperimentIdError, ResultNotFoundError, UnsafePathError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_RESERVED = re.compile(SUPERSEDED_AGGREGATE_PATTERN)


def sanitize_experiment_id(experiment_id: str) -> str:
    """The folder name of an experiment: characters outside `A-Za-z0-9._-` become `_`.

    Different ids can share a folder name (`a/b` and `a_b`); the repository finds that from the id inside the
    files. Sanitising a sanitised id changes nothing.

    Args:
        experiment_id: Any text; 1 to 200 characters.

    Raises:
        ExperimentIdError: The id is empty or blank, consists of dots, is longer than 200 characters, or looks
            like a file that this package keeps (`superseded-<id>-<n>`).

    Example:
        >>> sanitize_experiment_id("exp/with/slashes")
        'exp_with_slashes'
    """
    if not isinstance(experiment_id, str) or not experiment_id.strip():
        problem = f"{experiment_id!r} is empty" if isinstance(experiment_id, str) else f"{experiment_id!r} is no text"
    elif not experiment_id.strip("."):
        problem = f"{experiment_id!r} would name a folder of the file system itself"
    elif len(experiment_id) > MAX_ID_LENGTH:
        problem = f"{experiment_id[:20]!r}... has {len(experiment_id)} characters, at most {MAX_ID_LENGTH} fit"
    elif _RESERVED.fullmatch(f"{(safe := _UNSAFE.sub('_', experiment_id))}.json"):
        problem = f"{experiment_id!r} looks like a file kept by this tool"
    else:
        return safe
    raise ExperimentIdError("cannot use the experiment id", problem, "choose another id")


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of its keys and values; for `object_pairs_hook` of Python's json.

    Python and msgspec take the last value of a key that stands twice, and which of them was meant nobody can say.

    Raises:
        ValueError: A key stands twice.

    Example:
        >>> reject_duplicate_keys([("a", 1), ("b", 2)])
        {'a': 1, 'b': 2}
    """
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # falsy
        msg = f"the key {twice[:40]!r} stands twice in one object"
        raise ValueError(msg)
    return document


def is_safe_path(base: str | Path, target: str | Path) -> bool:
    """True if `target`, with every link resolved, is `base` or lies inside it.

    A sibling whose name begins alike (`results-evil` beside `results`) is outside.

    Args:
        base: The folder that must not be left. It need not exist.
        target: A path; a relative one is taken from the working directory, as the file system would.
    """
    try:
        return Path(target).resolve().is_relative_to(Path(base).resolve())
    except (OSError, RuntimeError, ValueError):
        # Loops of links and embedded NUL characters: such a path leads nowhere safe.
        return False


def validate_path(path: str | Path, base: str | Path | None = None, *, must_exist: bool = False) -> Path:
    """The absolute form of `path`, with links resolved, once it is known to be usable.

    Args:
        path: The path to check; `~` is not expanded.
        base: If given, the folder that `path` must not leave; a relative `path` is taken from it.
        must_exist: Also require that something is there.

    Raises:
        UnsafePathError: The path is empty, holds a NUL character, or leaves `base`.
        ResultNotFoundError: Nothing is there, though it must exist.
    """
    text = str(path)
    doing = f"cannot use the path {text!r}"
    if not text or "\0" in text:
        raise UnsafePathError(doing, "it is empty or holds a NUL character", "give another path")
    full = Path(path) if base is None else Path(base) / path
    if base is not None and not is_safe_path(base, full):
        raise UnsafePathError(doing, f"it leads out of {str(base)!r}", "give a path inside it")
    try:
        resolved = full.resolve()
        is_missing = must_exist and not resolved.exists()
    except (OSError, RuntimeError, ValueError) as error:
        # ValueError: half of a surrogate pair, which no file system can hold. OSError: too long a name, for one.
        raise UnsafePathError(doing, str(error), "give another path") from error
    if is_missing:
        raise ResultNotFoundError(doing, "it was not found", "check the spelling")
    return resolved

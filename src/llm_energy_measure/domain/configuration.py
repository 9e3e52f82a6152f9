"""Configurations: flatten them to keys, find keys by suffix, and find the keys in which repeats may differ."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

Value = str | int | float | bool
"""Value of a flattened key. Lists are JSON text. A key whose value is null equals an absent key."""

PREFIX = "config."
"""Prefix of a configuration key in conditions, columns and tables."""

_IGNORED_SECTIONS = frozenset({"schedule", "schedule_config", "joined", "legacy"})
_IGNORED_NAMES = frozenset(
    {
        *("config_name", "cycle_id", "num_cycles", "repeat", "num_repeats", "timestamp"),
        *("id", "uuid", "pid", "run_id", "job_id", "experiment_id", "trial_id", "session_id", "slurm_job_id"),
        *("run_name", "experiment_name", "job_name"),
        *("results_dir", "results_path", "output", "output_dir", "output_path", "output_file", "out_dir", "out"),
        *("save_dir", "save_path", "log_dir", "log_file", "log_path", "logging_dir", "result_dir", "result_filename"),
        *("seed", "random_seed"),
    }
)


def flatten(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of a configuration by dotted key, sorted by key.

    A list is JSON text. Null, NaN and empty objects are left out. If two values have the same dotted key, the second
    key gets the ending `#2`.

    Example:
        >>> flatten({"decoder": {"top_k": 50, "stop": ["a"]}, "seed": None})
        {'decoder.stop': '["a"]', 'decoder.top_k': 50}
    """
    found: dict[str, Value] = {}
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            # Reversed, so that the first value of a repeated key is popped first.
            prefix = f"{key}." if key else ""
            pending += [(f"{prefix}{name}", inner) for name, inner in reversed(value.items())]
        elif value is not None and not (isinstance(value, float) and math.isnan(value)):
            while key in found:
                key = f"{key}#2"
            found[key] = _leaf(value)
    return dict(sorted(found.items()))


def _leaf(value: Any) -> Value:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if value.bit_length() < 64 else str(value)
    return msgspec.json.encode(value, order="sorted").decode()


def is_ignored(key: str, sections: Collection[str] = ()) -> bool:
    """Return True if repeats of one configuration may differ in a key: ids, seeds, output paths, schedules, counters.

    Args:
        key: The dotted key.
        sections: Names of further top-level objects to ignore. An importer stores further fields of its source file in
            an object with the name of the tool. These fields can contain measurements.

    Example:
        >>> is_ignored("prompt_source.seed"), is_ignored("decoder.top_k"), is_ignored("zeus.t", ["zeus"])
        (True, False, True)
    """
    parts = key.split(".")
    last = parts[-1]
    return (
        last in _IGNORED_NAMES
        or last.endswith("_seed")
        or parts[0] in sections
        or not _IGNORED_SECTIONS.isdisjoint(parts[:-1])
    )


def digest(configuration: Mapping[str, Value]) -> str:
    """Return the SHA-256 of a flattened configuration, in lower-case hexadecimal. Equal numbers have equal digests.

    Example:
        >>> digest({"a": 1, "b": 0.5}) == digest({"b": 0.5, "a": 1.0})
        True
    """
    plain = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in configuration.items()
    }
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def keys_named(name: str, keys: Collection[str]) -> list[str]:
    """Return the keys that a name selects: the key that equals the name, and all keys that end with a dot and the name.

    A name that starts with a dot selects only the key without this dot.

    Example:
        >>> keys_named("batch_size", ["batch_size", "batching.batch_size", "fp_precision"])
        ['batch_size', 'batching.batch_size']
        >>> keys_named(".batch_size", ["batch_size", "batching.batch_size", "fp_precision"])
        ['batch_size']
    """
    ending = f".{name}"
    return sorted(key for key in keys if ending == f".{key}" or key.endswith(ending) or name == f".{key}")


def shortest_name(key: str, keys: Collection[str]) -> str:
    """Return the name that selects only this key in `keys_named`: the key, or a dot and the key."""
    return key if keys_named(key, keys) == [key] else f".{key}"

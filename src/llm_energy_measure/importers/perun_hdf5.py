"""Convert a perun HDF5 file to perun's JSON form, in a separate process, because HDF5 can crash on a damaged file."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import msgspec

from llm_energy_measure.importers.perun_tree import MAX_DEPTH, SENSOR, magnitude, samples_of
from llm_energy_measure.importers.report import RefusedInputError

_MAX_NODES = 200_000
_MAX_SAMPLES = 2_000_000
_MAX_SAMPLE_BYTES = 16
_MAX_MEMORY = 4 * 1024 * 1024 * 1024
"""Limit of the address space, in bytes. Libraries reserve a part of it without using it."""


def main() -> None:
    """Read HDF5 from stdin. Write JSON to stdout: `documents` by name, or `code` and `message` of a refusal."""
    # Windows has no module `resource`. ValueError or OSError: a lower limit is already set, and remains.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    try:
        response: dict[str, Any] = {"documents": _documents(sys.stdin.buffer.read())}
    except RefusedInputError as error:
        response = {"code": error.code, "message": error.message}
    sys.stdout.buffer.write(msgspec.json.encode(response))


def _documents(data: bytes) -> dict[str, Any]:
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            converter = _Converter()
            return {name: converter.document(group, 0) for name, group in _groups(file)}
    except MemoryError as error:
        raise RefusedInputError("too_large", "it needs too much memory; split the file") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise RefusedInputError("unreadable", f"it is not a readable HDF5 file ({error})") from error


class _Converter:
    """Converts the groups of one file, within limits on nodes and samples."""

    def __init__(self) -> None:
        self.nodes = 0
        self.samples = 0

    def document(self, group: Any, depth: int) -> dict[str, Any]:
        """Return a group in the form of perun's JSON. Raise RefusedInputError if the file exceeds a limit."""
        self.nodes += 1
        if self.nodes > _MAX_NODES or depth > MAX_DEPTH:
            found = f"it has more than {_MAX_NODES} nodes, or more than {MAX_DEPTH} levels; split the file"
            raise RefusedInputError("too_large", found)
        facts, inner = _attributes(group), dict(_groups(group))
        level = facts.pop("type", SENSOR)
        document = {
            "type": level if isinstance(level, int) else SENSOR,
            "deviceType": facts.pop("device_type", None),
            "metadata": facts,
            "metrics": {key: _attributes(metric) for key, metric in _groups(inner.get("metrics", {}))},
            "nodes": {key: self.document(child, depth + 1) for key, child in _groups(inner.get("nodes", {}))},
        }
        if "raw_data" in inner and document["type"] == SENSOR:
            times, details = self._dataset(inner["raw_data"], "timesteps")
            values, value_details = self._dataset(inner["raw_data"], "values")
            seconds = samples_of(times, details, magnitude(details))  # perun's JSON has times in seconds
            document["raw_data"] = {"timesteps": seconds, "values": values, "v_md": value_details}
        return document

    def _dataset(self, group: Any, name: str) -> tuple[list[Any], dict[str, Any]]:
        """Return values and attributes of a dataset; empty if it is missing, linked or not a list of numbers."""
        is_own = isinstance(group.get(name, getlink=True), h5py.HardLink)
        found = group.get(name) if is_own else None
        if not isinstance(found, h5py.Dataset) or len(found.shape) != 1 or found.dtype.itemsize > _MAX_SAMPLE_BYTES:
            return [], {}
        if found.is_virtual or found.external:
            raise RefusedInputError("not_a_file", f"{name} is stored in another file; export all data into one file")
        self.samples += found.shape[0]
        # HDF5 unpacks whole chunks, and a chunk can be larger than the dataset.
        if self.samples > _MAX_SAMPLES or math.prod(found.chunks or ()) > _MAX_SAMPLES:
            found = f"it has more than {_MAX_SAMPLES} samples, or a chunk for more than {_MAX_SAMPLES} samples"
            raise RefusedInputError("too_large", f"{found}; split the file")
        return found[()].tolist(), _attributes(found)


def _groups(parent: Any) -> Iterator[tuple[str, Any]]:
    """Yield the groups directly below a group, by name, without soft and external links."""
    for name in parent:
        is_own = isinstance(parent.get(name, getlink=True), h5py.HardLink)
        if is_own and parent.get(name, getclass=True) is h5py.Group:
            yield name, parent[name]


def _attributes(found: Any) -> dict[str, Any]:
    """Return the attributes of a group or dataset as JSON values."""
    return {key: _plain(value) for key, value in found.attrs.items()}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    value = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str | int | float | bool | list) else str(value)


if __name__ == "__main__":
    main()

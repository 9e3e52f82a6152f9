"""perun's HDF5 as a tree: a program that `perun.py` runs, since on a torn file the HDF5 library can loop or crash."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from typing import TYPE_CHECKING, Any

import h5py
import msgspec

from llm_energy_measure.importers.cells import number, text
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.perun_tree import MAX_DEPTH, SENSOR, Answer, Tree, metrics_of, range_of, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_OBJECTS = 200_000
_MAX_SAMPLES = 2_000_000
_MAX_SAMPLE_BYTES = 16
_MAX_MEMORY = 4 * 1024 * 1024 * 1024
"""Address space, of which libraries take a part without using it."""


def trees(data: bytes) -> list[Tree]:
    """The trees of an HDF5 file. Links that lead anywhere else are not followed."""
    budget = [_MAX_OBJECTS, _MAX_SAMPLES]
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return [_from_group(group, name, budget, 0) for name, group in _groups(file)]
    except MemoryError as error:
        raise RefusedFileError("too_large", "it takes too much memory; split it") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise RefusedFileError("unreadable", f"it is no HDF5 that can be read ({error})") from error


def main() -> None:
    """Answer on stdout with what the file on stdin holds."""
    # Some systems have no such limit, and where a lower one holds already it stands.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    try:
        answer = Answer(trees=trees(sys.stdin.buffer.read()))
    except RefusedFileError as refused:
        answer = Answer(code=refused.code, sentence=refused.sentence)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _groups(parent: Any) -> Iterator[tuple[str, Any]]:
    """Groups right below one that lie in the same file, by name."""
    for name in parent:
        is_own = isinstance(parent.get(name, getlink=True), h5py.HardLink)
        if is_own and parent.get(name, getclass=True) is h5py.Group:
            yield name, parent[name]


def _from_group(group: Any, name: str, budget: list[int], depth: int) -> Tree:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise RefusedFileError("too_large", f"it has more than {_MAX_OBJECTS} nodes, or more than {MAX_DEPTH} levels")
    facts = {key: _plain(value) for key, value in group.attrs.items()}
    inner = dict(_groups(group))
    level = facts.pop("type", SENSOR)
    tree = Tree(
        name=name,
        level=level if isinstance(level, int) else SENSOR,
        facts=facts,
        metrics=metrics_of({key: _attributes(found) for key, found in _groups(inner.get("metrics", {}))}),
        kind=text(facts.pop("device_type", None)),
    )
    if "raw_data" in inner and tree.level == SENSOR:
        times, details = _samples(inner["raw_data"], "timesteps", budget)
        tree.times = scaled(times, details, number(details.get("mag")) or 1.0)
        values, details = _samples(inner["raw_data"], "values", budget)
        factor = number(details.get("mag")) or 1.0
        tree.values, tree.unit = scaled(values, details, factor), text(details.get("unit")) or ""
        tree.wraps_at = range_of(details, factor)
    if "nodes" in inner:
        tree.children = [_from_group(child, key, budget, depth + 1) for key, child in _groups(inner["nodes"])]
    return tree


def _samples(group: Any, name: str, budget: list[int]) -> tuple[list[Any], dict[str, Any]]:
    """A data set, once it is known to be small and to lie in this file."""
    is_own = isinstance(group.get(name, getlink=True), h5py.HardLink)
    found = group.get(name) if is_own else None
    if not isinstance(found, h5py.Dataset) or len(found.shape) != 1 or found.dtype.itemsize > _MAX_SAMPLE_BYTES:
        return [], {}
    budget[1] -= found.shape[0]
    if found.is_virtual or found.external:
        raise RefusedFileError("not_a_file", f"{name} lies in another file, which is not followed")
    # A chunk is unpacked whole, however few samples of it are there.
    if budget[1] < 0 or math.prod(found.chunks or ()) > _MAX_SAMPLES:
        raise RefusedFileError("too_large", f"it has more than {_MAX_SAMPLES} samples, or room for them; split it")
    return found[()].tolist(), _attributes(found)


def _attributes(found: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in found.attrs.items()}


def _plain(value: Any) -> Any:
    """A value of HDF5 as one of JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    value = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str | int | float | bool | list) else str(value)


if __name__ == "__main__":
    main()

"""For each format, an import returns every field of the records that were written in this format."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llm_energy_measure.results.store import codec
from tests.support import peers, strategies
from tests.support.imports import read_all
from tests.support.shapes import FILE_FIELDS, Shape, field_paths, value_at
from tests.support.shapes_of_benchmarks import BENCHMARKS
from tests.support.shapes_of_logs import CODECARBON, TABLE, VLLM, ZEUS
from tests.support.shapes_of_power import POWER_LOG
from tests.support.shapes_of_processes import LEGACY, PERUN, PERUN_HDF5
from tests.support.shapes_of_runs import LEADERBOARD, ML_ENERGY, OPTIMUM
from tests.support.shapes_of_tables import ENERGIBRIDGE, RUN_TABLE

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult

SHAPES: dict[str, Shape] = {
    "codecarbon": CODECARBON,
    "table": TABLE,
    "zeus": ZEUS,
    "vllm": VLLM,
    "ml-energy": ML_ENERGY,
    "ml-energy leaderboard": LEADERBOARD,
    "optimum-benchmark": OPTIMUM,
    "perun": PERUN,
    "perun as HDF5": PERUN_HDF5,
    "legacy": LEGACY,
    "power-log": POWER_LOG,
    **BENCHMARKS,
    "experiment-runner": RUN_TABLE,
    "energibridge": ENERGIBRIDGE,
}


def read_back(folder: Path, options: dict[str, Any]) -> list[RawProcessResult]:
    """Return all records, after a check of the report and of the origin of each record."""
    records, entries = read_all(folder, **options)
    assert [entry for entry in entries if entry.outcome == "refused"] == []
    for record in records:
        assert codec.require_valid_raw(record) == record
        assert record.origin is not None
        [path] = folder.rglob(record.origin.file or "")
        assert record.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return records


def expected(written: RawProcessResult, found: RawProcessResult) -> Any:
    """Return the written record with the fields that depend on the file."""
    assert written.origin is not None
    assert found.origin is not None
    of_file = {name.removeprefix("origin."): value_at(found, name) for name in FILE_FIELDS}
    changes: dict[str, Any] = {"origin": msgspec.structs.replace(written.origin, **of_file)}
    if isinstance(written.experiment_id, re.Pattern):
        assert written.experiment_id.fullmatch(found.experiment_id)
        changes["experiment_id"] = found.experiment_id
    return msgspec.to_builtins(msgspec.structs.replace(written, **changes))


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "perun as HDF5"])
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_record_written_as_a_tools_file_is_imported_unchanged(name: str, data: st.DataObject) -> None:
    check_round_trip(SHAPES[name], data)


@settings(max_examples=4)  # each import starts a process
@given(data=st.data())
def test_record_written_as_hdf5_is_imported_unchanged(data: st.DataObject) -> None:
    check_round_trip(SHAPES["perun as HDF5"], data)


@given(strategies.raw_records(), st.sampled_from(["1.0.0", "1.2.3", "1.x"]))
def test_record_of_an_older_schema_is_imported_unchanged(written: RawProcessResult, version: str) -> None:
    document = {**json.loads(codec.encode_raw(written)), "schema_version": version}
    with tempfile.TemporaryDirectory() as top:
        peers.write_json(Path(top) / "process_0.json", document)
        [found] = read_back(Path(top), {})
    assert found.origin is not None
    assert (found.origin.tool, found.origin.version) == ("llm-energy-measure", version)
    assert found == msgspec.structs.replace(written, origin=found.origin)


def check_round_trip(shape: Shape, data: st.DataObject) -> None:
    written = shape.records(data.draw(shape.strategy))
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / shape.folder(written)
        folder.mkdir()
        options = shape.write(folder, written)
        found = read_back(folder, options)
        again = read_back(folder, options)
    assert [msgspec.to_builtins(record) for record in found] == [
        expected(one, other) for one, other in zip(written, found, strict=True)
    ]
    assert found == again


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_defines_every_field(name: str) -> None:
    shape = SHAPES[name]
    derived = set(shape.derived) | set(FILE_FIELDS)
    assert shape.stored & derived == set()
    # A new field of a record needs an entry in each shape of `tests/support/shapes*.py`.
    assert (shape.stored | derived) ^ set(field_paths()) == set()


@pytest.mark.parametrize("name", SHAPES)
def test_each_field_that_a_shape_stores_is_drawn(name: str) -> None:
    undrawn = set(SHAPES[name].stored)

    class AllDrawnError(Exception):
        """Ends the draws."""

    @settings(derandomize=True, database=None, max_examples=400, phases=[Phase.generate])
    @given(SHAPES[name].strategy)
    def draw_all(drawn: list[dict[str, Any]]) -> None:
        undrawn.difference_update(
            path for values in drawn for path, value in values.items() if value not in (None, [], [None])
        )
        if not undrawn:
            raise AllDrawnError

    with pytest.raises(AllDrawnError):
        draw_all()
    assert undrawn == set()

"""For each format, what is written in its shape and read back is the same record, in every field."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llm_energy_measure import importers
from llm_energy_measure.results.store import codec
from tests.support.shapes import OF_THE_FILE, Shape, leaves, value_at
from tests.support.shapes_of_logs import CODECARBON, TABLE, VLLM, ZEUS
from tests.support.shapes_of_processes import LEGACY, PERUN, PERUN_HDF5
from tests.support.shapes_of_runs import LEADERBOARD, ML_ENERGY, OPTIMUM

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
}


def read_back(folder: Path, options: dict[str, Any]) -> list[RawProcessResult]:
    """Every record, once it is known that the report adds up, and where each says it comes from."""
    reading = importers.read(folder, **options)
    records = list(reading)
    counts = reading.report.counts
    assert counts["refused"] == 0, reading.report.entries
    assert counts["seen"] == counts["kept"] + counts["repaired"] == len(records)
    for record in records:
        assert codec.require_valid_raw(record) == record
        assert record.origin is not None
        [path] = folder.rglob(record.origin.file or "")
        assert record.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return records


def expected(written: RawProcessResult, found: RawProcessResult) -> Any:
    """What was written, with what only the file itself could say."""
    assert written.origin is not None
    assert found.origin is not None
    of_file = {name.removeprefix("origin."): value_at(found, name) for name in OF_THE_FILE}
    changes: dict[str, Any] = {"origin": msgspec.structs.replace(written.origin, **of_file)}
    if isinstance(written.experiment_id, re.Pattern):
        assert written.experiment_id.fullmatch(found.experiment_id)
        changes["experiment_id"] = found.experiment_id
    return msgspec.to_builtins(msgspec.structs.replace(written, **changes))


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "perun as HDF5"])
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_what_is_written_in_a_shape_and_read_back_is_the_same_record(name: str, data: st.DataObject) -> None:
    check_round_trip(SHAPES[name], data)


@settings(max_examples=8)  # each starts a process
@given(data=st.data())
def test_what_is_written_as_hdf5_and_read_back_is_the_same_record(data: st.DataObject) -> None:
    check_round_trip(SHAPES["perun as HDF5"], data)


def check_round_trip(shape: Shape, data: st.DataObject) -> None:
    written = shape.records(data.draw(shape.drawn))
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
def test_every_field_is_decided_for_each_shape(name: str) -> None:
    shape = SHAPES[name]
    told = set(shape.told) | set(OF_THE_FILE)
    assert shape.carried & told == set()
    # A new field of a record is named here until a list in `tests/support/shapes*.py` says what a shape makes of it.
    assert (shape.carried | told) ^ set(leaves()) == set()


@pytest.mark.parametrize("name", SHAPES)
def test_every_field_that_a_shape_carries_is_drawn(name: str) -> None:
    undrawn = set(SHAPES[name].carried)

    @settings(derandomize=True, database=None, max_examples=100, phases=[Phase.generate])
    @given(SHAPES[name].drawn)
    def look(drawn: list[dict[str, Any]]) -> None:
        undrawn.difference_update(
            path for values in drawn for path, value in values.items() if value not in (None, [], [None])
        )

    look()
    assert undrawn == set()

"""Laws of every importer: CodeCarbon's files survive export and import, and no content crashes an importer.

`test_import_round_trips.py` checks that each importer returns the records that were written.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.importers.codecarbon_rows import LAYOUTS
from llm_energy_measure.results import exporters
from llm_energy_measure.results.store import codec
from tests.fuzz import mutate
from tests.importers.test_other_versions import RESULT
from tests.support import factories, peers
from tests.support.imports import codes, read_all
from tests.support.peers import write_experiment
from tests.support.shapes_of_logs import joules, seconds, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.domain.experiment import RawProcessResult

kwh = st.floats(1e-9, 1e6)
stamps = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1))


def read_valid(path: Path, **options: Any) -> list[RawProcessResult]:
    """Return all records, after a check that no importer failed and that each record can be saved."""
    records, entries = read_all(path, **options)
    assert "broke_off" not in codes(entries)
    for record in records:
        assert codec.require_valid_raw(record) == record
    return records


def read_text(text: str | bytes, **options: Any) -> list[RawProcessResult]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_valid(path, **options)


def without_origins(records: list[RawProcessResult]) -> list[RawProcessResult]:
    return [msgspec.structs.replace(record, origin=None) for record in records]


# CodeCarbon: export and import

numbers = st.one_of(st.just(""), kwh.map(repr))


@st.composite
def codecarbon_rows(draw: st.DrawFn) -> str:
    """Draw a file of some version."""
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    rows = [",".join(layout)]
    for number in range(draw(st.integers(1, 3))):
        changes = {
            **{name: draw(numbers) for name in ("cpu_energy", "gpu_energy", "ram_energy", "cpu_power", "emissions")},
            "energy_consumed": draw(numbers),
            "duration": repr(draw(seconds)),
            "timestamp": draw(stamps).replace(microsecond=0).isoformat(),
            "run_id": f"run-{number}",
            "experiment_id": f"run-{number}" if "run_id" not in layout else "e",
            "project_name": draw(words),
            "tracking_mode": draw(st.sampled_from(["machine", "process"])),
            "gpu_model": draw(st.sampled_from(["", "Apple M1", "1 x NVIDIA H100", "8 x NVIDIA A40"])),
        }
        rows.append(peers.line(layout, **changes))
    return "\n".join(rows) + "\n"


@given(codecarbon_rows())
def test_codecarbon_file_survives_export_and_import(text: str) -> None:
    records = read_text(text)
    again = read_text(exporters.to_codecarbon(records))
    assert [record.energy_metrics for record in again] == [record.energy_metrics for record in records]
    for one, other in zip(records, again, strict=True):
        assert (one.timestamps, one.config_name, one.gpu_name) == (other.timestamps, other.config_name, other.gpu_name)
    if "run_id" in text:
        kept = [record.effective_config for record in records]
        assert [record.effective_config for record in again] == kept
        assert [record.experiment_id for record in again] == [record.experiment_id for record in records]
    assert without_origins(read_text(exporters.to_codecarbon(again))) == without_origins(again)


@given(joules, joules, seconds, stamps)
def test_record_with_an_end_survives_export_to_codecarbon(
    total: float, gpu: float, duration: float, end: datetime
) -> None:
    energy = factories.energy(total_energy_j=total, gpu_energy_j=gpu, duration_sec=duration)
    span = factories.timestamps(end - timedelta(seconds=duration), duration)
    record = factories.raw(timestamps=msgspec.structs.replace(span, end=end), energy_metrics=energy)
    [found] = read_text(exporters.to_codecarbon([record]))
    assert found.energy_metrics.total_energy_j == pytest.approx(total, rel=1e-15, abs=1e-300)
    # CodeCarbon writes 0 if it reads no GPU, so 0 J of GPU energy is imported as unknown.
    expected_j = pytest.approx(gpu, rel=1e-15, abs=1e-300) if gpu else None
    assert found.energy_metrics.gpu_energy_j == expected_j
    assert (found.timestamps.end, found.energy_metrics.duration_sec) == (end, duration)


# Damaged files and extreme values

BENCHMARKS = Path(__file__).parents[1] / "data" / "benchmarks"
LOGS = Path(__file__).parents[1] / "data" / "power_logs"


def _optimum(folder: Path) -> None:
    peers.write_json(folder / "benchmark_config.json", peers.OPTIMUM_CONFIG)
    peers.write_json(folder / "prefill_codecarbon.json", peers.codecarbon_task())
    peers.write_json(folder / "generate_codecarbon.json", peers.codecarbon_task(energy_consumed=2.0))
    peers.write_json(folder / "benchmark_report.json", {"prefill": peers.optimum_energy(1.0)})


def _perun_hdf5(folder: Path) -> None:
    tree = peers.perun_tree({"node-1": [peers.perun_sensor("cpu", "cpu", "J", [1.0, 2.0, 4.0])]})
    peers.write_perun_hdf5(folder / "file", tree)


SHAPES: dict[str, Callable[[Path], object]] = {
    "codecarbon": lambda folder: (folder / "file").write_text(f"{','.join(peers.LATEST)}\n{peers.line()}\n"),
    "zeus": lambda folder: (folder / "file").write_text(peers.zeus_lines([(1.0, "w", 2.0, [3.0, 4.0])])),
    "vllm": lambda folder: (folder / "file").write_text(json.dumps(peers.vllm_result(ttfts=[0.1], itls=[[0.2, 0.3]]))),
    "optimum": _optimum,
    "ml_energy": lambda folder: peers.write_json(folder / "file", peers.ml_energy_run()),
    "perun": lambda folder: peers.write_json(
        folder / "file", peers.perun_tree({"n": [peers.perun_sensor("cpu", "cpu", "J", [1.0, 2.0, 4.0])]})
    ),
    "perun_hdf5": _perun_hdf5,
    "legacy": lambda folder: write_experiment(folder / "0042"),
    "power_log": lambda folder: (folder / "file").write_bytes((LOGS / "nvidia_smi.csv").read_bytes()),
    "telemetry": lambda folder: (folder / "file").write_bytes((LOGS / "aiperf_telemetry.jsonl").read_bytes()),
    "dmon": lambda folder: (folder / "file").write_bytes((LOGS / "dmon_date_time.txt").read_bytes()),
    "dcgmi": lambda folder: (folder / "file").write_bytes((LOGS / "dcgmi_counter.txt").read_bytes()),
    "amd_smi": lambda folder: (folder / "file").write_bytes((LOGS / "amd_smi_monitor.csv").read_bytes()),
    "aiperf": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "aiperf.json").read_bytes()),
    "inferencex": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "inferencex_list.json").read_bytes()),
    "throughput": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "vllm_throughput.json").read_bytes()),
    "power_bench": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "tokenpowerbench.json").read_bytes()),
    "result_json": lambda folder: peers.write_json(folder / "file", RESULT),
    "older_record": lambda folder: peers.write_json(
        folder / "file", {**factories.document(factories.full_raw()), "schema_version": "1.0.0"}
    ),
    "run_table": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "run_table.csv").read_bytes()),
    "energibridge": lambda folder: (folder / "file").write_bytes((BENCHMARKS / "energibridge.csv").read_bytes()),
    "table": lambda folder: (folder / "file").write_text('{"j": 1.5, "m": "x", "t": "2026-01-01"}\n{"j": 2}\n'),
    "csv": lambda folder: (folder / "file").write_text("j,m,t\n1.5,x,2026-01-01\n2,y,1768592398\n"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_damaged_file_crashes_an_importer(shape: str, tmp_path: Path) -> None:
    SHAPES[shape](tmp_path / "whole" if shape == "legacy" else _new_folder(tmp_path / "whole"))
    paths = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    rng = random.Random(20260116)
    mapping = ["energy_j=j*2", "model_name=m", "start=t"] if shape in ("table", "csv") else []
    for number in range(10 if shape == "perun_hdf5" else 150):  # each import starts a process
        path = paths[number % len(paths)]
        content = path.read_bytes()
        path.write_bytes(mutate.mutated(rng, [content]))
        read_valid(tmp_path / "whole", mapping=mapping, gpu_uuids=["GPU-a"], host="node-1")
        path.write_bytes(content)


EXTREME = [
    *("1e200", "1e12", "-1", "5", "0", "1e999", "9.7e9", "0.0001", "1e30"),
    *('"0001-01-01T00:00:00"', '"9999-12-31T23:59:59+14:00"', '"00010101-000000"', "0001-01-01T00:00:00", '"x"'),
    *("null", "[]", "{}", "[5]"),
]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "perun_hdf5"])
def test_no_extreme_value_crashes_an_importer(shape: str, tmp_path: Path) -> None:
    SHAPES[shape](tmp_path / "whole" if shape == "legacy" else _new_folder(tmp_path / "whole"))
    paths = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    rng = random.Random(20260116)
    mapping = ["energy_j=j*2", "model_name=m", "start=t", "input_tokens=j"] if shape in ("table", "csv") else []
    for number in range(200):
        path = paths[number % len(paths)]
        content = path.read_text()
        found = rng.choice(list(_VALUE.finditer(content)))
        path.write_text(content[: found.start()] + rng.choice(EXTREME) + content[found.end() :])
        read_valid(tmp_path / "whole", mapping=mapping, gpu_uuids=["GPU-a"], host="node-1")
        path.write_text(content)


_VALUE = re.compile(r'(?<=: )"[^"]*"|(?<=[ ,\[])-?[0-9][^ ,\]}\n]*')
"""A value in a JSON object, or a cell that begins with a digit."""


def _new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder

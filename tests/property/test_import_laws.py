"""Laws of every importer: what stands in a file comes back as it stood, and nothing that can stand there crashes."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_energy_measure import importers
from llm_energy_measure.importers.codecarbon_rows import LAYOUTS
from llm_energy_measure.results import codec, exporters
from llm_energy_measure.results.columns import RAW_COLUMNS
from tests.fuzz import mutate
from tests.support import factories, peers
from tests.support.peers import KWH, write_experiment

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.domain.experiment import RawProcessResult

joules = st.floats(0, 1e12, allow_subnormal=False)
kwh = st.floats(1e-9, 1e6)
seconds = st.floats(0.001, 1e5)
# A text that would begin a formula in a spreadsheet is exported with a mark before it.
words = st.text("abcXYZ 0189._/+-é", min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and not text.startswith(("+", "-"))
)
stamps = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1))  # noqa: DTZ001 - as in the files, without a zone


def read_all(path: Path, **options: Any) -> list[RawProcessResult]:
    """Every record, once it is known that the report adds up and that each can be saved."""
    reading = importers.read(path, **options)
    records = list(reading)
    counts = reading.report.counts
    assert counts["kept"] + counts["repaired"] == len(records)
    assert [entry for entry in reading.report.entries if entry.code == "broke_off"] == []
    assert counts["seen"] == counts["kept"] + counts["repaired"] + counts["refused"] == len(reading.report.entries)
    for record in records:
        assert codec.require_valid_raw(record) == record
    return records


def read_text(text: str | bytes, **options: Any) -> list[RawProcessResult]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_all(path, **options)


def without_origin(records: list[RawProcessResult]) -> list[RawProcessResult]:
    return [msgspec.structs.replace(record, origin=None) for record in records]


# CodeCarbon: what we export is what we import

numbers = st.one_of(st.just(""), kwh.map(repr))


@st.composite
def codecarbon_rows(draw: st.DrawFn) -> str:
    """A file of some version, of runs of its own."""
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
def test_codecarbon_comes_back_from_its_own_shape(text: str) -> None:
    records = read_text(text)
    again = read_text(exporters.to_codecarbon(records))
    assert [record.energy_metrics for record in again] == [record.energy_metrics for record in records]
    for one, other in zip(records, again, strict=True):
        assert (one.timestamps, one.config_name, one.gpu_name) == (other.timestamps, other.config_name, other.gpu_name)
    if "run_id" in text:
        kept = [record.effective_config for record in records]
        assert [record.effective_config for record in again] == kept
        assert [record.experiment_id for record in again] == [record.experiment_id for record in records]
    assert without_origin(read_text(exporters.to_codecarbon(again))) == without_origin(again)


@given(joules, joules, seconds, stamps)
def test_any_record_with_an_end_survives_the_shape_of_codecarbon(
    total: float, gpu: float, duration: float, end: datetime
) -> None:
    energy = factories.energy(total_energy_j=total, gpu_energy_j=gpu, duration_sec=duration)
    span = factories.stamps(end - timedelta(seconds=duration), duration)
    record = factories.raw(timestamps=msgspec.structs.replace(span, end=end), energy_metrics=energy)
    [found] = read_text(exporters.to_codecarbon([record]))
    assert found.energy_metrics.total_energy_j == pytest.approx(total, rel=1e-15, abs=1e-300)
    assert found.energy_metrics.gpu_energy_j == pytest.approx(gpu, rel=1e-15, abs=1e-300)
    assert (found.timestamps.end, found.energy_metrics.duration_sec) == (end, duration)


# A table: what we export as JSON lines is what a mapping of its columns imports

TABLE_FIELDS = {
    "energy_j": "total_energy_j",
    "start": "start_time",
    "end": "end_time",
    **{
        name: name
        for name in (
            *("experiment_id", "model_name", "config_name", "backend", "backend_version", "host", "gpu_uuid"),
            *("gpu_name", "process_index", "world_size", "gpu_id", "gpu_energy_j", "cpu_energy_j", "ram_energy_j"),
            *("gpu_power_w", "cpu_power_w", "emissions_kg_co2", "energy_per_token_j", "input_tokens"),
            *("output_tokens", "total_tokens", "inference_time_sec", "tokens_per_second", "flops_total"),
            *("peak_memory_mb", "compute_precision", "total_scope", "gpu_scope", "cpu_scope", "ram_scope"),
        )
    },
    "duration_sec": "energy_window_sec",
}


@given(st.lists(st.tuples(joules, seconds, st.integers(0, 2**40)), min_size=1, max_size=4), words)
def test_a_table_comes_back_through_a_mapping_of_its_columns(rows: list[tuple[float, float, int]], model: str) -> None:
    assert set(TABLE_FIELDS.values()) <= {column.name for column in RAW_COLUMNS}
    records = [
        factories.raw(
            "exp",
            index,
            model_name=model,
            world_size=len(rows),
            host="node-1",
            timestamps=factories.stamps(seconds=duration),
            inference_metrics=factories.inference(total_tokens=tokens + 4096, output_tokens=tokens),
            energy_metrics=factories.energy(total_energy_j=total, duration_sec=duration, total_scope="host"),
        )
        for index, (total, duration, tokens) in enumerate(rows)
    ]
    mapping = [f"{field}={column}" for field, column in TABLE_FIELDS.items()]
    found = read_text(exporters.to_json_lines(records, kind=type(records[0])), mapping=mapping)
    for one, other in zip(records, found, strict=True):
        assert other.energy_metrics == one.energy_metrics
        assert (other.experiment_id, other.process_index, other.model_name) == ("exp", one.process_index, model)
        assert (other.timestamps, other.world_size, other.host) == (one.timestamps, len(rows), "node-1")
        assert one.inference_metrics is not None
        assert other.inference_metrics == msgspec.structs.replace(one.inference_metrics, latency_per_token_ms=None)


# The others: figures of a file are figures of its records, to the last bit


@given(st.lists(st.tuples(stamps, seconds, st.lists(joules, min_size=2, max_size=2)), min_size=1, max_size=4))
def test_zeus(windows: list[tuple[datetime, float, list[float]]]) -> None:
    lines = [(start.timestamp(), f"w{i}", sec, energy) for i, (start, sec, energy) in enumerate(windows)]
    records = read_text(peers.zeus_lines(lines))
    for record, (start, sec, energy) in zip(records, windows, strict=True):
        assert [device.energy_j for device in record.energy_metrics.devices or []] == energy
        assert record.energy_metrics.total_energy_j == sum(energy)
        assert record.timestamps.duration_sec == sec
        assert record.timestamps.start is not None
        assert abs(record.timestamps.start.timestamp() - start.timestamp()) < 1e-5


@given(st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**50), seconds), min_size=1, max_size=4))
def test_vllm(runs: list[tuple[int, int, float]]) -> None:
    documents = [
        peers.vllm_result(total_input_tokens=a, total_output_tokens=b, duration=sec, label=f"run {i}")
        for i, (a, b, sec) in enumerate(runs)
    ]
    records = read_text("\n".join(json.dumps(document) for document in documents))
    for record, (a, b, sec) in zip(records, runs, strict=True):
        assert record.inference_metrics is not None
        assert (record.inference_metrics.input_tokens, record.inference_metrics.output_tokens) == (a, b)
        assert record.timestamps.duration_sec == sec
    # What a record keeps of its original is enough to write it again.
    again = read_text("".join(json.dumps(record.effective_config["vllm"]) for record in records))
    assert without_origin(again) == without_origin(records)


@given(st.dictionaries(st.sampled_from(["load_model", "prefill", "decode", "forward"]), kwh, min_size=1))
def test_optimum_benchmark(phases: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = {phase: peers.optimum_energy(total) for phase, total in phases.items()}
        peers.write_json(Path(folder) / "benchmark_report.json", report)
        peers.write_json(Path(folder) / "benchmark_config.json", peers.OPTIMUM_CONFIG)
        records = read_all(Path(folder))
    found = {record.experiment_id.rpartition("-")[2]: record.energy_metrics for record in records}
    assert {phase: energy.total_energy_j for phase, energy in found.items()} == {
        phase: total * KWH for phase, total in phases.items()
    }


@given(st.lists(joules, min_size=1, max_size=8), seconds)
def test_ml_energy(energies: list[float], duration: float) -> None:
    measured = {"time": duration, "gpu_energy": {str(index): value for index, value in enumerate(energies)}}
    document = peers.ml_energy_run(entire_benchmark_measurement=measured, steady_state_measurement=measured)
    for record in read_text(json.dumps(document)):
        assert [device.energy_j for device in record.energy_metrics.devices or []] == energies
        assert record.energy_metrics.duration_sec == duration
        assert record.energy_metrics.total_energy_j == pytest.approx(sum(energies))


increments_of_a_counter = st.lists(st.integers(0, 10**6), min_size=2, max_size=6)


@given(increments_of_a_counter)
def test_perun(increments: list[int]) -> None:
    check_perun(increments, peers.write_json)


@settings(max_examples=5)  # each starts a process
@given(increments_of_a_counter)
def test_perun_as_hdf5(increments: list[int]) -> None:
    check_perun(increments, peers.write_perun_hdf5)


def check_perun(increments: list[int], write: Callable[[Path, dict[str, Any]], Path]) -> None:
    counter, values = 0, []
    for increment in increments:
        counter += increment
        values.append(float(counter % 2_000_000))
    tree = peers.perun_tree({"node-1": [peers.perun_sensor("cpu", "cpu", "J", values, max=2e6)]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        [record] = read_all(write(path, tree))
    assert record.energy_metrics.total_energy_j == sum(increments[1:])
    assert record.host == "node-1"


@given(st.lists(st.tuples(kwh, kwh, kwh), min_size=1, max_size=4))
def test_legacy(processes: list[tuple[float, float, float]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        folder = write_experiment(Path(top) / "0042", len(processes))
        for index, parts in enumerate(processes):
            path = folder / f"0042_6_local_energy_results_process_{index}.json"
            document = json.loads(path.read_bytes())
            energy = document["energy_results"]
            energy.update(zip(("cpu_energy", "gpu_energy", "ram_energy"), parts, strict=True))
            energy["total_energy_kwh"] = sum(parts)
            energy["total_energy_joules"] = sum(parts) * KWH
            peers.write_json(path, document)
        records = read_all(folder)
    for record, parts in zip(records, processes, strict=True):
        energy_metrics = record.energy_metrics
        assert energy_metrics.total_energy_j == sum(parts) * KWH
        assert (energy_metrics.cpu_energy_j, energy_metrics.gpu_energy_j, energy_metrics.ram_energy_j) == tuple(
            part * KWH for part in parts
        )
        kept = record.effective_config["legacy"]["energy_results"]
        assert kept["total_energy_joules"] == energy_metrics.total_energy_j


# Whatever stands in a file


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
    "table": lambda folder: (folder / "file").write_text('{"j": 1.5, "m": "x", "t": "2026-01-01"}\n{"j": 2}\n'),
    "csv": lambda folder: (folder / "file").write_text("j,m,t\n1.5,x,2026-01-01\n2,y,1768592398\n"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_that_a_file_can_hold_crashes_an_importer(shape: str, tmp_path: Path) -> None:
    SHAPES[shape](tmp_path / "whole" if shape == "legacy" else _made(tmp_path / "whole"))
    paths = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    rng = random.Random(20260116)  # noqa: S311 - the same files in every run
    mapping = ["energy_j=j*2", "model_name=m", "start=t"] if shape in ("table", "csv") else []
    for number in range(10 if shape == "perun_hdf5" else 150):  # each of its files starts a process
        path = paths[number % len(paths)]
        content = path.read_bytes()
        path.write_bytes(mutate.mutated(rng, [content]))
        read_all(tmp_path / "whole", mapping=mapping, gpu_uuids=["GPU-a"], host="node-1")
        path.write_bytes(content)


EXTREME = [
    *("1e200", "1e12", "-1", "5", "0", "1e999", "9.7e9", "0.0001", "1e30"),
    *('"0001-01-01T00:00:00"', '"9999-12-31T23:59:59+14:00"', '"00010101-000000"', "0001-01-01T00:00:00", '"x"'),
    *("null", "[]", "{}", "[5]"),
]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "perun_hdf5"])
def test_no_value_is_too_great_or_of_too_odd_a_kind(shape: str, tmp_path: Path) -> None:
    SHAPES[shape](tmp_path / "whole" if shape == "legacy" else _made(tmp_path / "whole"))
    paths = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    rng = random.Random(20260116)  # noqa: S311 - the same files in every run
    mapping = ["energy_j=j*2", "model_name=m", "start=t", "input_tokens=j"] if shape in ("table", "csv") else []
    for number in range(200):
        path = paths[number % len(paths)]
        content = path.read_text()
        found = rng.choice(list(_VALUE.finditer(content)))
        path.write_text(content[: found.start()] + rng.choice(EXTREME) + content[found.end() :])
        read_all(tmp_path / "whole", mapping=mapping, gpu_uuids=["GPU-a"], host="node-1")
        path.write_text(content)


_VALUE = re.compile(r'(?<=: )"[^"]*"|(?<=[ ,\[])-?[0-9][^ ,\]}\n]*')
"""A value of a JSON object, or a cell that begins with a digit."""


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder

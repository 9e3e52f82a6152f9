"""Other programs that do a part of the work of this package: the rivals and floors of `bulk.py`.

Each function returns the number of its experiments.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def _models() -> Any:
    """Return a pydantic model of the fields of a raw result, as the tool of the format has one."""
    from datetime import datetime

    import pydantic

    class Times(pydantic.BaseModel):
        start: datetime
        end: datetime
        duration_sec: float

    class Work(pydantic.BaseModel):
        total_tokens: int
        input_tokens: int
        output_tokens: int
        inference_time_sec: float
        tokens_per_second: float
        latency_per_token_ms: float
        time_to_first_token_ms: float | None = None
        latency_measurements: dict[str, Any] | None = None

    class Energy(pydantic.BaseModel):
        total_energy_j: float
        gpu_energy_j: float | None = None
        cpu_energy_j: float | None = None
        ram_energy_j: float | None = None
        gpu_power_w: float | None = None
        cpu_power_w: float | None = None
        duration_sec: float
        emissions_kg_co2: float | None = None
        energy_per_token_j: float | None = None

    class Compute(pydantic.BaseModel):
        flops_total: float | None = None
        flops_per_token: float | None = None
        flops_per_second: float | None = None
        peak_memory_mb: float | None = None
        model_memory_mb: float | None = None
        flops_method: str | None = None
        flops_confidence: str | None = None
        compute_precision: str | None = None

    class Record(pydantic.BaseModel):
        schema_version: str
        experiment_id: str
        backend: str | None = None
        backend_version: str | None = None
        process_index: int
        gpu_id: int | None = None
        gpu_name: str | None = None
        gpu_is_mig: bool | None = None
        gpu_mig_profile: str | None = None
        energy_measurement_warning: str | None = None
        config_name: str
        model_name: str
        timestamps: Times
        inference_metrics: Work
        energy_metrics: Energy
        compute_metrics: Compute
        effective_config: dict[str, Any]
        cli_overrides: dict[str, Any] = {}
        config_warnings: list[str] = []

    class Aggregate(pydantic.BaseModel):
        schema_version: str
        experiment_id: str
        total_tokens: int
        total_energy_j: float
        avg_tokens_per_second: float
        total_flops: float
        start_time: datetime
        end_time: datetime
        process_results: list[Record]

    return Record, Aggregate


def loop_of_pydantic(folder: Path) -> int:
    """Read each file with a pydantic model of its fields; sum the energy of each experiment."""
    record_type, _ = _models()
    totals: dict[str, float] = {}
    for experiment_folder in (folder / "raw").iterdir():
        for path in experiment_folder.glob("process_*.json"):
            record = record_type.model_validate_json(path.read_bytes())
            totals[record.experiment_id] = totals.get(record.experiment_id, 0.0) + record.energy_metrics.total_energy_j
    return len(totals)


def loop_of_json(folder: Path) -> int:
    """Read each file with `json.load`; sum the energy of each experiment."""
    totals: dict[str, float] = {}
    for experiment_folder in (folder / "raw").iterdir():
        for path in experiment_folder.glob("process_*.json"):
            with path.open(encoding="utf-8") as file:
                record = json.load(file)
            name = record["experiment_id"]
            totals[name] = totals.get(name, 0.0) + record["energy_metrics"]["total_energy_j"]
    return len(totals)


def frame_of_polars(folder: Path) -> int:
    """Read each file into a polars frame and join the frames; sum the energy of each experiment."""
    import polars as pl

    frames = [
        pl.read_json(path).select("experiment_id", pl.col("energy_metrics").struct.field("total_energy_j"))
        for path in (folder / "raw").glob("*/process_*.json")
    ]
    return pl.concat(frames).group_by("experiment_id").agg(pl.col("total_energy_j").sum()).height


def query_of_duckdb(folder: Path) -> int:
    """Read all files with DuckDB's `read_json`; sum the energy of each experiment."""
    import duckdb

    query = (
        f"SELECT experiment_id, sum(energy_metrics.total_energy_j) FROM read_json('{folder}/raw/*/process_*.json') "  # noqa: S608 - a folder of ours
        "GROUP BY 1"
    )
    return len(duckdb.sql(query).fetchall())


def tool_of_pydantic(folder: Path, target: str) -> int:
    """Aggregate as the tool of the format does: pydantic models, `model_dump_json`, one file at a time, no sync."""
    record_type, aggregate_type = _models()
    names = sorted(path.name for path in (folder / "raw").iterdir())
    for name in names:
        records = [
            record_type.model_validate_json(path.read_text(encoding="utf-8"))
            for path in sorted((folder / "raw" / name).glob("process_*.json"))
        ]
        aggregate = aggregate_type(
            schema_version="2.0.0",
            experiment_id=name,
            total_tokens=sum(record.inference_metrics.total_tokens for record in records),
            total_energy_j=sum(record.energy_metrics.total_energy_j for record in records),
            avg_tokens_per_second=sum(record.inference_metrics.tokens_per_second for record in records) / len(records),
            total_flops=sum(record.compute_metrics.flops_total or 0.0 for record in records),
            start_time=min(record.timestamps.start for record in records),
            end_time=max(record.timestamps.end for record in records),
            process_results=records,
        )
        Path(target, f"{name}.json").write_text(aggregate.model_dump_json(indent=2), encoding="utf-8")
    return len(names)


def plain_loop(folder: Path, target: str) -> int:
    """Read each file with `json.load`, add up, and write one small object per experiment with `json.dump`."""
    names = sorted(path.name for path in (folder / "raw").iterdir())
    for name in names:
        total_j, tokens = 0.0, 0
        for path in sorted((folder / "raw" / name).glob("process_*.json")):
            with path.open(encoding="utf-8") as file:
                record = json.load(file)
            total_j += record["energy_metrics"]["total_energy_j"]
            tokens += record["inference_metrics"]["total_tokens"]
        with Path(target, f"{name}.json").open("w", encoding="utf-8") as file:
            json.dump({"experiment_id": name, "total_energy_j": total_j, "total_tokens": tokens}, file)
    return len(names)


def bare_loop(folder: Path, target: str) -> int:
    """Read, hash and decode each file by calls of C, and write an aggregate of the same records; check nothing.

    A program in Python that decodes every field and embeds the records can't take less time.
    """
    import hashlib

    import msgspec

    from llm_energy_measure.domain.experiment import RawProcessResult

    decode, encode = msgspec.json.Decoder(RawProcessResult).decode, msgspec.json.Encoder().encode
    raw, out = os.open(folder / "raw", os.O_RDONLY), os.open(target, os.O_RDONLY)
    names = sorted(os.listdir(raw))  # noqa: PTH208 - the floor uses bare system calls
    for name in names:
        experiment_folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=raw)
        records = []
        for file in os.listdir(experiment_folder):  # noqa: PTH208 - as above
            descriptor = os.open(file, os.O_RDONLY, dir_fd=experiment_folder)
            data = os.read(descriptor, 1 << 16)
            os.close(descriptor)
            hashlib.sha256(data).hexdigest()
            records.append(decode(data))
        os.close(experiment_folder)
        descriptor = os.open(f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=out)
        os.write(descriptor, encode(records))
        os.close(descriptor)
    os.close(raw)
    os.close(out)
    return len(names)

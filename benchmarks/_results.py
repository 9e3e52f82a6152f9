"""Write results directories of several sizes for the benchmarks, with the JSON that the repository writes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from llm_energy_measure.domain.experiment import Manifest, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.results.store.codec import encode_manifest, encode_raw

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"100": 100, "1k": 1_000, "10k": 10_000, "100k": 100_000}
"""Number of experiments by name of the size. Each experiment has `PROCESSES` processes."""

PROCESSES = 8

_MODELS = ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.3", "Qwen/Qwen2.5-3B")
_PRECISIONS = ("float16", "bfloat16", "int8")
_START = datetime(2026, 1, 5, tzinfo=UTC)


def name_of(number: int) -> str:
    """Return the id of an experiment."""
    return f"exp_{number:06d}"


def record(number: int, process: int) -> RawProcessResult:
    """Return the record of one process. Every figure differs, each process has its own GPU, and there are two hosts."""
    start = _START + timedelta(minutes=number, seconds=process / 8)
    seconds = 9.5 + (number * 7 + process) % 13 / 16
    joules = 1500.0 + (number * 31 + process * 17) % 1009
    tokens = 4096 + (number + process) % 97
    return RawProcessResult(
        experiment_id=name_of(number),
        backend="pytorch",
        backend_version="transformers=4.57.6",
        process_index=process,
        gpu_id=process % 4,
        gpu_name="NVIDIA A100-PCIE-40GB",
        gpu_is_mig=False,
        config_name="sweep",
        model_name=_MODELS[number % len(_MODELS)],
        timestamps=Timestamps(start=start, end=start + timedelta(seconds=seconds), duration_sec=seconds),
        inference_metrics=InferenceMetrics(
            total_tokens=tokens + 4096,
            input_tokens=4096,
            output_tokens=tokens,
            inference_time_sec=seconds,
            tokens_per_second=(tokens + 4096) / seconds,
            latency_per_token_ms=seconds / tokens * 1e3,
        ),
        energy_metrics=EnergyMetrics(
            total_energy_j=joules,
            duration_sec=seconds,
            gpu_energy_j=joules * 0.75,
            cpu_energy_j=joules * 0.2,
            ram_energy_j=joules * 0.05,
            gpu_power_w=joules * 0.75 / seconds,
            total_scope="process",
            gpu_scope="device",
            gpu_provenance="measured",
        ),
        compute_metrics=ComputeMetrics(
            flops_total=tokens * 2.4e9,
            flops_method="parameter_estimate",
            flops_confidence="low",
            compute_precision=_PRECISIONS[number % len(_PRECISIONS)],
        ),
        effective_config={"batch_size": 8, "decoder": {"temperature": 1.0, "top_k": None}, "num_processes": PROCESSES},
        world_size=PROCESSES,
        host=f"node-{process // 4}",
        gpu_uuid=f"GPU-{number % 16:02d}{process:02d}",
        gpu_power_limit_w=250.0,
    )


def make_raw(folder: Path, experiments: int) -> None:
    """Write the raw results of this many experiments, without syncing them."""
    for number in range(experiments):
        experiment_folder = folder / "raw" / name_of(number)
        experiment_folder.mkdir(parents=True)
        descriptor = os.open(experiment_folder, os.O_RDONLY)
        files = {f"process_{process}.json": encode_raw(record(number, process)) for process in range(PROCESSES)}
        files["manifest.json"] = encode_manifest(Manifest(experiment_id=name_of(number)))
        for name, data in files.items():
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=descriptor)
            os.write(file, data)
            os.close(file)
        os.close(descriptor)

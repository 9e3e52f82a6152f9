"""Write results directories of several sizes for the benchmarks, in the spelling of the field's tool or in our own."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from llm_energy_measure.domain.experiment import Manifest, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.results.store.codec import encode_manifest, encode_raw

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"100": 100, "1k": 1_000, "10k": 10_000, "100k": 100_000}
"""Number of experiments by name of the size. Each experiment has `PROCESSES` processes."""

PROCESSES = 8

Files = Literal["field", "own"]
"""Who wrote the files: the field's tool or this package."""

_MODELS = ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.3", "Qwen/Qwen2.5-3B")
_PRECISIONS = ("float16", "bfloat16", "int8")
_START = datetime(2026, 1, 5, tzinfo=UTC)


# Fields that were added to the format after the field's tool wrote its files.
_LATER_FIELDS = (
    *("world_size", "host", "gpu_uuid", "gpu_power_limit_w", "clock", "launcher", "origin", "status", "error_type"),
    *("library_versions", "phases"),
)
_LATER_ENERGY_FIELDS = (
    *("window", "total_scope", "total_provenance", "gpu_scope", "gpu_provenance", "cpu_scope", "cpu_provenance"),
    *("ram_scope", "ram_provenance", "devices", "idle_power_w", "sensors"),
)


def name_of(number: int) -> str:
    """Return the id of an experiment."""
    return f"exp_{number:06d}"


def record(number: int, process: int) -> RawProcessResult:
    """Return the record of one process. Every figure differs, and each process has its own GPU."""
    start = _START + timedelta(minutes=number, seconds=process / 8)
    seconds = 9.5 + (number * 7 + process) % 13 / 16 + 1 / 7e6
    joules = 1500.0 + (number * 31 + process * 17) % 1009 + 1 / 3
    tokens = 4096 + (number + process) % 97
    return RawProcessResult(
        experiment_id=name_of(number),
        backend="pytorch",
        backend_version="transformers=4.57.6, torch=2.5.1+cu124",
        process_index=process,
        gpu_id=process,
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
            gpu_energy_j=joules * 0.75,
            cpu_energy_j=joules * 0.2,
            ram_energy_j=joules * 0.05,
            gpu_power_w=joules * 0.75 / seconds,
            cpu_power_w=joules * 0.2 / seconds,
            duration_sec=seconds,
            emissions_kg_co2=joules * 6.6e-10,
            energy_per_token_j=joules / (tokens + 4096),
        ),
        compute_metrics=ComputeMetrics(
            flops_total=tokens * 2.4e9,
            flops_per_token=2.4e9,
            flops_per_second=tokens * 2.4e9 / seconds,
            peak_memory_mb=0.0,
            model_memory_mb=0.0,
            flops_method="parameter_estimate",
            flops_confidence="low",
            compute_precision=_PRECISIONS[number % len(_PRECISIONS)],
        ),
        effective_config=_config(number),
    )


def _config(number: int) -> dict[str, Any]:
    """Return a configuration with the keys and nesting of the field's tool; its strings and numbers are our own."""
    return {
        "adapter": None,
        "backend": "pytorch",
        "batching_options": {
            "batch_size": 8,
            "dynamic_batching": False,
            "max_tokens_per_batch": None,
            "strategy": "static",
        },
        "config_name": "sweep",
        "cycle_id": None,
        "decode_token_to_text": False,
        "decoder_config": {
            "do_sample": True,
            "min_p": 0.0,
            "no_repeat_ngram_size": 0,
            "preset": None,
            "repetition_penalty": 1.0,
            "temperature": 0.8,
            "top_k": 50,
            "top_p": 1.0,
        },
        "extra_metadata": {},
        "fp_precision": _PRECISIONS[number % len(_PRECISIONS)],
        "gpu_list": list(range(PROCESSES)),
        "inference_type": "pure_generative",
        "io_config": {"results_dir": None},
        "is_encoder_decoder": False,
        "latency_simulation": {"enabled": False, "mode": "poisson", "seed": None, "target_qps": 1.0},
        "max_input_tokens": 128,
        "max_output_tokens": 128,
        "min_output_tokens": 0,
        "model_name": _MODELS[number % len(_MODELS)],
        "num_cycles": 2,
        "num_input_prompts": 32,
        "num_processes": PROCESSES,
        "prompt_source": {
            "column": "text",
            "dataset": "benchmark/prompts",
            "sample_size": 32,
            "seed": 42,
            "shuffle": False,
            "split": "train",
            "subset": None,
            "type": "huggingface",
        },
        "pytorch": None,
        "quantization_config": {
            "bnb_4bit_compute_dtype": "float16",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": False,
            "load_in_4bit": False,
            "load_in_8bit": False,
            "quantization": False,
        },
        "query_rate": 1.0,
        "random_seed": None,
        "save_outputs": False,
        "schedule_config": {
            "at": None,
            "days": None,
            "enabled": False,
            "interval": None,
            "total_duration": "24h",
        },
        "sharding_config": {"num_shards": 1, "strategy": "none", "tp_plan": None},
        "streaming": False,
        "streaming_warmup_requests": 5,
        "task_type": "text_generation",
        "tensorrt": None,
        "vllm": None,
    }


def encode(made: RawProcessResult, files: Files) -> bytes:
    """Return the bytes of a file.

    Args:
        made: The record.
        files: `own` for the bytes that this package writes. `field` for the fields and the spelling of the field's
            tool: Python's json with an indent of 2 (`1e-06`, and no fields that were added to the format later).
    """
    data = encode_raw(made)
    if files == "own":
        return data
    document = json.loads(data)
    for parent, names in ((document, _LATER_FIELDS), (document["energy_metrics"], _LATER_ENERGY_FIELDS)):
        for name in names:
            del parent[name]
    return json.dumps(document, indent=2).encode()


def make_raw(folder: Path, experiments: int, files: Files = "field") -> None:
    """Write the raw results of this many experiments, without syncing them.

    Args:
        folder: The results directory.
        experiments: Number of experiments.
        files: See `encode`. Files of the field's tool have no manifest.
    """
    for number in range(experiments):
        experiment_folder = folder / "raw" / name_of(number)
        experiment_folder.mkdir(parents=True)
        descriptor = os.open(experiment_folder, os.O_RDONLY)
        values = {f"process_{process}.json": encode(record(number, process), files) for process in range(PROCESSES)}
        if files == "own":
            values["manifest.json"] = encode_manifest(Manifest(experiment_id=name_of(number)))
        for name, data in values.items():
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=descriptor)
            os.write(file, data)
            os.close(file)
        os.close(descriptor)

"""A stand-in for the import of experiments of before schema versions ("1.x"): what verification needs of them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.domain.units import kwh_to_j

if TYPE_CHECKING:
    from pathlib import Path

CPU_MODEL_W = 112.5
"""The constant that every file's CPU energy was modelled with."""


def read(folder: Path, kind: str) -> dict[str, Any]:
    [path] = folder.glob(f"*_{kind}.json")
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def load_legacy(folder: Path) -> list[RawProcessResult]:
    """The processes of one experiment's folder; tokens and inference time are the main process's."""
    setup, variables = read(folder, "1_experiment_setup"), read(folder, "2_experiment_variables")
    metrics = read(folder, "4_inference_metrics")
    counts, speed = metrics["raw_inference_metrics"], metrics["inference_performance"]
    work = InferenceMetrics(
        total_tokens=counts["total_input_tokens"] + counts["total_generated_tokens"],
        input_tokens=counts["total_input_tokens"],
        output_tokens=counts["total_generated_tokens"],
        inference_time_sec=speed["total_inference_time_sec"],
        tokens_per_second=speed["throughput_tokens_per_sec"],
    )
    start = datetime.strptime(setup["date_time"], "%B %d, %Y at %I:%M:%S %p")  # noqa: DTZ007 - as the files have it
    processes = []
    for path in sorted(folder.glob("*_6_local_energy_results_process_*.json")):
        document = json.loads(path.read_bytes())
        energy = document["energy_results"]
        index = document["local_process_index"]
        cpu_energy_j = kwh_to_j(energy["cpu_energy"])
        processes.append(
            RawProcessResult(
                experiment_id=folder.name,
                process_index=index,
                gpu_id=None,
                gpu_name=setup["gpu_model"],
                backend=variables["backend"],
                config_name=variables["config_name"],
                model_name=setup["model"],
                timestamps=Timestamps(start=start, end=None, duration_sec=None),
                inference_metrics=work if index == 0 else None,
                energy_metrics=EnergyMetrics(
                    total_energy_j=energy["total_energy_joules"],
                    duration_sec=cpu_energy_j / CPU_MODEL_W,
                    gpu_energy_j=kwh_to_j(energy["gpu_energy"]),
                    cpu_energy_j=cpu_energy_j,
                    ram_energy_j=kwh_to_j(energy["ram_energy"]),
                    gpu_power_w=energy["gpu_power"],
                    cpu_power_w=energy["cpu_power"],
                    cpu_provenance="modelled",
                ),
                compute_metrics=None,
                effective_config=variables,
            )
        )
    return processes

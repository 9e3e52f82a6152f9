"""Small files in the formats of other tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py

from llm_energy_measure.importers.codecarbon_rows import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# CodeCarbon

CELLS = {
    "timestamp": "2026-01-24T14:31:35",
    "project_name": "llama",
    "run_id": "r1",
    "experiment_id": "e1",
    "duration": "10.0",
    "emissions": "7e-08",
    "emissions_rate": "7e-09",
    "task_name": "",
    "cpu_power": "90000.5",
    "gpu_power": "180000.5",
    "ram_power": "10.0",
    "cpu_energy": "0.25",
    "gpu_energy": "0.5",
    "ram_energy": "0.25",
    "energy_consumed": "1.0",
    "water_consumed": "0.0",
    "country_name": "Canada",
    "country_iso_code": "CAN",
    "region": "quebec",
    "cloud_provider": "aws",
    "cloud_region": "ca-1",
    "os": "Linux-5.15",
    "python_version": "3.10.12",
    "codecarbon_version": "3.2.1",
    "cpu_count": "128",
    "cpu_model": "AMD EPYC 7742",
    "gpu_count": "4",
    "gpu_model": "4 x NVIDIA A100-PCIE-40GB",
    "longitude": "-71.2",
    "latitude": "46.8",
    "ram_total_size": "503.5",
    "tracking_mode": "machine",
    "cpu_utilization_percent": "1.5",
    "gpu_utilization_percent": "98.0",
    "ram_utilization_percent": "3.0",
    "ram_used_gb": "15.0",
    "on_cloud": "N",
    "pue": "1.0",
    "wue": "0.0",
}
LATEST = LAYOUTS["3.3.0"]


def cells(layout: tuple[str, ...] = LATEST, /, **changes: str) -> list[str]:
    """Return the cells of one row of `emissions.csv`; runs with other numbers than 1 are on other days."""
    if (number := changes.get("run_id", "")[1:]).isdigit():
        changes.setdefault("timestamp", f"2026-01-{24 + (int(number) - 1) % 5}T14:31:35")
    return [{**CELLS, **changes}[name] for name in layout]


def line(layout: tuple[str, ...] = LATEST, /, **changes: str) -> str:
    """Return one row of `emissions.csv`."""
    return ",".join(cells(layout, **changes))


def write_json(path: Path, document: object) -> Path:
    """Write a JSON file with Python's json module, which writes NaN too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def zeus_lines(windows: Sequence[tuple[float, str, float, Sequence[float]]]) -> str:
    """Return a window log of Zeus; all windows have the same number of GPUs."""
    gpus = len(windows[0][3])
    header = ["start_time", "window_name", "elapsed_time", *(f"gpu{index}_energy" for index in range(gpus))]
    rows = [[repr(start), name, repr(elapsed), *map(repr, energy)] for start, name, elapsed, energy in windows]
    return "".join(",".join(row) + "\n" for row in [header, *rows])


def vllm_result(**changes: Any) -> dict[str, Any]:
    """Return a run of 100 seconds in which all requests succeeded."""
    document = {
        "date": "20260816-160853",
        "endpoint_type": "vllm",
        "backend": "vllm",
        "label": None,
        "model_id": "facebook/opt-125m",
        "tokenizer_id": "facebook/opt-125m",
        "num_prompts": 8,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": 2,
        "duration": 100.0,
        "completed": 8,
        "failed": 0,
        "total_input_tokens": 256,
        "total_output_tokens": 128,
        "request_throughput": 0.08,
        "output_throughput": 1.28,
        "total_token_throughput": 3.84,
        "mean_ttft_ms": 215.5,
        "p99_itl_ms": 29.8,
    }
    return {**document, **changes}


def codecarbon_task(**changes: Any) -> dict[str, Any]:
    """Return CodeCarbon's values of one task in optimum-benchmark: 1 kWh in 100 seconds."""
    document = {
        "timestamp": "2025-05-30T15:22:36",
        "project_name": "codecarbon",
        "run_id": "21974040-7b90",
        "duration": 100.0,
        "emissions": 0.5,
        "cpu_power": 45.0,
        "gpu_power": 300.0,
        "ram_power": 20.0,
        "cpu_energy": 0.25,
        "gpu_energy": 0.5,
        "ram_energy": 0.25,
        "energy_consumed": 1.0,
        "codecarbon_version": "3.0.1",
        "gpu_count": 1,
        "gpu_model": "1 x NVIDIA H100",
        "tracking_mode": "machine",
    }
    return {**document, **changes}


def optimum_energy(total: float) -> dict[str, Any]:
    """Return the measurements of a phase in a report of optimum-benchmark."""
    energy = {"unit": "kWh", "cpu": total / 4, "ram": total / 4, "gpu": total / 2, "total": total}
    return {"memory": None, "latency": None, "throughput": None, "energy": energy, "efficiency": None}


OPTIMUM_CONFIG: dict[str, Any] = {
    "name": "text_generation",
    "backend": {"name": "pytorch", "version": "2.7.0", "model": "meta-llama/Llama-3.1-8B", "device_ids": "0"},
    "scenario": {"name": "energy_star"},
    "launcher": {"name": "torchrun", "nproc_per_node": 2},
    "environment": {"gpu": ["NVIDIA H100"], "gpu_count": 1, "transformers_version": "4.52.3", "timm_version": None},
}


def ml_energy_run(**changes: Any) -> dict[str, Any]:
    """Return a run on two GPUs with a steady state, and with the prompts and answers that the tool stores."""
    request = {"prompt": "SECRET", "output_text": "SECRET", "input_len": 10, "output_len": 3, "ttft": 0.25}
    document = {
        "date": "2026-01-16",
        "model_id": "Qwen/Qwen3-8B",
        "gpu_model": "H100",
        "num_gpus": 2,
        "num_prompts": 2,
        "duration": 60.0,
        "completed": 2,
        "total_input_tokens": 20,
        "total_output_tokens": 6,
        "total_token_throughput": 0.43,
        "mean_ttft_ms": 250.0,
        "steady_state_duration": 40.0,
        "steady_state_energy": 300.0,
        "steady_state_energy_per_token": 75.0,
        "steady_state_measurement": {
            "time": 40.0,
            "gpu_energy": {"0": 100.0, "1": 200.0},
            "cpu_energy": None,
            "dram_energy": None,
        },
        "entire_benchmark_measurement": {
            "time": 60.0,
            "gpu_energy": {"0": 150.0, "1": 300.0},
            "cpu_energy": {"0": 50.0},
            "dram_energy": None,
        },
        "timeline": {
            "benchmark_start_time": 1768592398.5,
            "benchmark_end_time": 1768592458.5,
            "steady_state_start_time": 1768592408.5,
            "steady_state_end_time": 1768592448.5,
            "power": {"device_instant": {"0": [[1768592398.5, 70.0]]}},
        },
        "results": [
            {**request, "itl": [0.01, 0.02, 0.03], "success": True},
            {**request, "ttft": 0.0, "itl": [], "success": False},
        ],
    }
    return {**document, **changes}


# perun's tree as JSON and as HDF5

PERUN_UNITS = {"mag": 1.0, "dtype": "float32", "min": 0.0, "max": 3.4e38, "fill": -1.0}


def perun_sensor(name: str, kind: str, unit: str, values: Sequence[float], **details: Any) -> dict[str, Any]:
    """Return a sensor with one sample per second."""
    return {
        "id": name,
        "type": 6,
        "metadata": {"source": "rapl"},
        "metrics": {},
        "deviceType": kind,
        "nodes": [{}],
        "raw_data": {
            "timesteps": [float(second) for second in range(len(values))],
            "values": list(values),
            "t_md": {"unit": "s", **PERUN_UNITS},
            "v_md": {**PERUN_UNITS, "unit": unit, **details},
        },
    }


def perun_tree(nodes: dict[str, list[dict[str, Any]]], *, runs: int = 1, wrapped: bool = True) -> dict[str, Any]:
    """Return an application with runs on these nodes; `nodes` is a list if `wrapped`, otherwise an object."""

    def inner(children: dict[str, Any]) -> object:
        return [children] if wrapped else children

    def level(name: str, number: int, children: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"id": name, "type": number, "metadata": {}, "metrics": {}, "nodes": inner(children), **more}

    def node(name: str, sensors: list[dict[str, Any]]) -> dict[str, Any]:
        groups: dict[str, dict[str, Any]] = {}
        for sensor in sensors:
            groups.setdefault(sensor["deviceType"], {})[sensor["id"]] = sensor
        runtime = {"type": "runtime", "value": 4.0, "metric_md": {"unit": "s", **PERUN_UNITS}}
        children = {kind: level(kind, 5, found, deviceType=kind) for kind, found in groups.items()}
        return level(name, 4, children, metrics={"runtime": runtime})

    of_runs = {
        str(run): level(str(run), 3, {name: node(name, sensors) for name, sensors in nodes.items()})
        for run in range(runs)
    }
    stamp = "2026-11-23T08:47:39.352521"
    facts = {"execution_dt": stamp, "perun_version": "1.0.0", "post-processing.pue": "1.0"}
    return level("app", 1, {stamp: level(stamp, 2, of_runs, metadata=facts)})


def write_perun_hdf5(path: Path, tree: dict[str, Any]) -> Path:
    """Write a tree as HDF5."""
    with h5py.File(path, "w") as file:
        _write_group(file, tree["id"], tree)
    return path


def _write_group(parent: Any, name: str, tree: dict[str, Any]) -> None:
    group = parent.create_group(name)
    group.attrs.update({**tree["metadata"], "type": tree["type"]})
    if tree.get("deviceType"):
        group.attrs["device_type"] = tree["deviceType"]
    metrics = group.create_group("metrics")
    for metric, found in tree["metrics"].items():
        metrics.create_group(metric.upper()).attrs.update({**found["metric_md"], "value": found["value"]})
    raw = tree.get("raw_data")
    if raw:
        samples = group.create_group("raw_data")
        for key, details in (("timesteps", "t_md"), ("values", "v_md")):
            data = samples.create_dataset(key, data=raw[key], dtype="float64")
            data.attrs.update({("valid_max" if k == "max" else k): value for k, value in raw[details].items()})
    nodes = group.create_group("nodes")
    mappings = tree["nodes"] if isinstance(tree["nodes"], list) else [tree["nodes"]]
    for mapping in mappings:
        for key, child in mapping.items():
            _write_group(nodes, key, child)


# Results of this tool before 2.0.0

KWH = 3.6e6


def energies(process: int) -> dict[str, Any]:
    """Return the energy of a process."""
    kwh = {"cpu_energy": 0.001 + 0.0001 * process, "gpu_energy": 0.005, "ram_energy": 4e-6}
    total = sum(kwh.values())
    return {
        "cpu_power": 112.5,
        "gpu_power": 62.0,
        "ram_power": 0.7,
        **kwh,
        "total_energy_kwh": total,
        "total_energy_joules": total * KWH,
        "final_emissions": 0.002,
    }


def write_experiment(folder: Path, processes: int = 2, name: str = "0042") -> Path:
    """Write the folder of a small experiment."""
    folder.mkdir(parents=True)
    files: dict[str, Any] = {
        "1_experiment_setup": {
            "experiment_id": name,
            "date_time": "April 11, 2025 at 01:24:25 PM",
            "model": "org/model",
            "gpu_model": "4 x NVIDIA A100-PCIE-40GB",
        },
        "2_experiment_variables": {
            "config_name": "batch_8",
            "number_input_prompts": 16,
            "fp_precision": "torch.float32",
            "accelerate_config": {"num_processes": processes},
            "backend": "pytorch",
        },
        "3_model_architecture": {"total_params": 1100048384, "architecture": "Unknown"},
        "4_inference_metrics": {
            "raw_inference_metrics": {"total_input_tokens": 128, "total_generated_tokens": 64},
            "inference_performance": {"total_inference_time_sec": 23.5, "throughput_tokens_per_sec": 2.7},
        },
        "5_compute_metrics": {
            "flops": 10**12,
            "memory": {"gpu_max_memory_allocated_bytes": 2**30},
            "compute_utilisation": {},
        },
        **{
            f"6_local_energy_results_process_{index}": {
                "process_id": 66929 + index,
                "local_process_index": index,
                "energy_results": energies(index),
            }
            for index in range(processes)
        },
        "7_global_energy_results": {
            "local_process_results": {},
            "global_experiment_results": {
                "total_energy_joules": sum(energies(index)["total_energy_joules"] for index in range(processes))
            },
        },
    }
    for kind, document in files.items():
        (folder / f"{name}_{kind}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder

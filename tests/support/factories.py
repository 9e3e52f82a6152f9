"""The builders of records for all tests. Each figure differs between processes, so no rule passes by chance."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregationMetadata,
    ClockEvidence,
    CompletenessReport,
    ImportOrigin,
    Launcher,
    RawProcessResult,
    SourceFile,
    UnreadableFile,
)
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.latency import LatencyMeasurements, LatencyStatistics
from llm_energy_measure.domain.metrics import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Phase,
    SensorReading,
    Timestamps,
)
from llm_energy_measure.results import FileSystemRepository

START = datetime(2026, 1, 16, 19, 39, 58, 225937, tzinfo=UTC)
EXPERIMENT = "exp_7"


def timestamps(start: datetime = START, seconds: float = 40.5, **changes: Any) -> Timestamps:
    """Return start, end and duration of a run of this length."""
    fields = {"start": start, "end": start + timedelta(seconds=seconds), "duration_sec": seconds}
    return Timestamps(**{**fields, **changes})


def inference(process_index: int = 0, **changes: Any) -> InferenceMetrics:
    """Return the inference metrics of a process: 8192 + 100 i tokens at 862.5 + 10 i tokens/s."""
    fields: dict[str, Any] = {
        "total_tokens": 8192 + 100 * process_index,
        "input_tokens": 4096,
        "output_tokens": 4096 + 100 * process_index,
        "inference_time_sec": 9.5 + process_index,
        "tokens_per_second": 862.5 + 10 * process_index,
        "latency_per_token_ms": 1.16,
    }
    return InferenceMetrics(**{**fields, **changes})


def energy(process_index: int = 0, **changes: Any) -> EnergyMetrics:
    """Return the energy of a process: 1971.5 + 250 i joules."""
    fields: dict[str, Any] = {
        "total_energy_j": 1971.5 + 250 * process_index,
        "duration_sec": 9.5 + process_index,
        "gpu_energy_j": 1062.5 + 250 * process_index,
        "cpu_energy_j": 901.25,
        "ram_energy_j": 7.75,
        "gpu_power_w": 117.5,
        "cpu_power_w": 114.5,
        "emissions_kg_co2": 1.3e-6,
        "energy_per_token_j": 0.24,
    }
    return EnergyMetrics(**{**fields, **changes})


def compute(process_index: int = 0, **changes: Any) -> ComputeMetrics:
    """Return the compute metrics of a process: 2e13 + 1e12 i FLOPs."""
    fields: dict[str, Any] = {
        "flops_total": 2e13 + 1e12 * process_index,
        "flops_per_token": 2471628800.0,
        "flops_per_second": 2.1e12,
        "peak_memory_mb": 2900.0,
        "model_memory_mb": 2358.0,
        "flops_method": "parameter_estimate",
        "flops_confidence": "low",
        "compute_precision": "float16",
    }
    return ComputeMetrics(**{**fields, **changes})


def raw(experiment_id: str = EXPERIMENT, process_index: int = 0, **changes: Any) -> RawProcessResult:
    """Return a record with the fields that files in the field have. Each process has its own GPU."""
    rank = process_index if type(process_index) is int and 0 <= process_index < 1000 else 0
    fields: dict[str, Any] = {
        "experiment_id": experiment_id,
        "backend": "pytorch",
        "backend_version": "transformers=4.57.6",
        "process_index": process_index,
        "gpu_id": process_index,
        "gpu_name": "NVIDIA A100-PCIE-40GB",
        "gpu_is_mig": False,
        "config_name": "baseline",
        "model_name": "meta-llama/Llama-3.2-1B",
        "timestamps": timestamps(START + timedelta(seconds=rank)),
        "inference_metrics": inference(rank),
        "energy_metrics": energy(rank),
        "compute_metrics": compute(rank),
        "effective_config": {"batch_size": 8, "decoder": {"temperature": 1.0, "top_k": None}, "tags": ["a", "b"]},
        "cli_overrides": {},
        "config_warnings": [],
    }
    return RawProcessResult(**{**fields, **changes})


def raws(count: int, experiment_id: str = EXPERIMENT, **changes: Any) -> list[RawProcessResult]:
    """Return the records of the first `count` processes."""
    return [raw(experiment_id, index, **changes) for index in range(count)]


def latency(ttft_ms: list[float], itl_trimmed_ms: list[float], itl_full_ms: list[float]) -> LatencyMeasurements:
    """Return latency samples. Each time to the first token is one request."""
    return LatencyMeasurements(
        ttft_ms=ttft_ms,
        itl_full_ms=itl_full_ms,
        itl_trimmed_ms=itl_trimmed_ms,
        request_count=len(ttft_ms),
        total_output_tokens=len(itl_full_ms) + len(ttft_ms),
        excluded_tokens=len(itl_full_ms) - len(itl_trimmed_ms),
        streaming_mode=True,
        warmup_requests_excluded=1,
    )


def full_raw(experiment_id: str = EXPERIMENT, process_index: int = 0, **changes: Any) -> RawProcessResult:
    """Return a record in which every field has a value, including fields that files in the field lack."""
    device = DeviceEnergy(
        gpu_id=process_index,
        gpu_uuid=f"GPU-{process_index:08d}",
        gpu_name="NVIDIA A100-PCIE-40GB",
        gpu_power_limit_w=250.0,
        mig_profile="1g.5gb",
        energy_j=531.25,
        provenance="measured",
    )
    scoped = energy(
        process_index,
        window=timestamps(START + timedelta(seconds=1), 9.5),
        total_scope="host",
        total_provenance="integrated",
        gpu_scope="device",
        gpu_provenance="measured",
        cpu_scope="host",
        cpu_provenance="modelled",
        ram_scope="process",
        ram_provenance="modelled",
        devices=[device, msgspec.structs.replace(device, gpu_id=process_index + 1, energy_j=None)],
        idle_power_w=55.5,
        idle_power_end_w=56.5,
        sensors=[
            SensorReading(
                source="rapl",
                instance="package-0",
                component="cpu",
                scope="host",
                provenance="measured",
                energy_j=20.5,
                counter_start_j=262140.0,
                counter_end_j=17.25,
                counter_range_j=262143.25,
                wraps=1,
                samples=95,
                sampling_rate_hz=10.0,
                problems=["sampling_gap"],
            )
        ],
    )
    fields: dict[str, Any] = {
        "gpu_is_mig": True,
        "gpu_mig_profile": "1g.5gb",
        "energy_measurement_warning": "sampled every 100 ms",
        "inference_metrics": inference(
            process_index,
            time_to_first_token_ms=35.5,
            latency_measurements=latency([35.5, 36.5], [1.0, 1.5], [0.5, 1.0, 1.5, 9.0]),
        ),
        "energy_metrics": scoped,
        "cli_overrides": {"batch_size": 8},
        "config_warnings": ["do_sample is off"],
        "world_size": 4,
        "host": "node-1",
        "gpu_uuid": f"GPU-{process_index:08d}",
        "gpu_power_limit_w": 250.0,
        "clock": ClockEvidence(
            boot_id="boot-1",
            wall_start_sec=1768592398.225937,
            monotonic_start_sec=12.25,
            wall_end_sec=1768592438.725937,
            monotonic_end_sec=52.75,
            store_id="2a0c5e-18f3c1d2a0b4c8d0",
            store_start_sec=1768592398.125937,
            store_end_sec=1768592438.625937,
            store_error_sec=0.0055,
        ),
        "launcher": Launcher(name="slurm", job_id="123", step_id="0", node="n1", local_rank=0, attempt=1),
        "origin": ImportOrigin(
            tool="codecarbon", version="3.3.0", file="emissions.csv", sha256="0" * 64, row=7, experiment_id="exp_1"
        ),
        "recording_environment": Environment(
            recorder_version="0.1.0",
            python_version="3.12.1",
            system="Linux 6.1.0 x86_64",
            cpu_model="AMD EPYC 9654",
            cpu_count=96,
            cpu_governor="performance",
            container="docker",
            gpu_driver="550.54",
            cuda_version="12.4",
            engine="vllm",
            engine_config={"tensor-parallel-size": "4"},
        ),
        "status": "failed",
        "error_type": "OutOfMemoryError",
        "library_versions": {"torch": "2.9.0", "transformers": "4.57.6"},
        "phases": [
            Phase(
                name="prefill",
                duration_sec=1.5,
                occurrences=3,
                total_energy_j=100.5,
                gpu_energy_j=90.25,
                cpu_energy_j=10.0,
                ram_energy_j=0.25,
                input_tokens=128,
                output_tokens=3,
            )
        ],
    }
    return raw(experiment_id, process_index, **{**fields, **changes})


def aggregated(experiment_id: str = EXPERIMENT, **changes: Any) -> AggregatedResult:
    """Return an aggregate of another tool: without sources and completeness."""
    processes = changes.pop("process_results", None) or raws(2, experiment_id)
    fields: dict[str, Any] = {
        "experiment_id": experiment_id,
        "backend": "pytorch",
        "backend_version": "transformers=4.57.6",
        "aggregation": AggregationMetadata(method="sum_energy_avg_throughput", num_processes=len(processes)),
        "total_tokens": 16484,
        "total_energy_j": 4193.0,
        "total_inference_time_sec": 20.0,
        "avg_tokens_per_second": 867.5,
        "avg_energy_per_token_j": 0.25,
        "total_flops": 4.1e13,
        "process_results": processes,
        "start_time": START,
        "end_time": START + timedelta(seconds=41.5),
    }
    return AggregatedResult(**{**fields, **changes})


def full_aggregated(experiment_id: str = EXPERIMENT, **changes: Any) -> AggregatedResult:
    """Return an aggregate in which every field has a value."""
    source = SourceFile(name="process_0.json", size_bytes=12, sha256="a" * 64)
    torn = UnreadableFile(name="process_1.json", reason="it is empty", size_bytes=0, sha256="b" * 64)
    report = CompletenessReport(
        expected_processes=3,
        expected_from="manifest",
        found_processes=1,
        missing=[1, 2],
        unexpected=[5],
        unreadable=[torn],
    )
    fields: dict[str, Any] = {
        "model_name": "meta-llama/Llama-3.2-1B",
        "process_results": [full_raw(experiment_id)],
        "effective_config": {"batch_size": 8},
        "cli_overrides": {"batch_size": 8},
        "config_warnings": ["do_sample is off"],
        "latency_stats": LatencyStatistics(ttft_mean_ms=36.0, ttft_samples=2, itl_full_p99_ms=8.5),
        "is_lower_bound": True,
        "completeness": report,
        "sources": [source],
        "plain_energy_j": 4193.0,
        "partial_energy_j": 4193.0,
        "attributed_energy_j": 2096.5,
        "attributed_bounds_j": (1971.5, 2221.5),
        "attribution_factor": 2.0,
        "attribution_rule": "explanations@1",
        "attribution_status": "estimated",
        "attribution_basis": ["tool_scope"],
        "attributed_gpu_energy_j": 1187.5,
        "attributed_cpu_energy_j": 901.25,
        "attributed_ram_energy_j": 7.75,
        "assumptions": Assumptions(gpu_scope="host", hosts=2, boards=4, board="NVIDIA A100-PCIE-40GB"),
        "findings": [full_finding()],
    }
    return aggregated(experiment_id, **{**fields, **changes})


def full_finding(**changes: Any) -> Finding:
    """Return a finding in which every field has a value."""
    fields: dict[str, Any] = {
        "code": "energy.over_counted",
        "outcome": "failed",
        "reason": "no reason",
        "message": "2 processes imply 550 W together",
        "expected": 250.0,
        "found": "much more",
        "effect_j": 2096.5,
        "processes": [0, 1],
    }
    return Finding(**{**fields, **changes})


def document(record: RawProcessResult | AggregatedResult) -> dict[str, Any]:
    """Return a record as a decoded JSON object that a test can change."""
    built: dict[str, Any] = json.loads(msgspec.json.encode(record))
    return built


def changed(original: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a decoded object with another value at a dotted path."""
    changed_copy = copy.deepcopy(original)
    *parents, last = path.split(".")
    place: Any = changed_copy
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    return changed_copy


def as_bytes(built: object) -> bytes:
    """Return a decoded object as JSON bytes in a layout that our own encoder does not use."""
    return json.dumps(built, indent=1).encode()


def save_repeats(repository: FileSystemRepository) -> list[str]:
    """Save three repeats of two processes each, and return their ids."""
    names = [f"llama_c{cycle}" for cycle in range(3)]
    for cycle, name in enumerate(names):
        for process in range(2):
            joules = energy(process, total_energy_j=2000.0 + 250 * process + 10 * cycle)
            repository.save_raw(name, raw(name, process, energy_metrics=joules))
    return names

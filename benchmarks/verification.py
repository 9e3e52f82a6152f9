"""Measure the verification of aggregated experiments against their aggregation.

Usage: python benchmarks/verification.py [EXPERIMENTS] [FOLDER]

EXPERIMENTS is 10,000 by default, with 8 processes each. FOLDER selects the disk (default: a temporary folder in the
current one). Each experiment is aggregated and verified from its files, once with full evidence, and once with records
that have no scope, no host and no energy window. With full evidence, every tenth experiment counts its host 8 times.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from llm_energy_measure.domain.experiment import ClockEvidence, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Scope, Timestamps
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.verify import verify_all
from llm_energy_measure.results.store import codec

EXPERIMENTS = 10_000
PROCESSES = 8
LIMIT_RATIOS = {"full": 1.5, "none": 3.0}
START = datetime(2026, 1, 16, tzinfo=UTC)
HOST_W = 1800.0
CONFIG = {"batch_size": 8, "fp_precision": "float16", "decoder": {"temperature": 1.0, "top_k": 50, "top_p": 1.0}}


def record(name: str, index: int, watts: float, *, evidence: str) -> RawProcessResult:
    """Return a result with the size of real results, with full or no evidence of what its sensors cover."""
    is_full = evidence == "full"
    gpu_scope: Scope | None = ("device" if watts < HOST_W else "host") if is_full else None
    span = Timestamps(start=START, end=START + timedelta(seconds=40), duration_sec=40.0)
    return RawProcessResult(
        experiment_id=name,
        backend="pytorch",
        process_index=index,
        world_size=PROCESSES,
        host="node-1" if is_full else None,
        gpu_uuid=f"GPU-{index}" if is_full else None,
        gpu_power_limit_w=250.0 if is_full else None,
        clock=ClockEvidence(boot_id="boot-1") if is_full else None,
        gpu_id=index,
        gpu_name="NVIDIA A100-PCIE-40GB",
        config_name="baseline",
        model_name="meta-llama/Llama-3.2-1B",
        timestamps=span,
        inference_metrics=InferenceMetrics(
            total_tokens=8192,
            input_tokens=4096,
            output_tokens=4096,
            inference_time_sec=40.0,
            tokens_per_second=204.8,
        ),
        energy_metrics=EnergyMetrics(
            total_energy_j=(watts + 100.0 + index) * 40.0,
            duration_sec=40.0,
            gpu_energy_j=watts * 40.0,
            cpu_energy_j=(100.0 + index) * 40.0,
            gpu_power_w=watts,
            window=span if is_full else None,
            gpu_scope=gpu_scope,
            cpu_scope="host" if is_full else None,
        ),
        compute_metrics=ComputeMetrics(flops_total=2e13, peak_memory_mb=2900.0),
        effective_config=CONFIG,
    )


def write_raw(repository: FileSystemRepository, experiments: int, evidence: str) -> None:
    """Write the raw files without syncing. This time is not measured."""
    for number in range(experiments):
        name = f"exp_{number:05d}"
        folder = repository.base_path / "raw" / name
        folder.mkdir(parents=True)
        watts = HOST_W if number % 10 == 0 else 200.0
        for index in range(PROCESSES):
            raw = record(name, index, watts + index, evidence=evidence)
            (folder / f"process_{index}.json").write_bytes(codec.encode_raw(raw))


def main() -> None:
    """Measure and print."""
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else EXPERIMENTS
    base = Path(sys.argv[2]) if len(sys.argv) > 2 else Path.cwd()
    for evidence in LIMIT_RATIOS:
        measure(experiments, base, evidence)


def measure(experiments: int, base: Path, evidence: str) -> None:
    """Measure experiments with full or no evidence, and print the times."""
    folder = Path(tempfile.mkdtemp(prefix=".verification-", dir=base))
    try:
        repository = FileSystemRepository(folder)
        write_raw(repository, experiments, evidence)
        names = repository.list_experiments()
        start = time.perf_counter()
        aggregated = sum(outcome.result == "aggregated" for outcome in aggregate_all(repository, names))
        aggregating = time.perf_counter() - start
        start = time.perf_counter()
        verdicts = list(verify_all(repository, names))
        verifying = time.perf_counter() - start
    finally:
        shutil.rmtree(folder)
    determined = sum(verdict.attributed_energy_j is not None for verdict in verdicts)
    print(
        f"{aggregated} experiments of {PROCESSES} processes, evidence {evidence}, {determined} with attributed energy"
    )
    print(f"{aggregating:8.2f} s aggregating, {aggregating / experiments * 1e3:.3f} ms each")
    print(f"{verifying:8.2f} s verifying,   {verifying / experiments * 1e3:.3f} ms each")
    print(f"{verifying / aggregating:8.2f} x aggregating; the promise: at most {LIMIT_RATIOS[evidence]}")


if __name__ == "__main__":
    main()

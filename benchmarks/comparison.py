"""Measure `results compare` and `results repeats` as whole processes, with an up-to-date catalogue.

Usage: python benchmarks/comparison.py [EXPERIMENTS] [RUNS]    (default 20000 experiments, 5 runs)

Half of the experiments is the base, the other half the candidate. Each configuration has ten repeats per side.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _installed import compile_package

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.codec import encode_raw

REPEATS = 10
LIMIT_SEC = 2.0
_START = datetime(2026, 1, 5, tzinfo=UTC)


def record(name: str, number: int, configuration: int, precision: str, joules: float) -> RawProcessResult:
    """Return the record of the only process of an experiment. Runs of both sides take turns."""
    start = _START + timedelta(minutes=number)
    return RawProcessResult(
        experiment_id=name,
        backend="pytorch",
        process_index=0,
        world_size=1,
        gpu_id=0,
        gpu_name="NVIDIA A100-PCIE-40GB",
        config_name="sweep",
        model_name="meta-llama/Llama-3.2-1B",
        timestamps=Timestamps(start=start, end=start + timedelta(seconds=30), duration_sec=30.0),
        inference_metrics=InferenceMetrics(
            total_tokens=8192, input_tokens=4096, output_tokens=4096, inference_time_sec=30.0, tokens_per_second=273.0
        ),
        energy_metrics=EnergyMetrics(total_energy_j=joules, gpu_energy_j=joules, duration_sec=30.0, gpu_scope="device"),
        compute_metrics=None,
        effective_config={
            "precision": precision,
            "batching": {"batch_size": configuration % 40 + 1, "strategy": "static"},
            "decoder": {"temperature": configuration // 40 / 100, "top_k": None, "max_new_tokens": 128},
            "num_processes": 1,
            "streaming": True,
        },
        host="node-0",
    )


def make_results(folder: Path, experiments: int) -> None:
    """Write and aggregate the experiments."""
    generator = random.Random(1)
    configurations = experiments // (2 * REPEATS)
    number = 0
    for configuration in range(configurations):
        for repeat in range(REPEATS):
            for precision, factor in (("fp16", 1.0), ("int8", 1.02)):
                name = f"{precision}_{configuration:05d}_c{repeat}"
                joules = 3000 * factor * generator.lognormvariate(0, 0.02)
                (folder / "raw" / name).mkdir(parents=True)
                data = encode_raw(record(name, number, configuration, precision, joules))
                (folder / "raw" / name / "process_0.json").write_bytes(data)
                number += 1
    if any(outcome.error for outcome in aggregate_all(FileSystemRepository(folder))):
        raise SystemExit("comparison: an experiment could not be aggregated")


def main() -> None:
    """Measure and print."""
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    compile_package()
    folder = Path(tempfile.mkdtemp(dir="."))
    tool = [sys.executable, "-m", "llm_energy_measure", "-o", str(folder), "results"]
    commands = {
        "results compare, 1 of 2 sides as base": [*tool, "compare", "--by", "config.precision", "--base", "fp16"],
        "results repeats": [*tool, "repeats"],
        "results list --limit 1": [*tool, "list", "--limit", "1"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    try:
        make_results(folder, experiments)
        for turn in range(runs + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                if turn:  # the first run fills the catalogue
                    times[name].append(time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)
    print(f"whole processes, {experiments:,} experiments, {runs} runs each in turn, Python {sys.version.split()[0]}")
    for name, values in times.items():
        print(f"{statistics.median(values):7.2f} s median  {min(values):7.2f} least   {name}")
    print(f"the promise: compare and repeats of 20,000 experiments within {LIMIT_SEC:.0f} s")


if __name__ == "__main__":
    main()

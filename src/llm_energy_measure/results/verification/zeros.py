"""Zeros that mean unknown: figures of 0 beside others that they can't stand beside."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from llm_energy_measure.results.completeness import listed
from llm_energy_measure.results.verification.codes import failed, passed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.results.verification.evidence import Evidence


def check_zeros(evidence: Evidence) -> Iterator[Finding]:
    """Whether a figure is 0 that can't be: it was not measured, and a reader has to take it as unknown."""
    computed = [record.compute_metrics for record in evidence.records if record.compute_metrics is not None]
    parts: dict[str, Sequence[object]] = {"energy_metrics": evidence.energies, "compute_metrics": computed}
    for code, (part, name, beside, is_zero) in _ZEROS.items():
        # Only beside a 0 the rest of a record matters.
        has_zero = 0.0 in map(attrgetter(name), parts[part])
        processes = [record.process_index for record in evidence.records if is_zero(record)] if has_zero else []
        if processes:
            message = f"{part}.{name} of process {listed(processes)} is 0 beside {beside}: it is unknown"
            yield failed(code, message, found=0.0, processes=processes)
        else:
            yield passed(code)


def _duration(record: RawProcessResult) -> bool:
    return record.energy_metrics.duration_sec == 0 and bool(record.energy_metrics.total_energy_j)


def _energy(record: RawProcessResult) -> bool:
    work = record.inference_metrics
    return record.energy_metrics.total_energy_j == 0 and work is not None and work.total_tokens > 0


def _per_token(record: RawProcessResult) -> bool:
    energy, work = record.energy_metrics, record.inference_metrics
    return energy.energy_per_token_j == 0 and bool(energy.total_energy_j) and work is not None and work.total_tokens > 0


def _memory(record: RawProcessResult) -> bool:
    metrics, work = record.compute_metrics, record.inference_metrics
    if metrics is None or work is None or not work.total_tokens:
        return False
    return metrics.peak_memory_mb == 0


def _cpu_power(record: RawProcessResult) -> bool:
    return record.energy_metrics.cpu_power_w == 0 and bool(record.energy_metrics.cpu_energy_j)


def _cpu_energy(record: RawProcessResult) -> bool:
    return record.energy_metrics.cpu_energy_j == 0 and bool(record.energy_metrics.cpu_power_w)


_ZEROS: dict[str, tuple[str, str, str, Callable[[RawProcessResult], bool]]] = {
    "zero.duration": ("energy_metrics", "duration_sec", "energy that was measured", _duration),
    "zero.energy": ("energy_metrics", "total_energy_j", "tokens that were processed", _energy),
    "zero.energy_per_token": ("energy_metrics", "energy_per_token_j", "energy and tokens", _per_token),
    "zero.peak_memory": ("compute_metrics", "peak_memory_mb", "tokens that a model in memory processed", _memory),
    "zero.cpu_power": ("energy_metrics", "cpu_power_w", "CPU energy", _cpu_power),
    "zero.cpu_energy": ("energy_metrics", "cpu_energy_j", "CPU power", _cpu_energy),
}

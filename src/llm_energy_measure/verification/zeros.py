"""Zeros that mean unknown: figures of 0 beside others that they can't stand beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.verification.codes import failed, listed, passed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.verification.processes import Evidence


def check_zeros(evidence: Evidence) -> list[Finding]:
    """Whether a figure is 0 that can't be: it was not measured, and a reader has to take it as unknown."""
    computed = [record.compute_metrics for record in evidence.records]
    figures = [metrics.peak_memory_mb for metrics in computed if metrics is not None]
    for energy in evidence.energies:
        figures += (energy.duration_sec, energy.total_energy_j, energy.energy_per_token_j)
        figures += (energy.cpu_power_w, energy.cpu_energy_j)
    # Only beside a 0 the rest of a record matters.
    return [_zero(code, evidence.records) for code in _ZEROS] if 0.0 in figures else _NO_ZERO


def _zero(code: str, records: Sequence[RawProcessResult]) -> Finding:
    name, beside, is_zero = _ZEROS[code]
    processes = [record.process_index for record in records if is_zero(record)]
    if not processes:
        return passed(code)
    message = f"{name} of process {listed(processes)} is 0 beside {beside}: it is unknown"
    return failed(code, message, found=0.0, processes=processes)


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


_ZEROS: dict[str, tuple[str, str, Callable[[RawProcessResult], bool]]] = {
    "zero.duration": ("energy_metrics.duration_sec", "energy that was measured", _duration),
    "zero.energy": ("energy_metrics.total_energy_j", "tokens that were processed", _energy),
    "zero.energy_per_token": ("energy_metrics.energy_per_token_j", "energy and tokens", _per_token),
    "zero.peak_memory": ("compute_metrics.peak_memory_mb", "tokens that a model in memory processed", _memory),
    "zero.cpu_power": ("energy_metrics.cpu_power_w", "CPU energy", _cpu_power),
    "zero.cpu_energy": ("energy_metrics.cpu_energy_j", "CPU power", _cpu_energy),
}
_NO_ZERO = [passed(code) for code in _ZEROS]

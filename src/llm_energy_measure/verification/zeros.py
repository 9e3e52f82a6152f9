"""Checks of zeros: a figure of 0 that contradicts other figures of its record was not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import failed, listed, passed
from llm_energy_measure.verification.processes import Evidence


def check_zeros(evidence: Evidence) -> list[Finding]:
    """Check for figures of 0 that contradict the rest of their record; a reader must treat them as unknown."""
    computed = [record.compute_metrics for record in evidence.records]
    figures = [metrics.peak_memory_mb for metrics in computed if metrics is not None]
    for energy in evidence.energies:
        figures += (energy.duration_sec, energy.total_energy_j, energy.energy_per_token_j)
        figures += (energy.cpu_power_w, energy.cpu_energy_j)
    # Fast path: most experiments have no zero.
    return [_zero(code, evidence.records) for code in _ZEROS] if 0.0 in figures else _NO_ZERO


def _zero(code: str, records: Sequence[RawProcessResult]) -> Finding:
    name, contradiction, is_zero = _ZEROS[code]
    processes = [record.process_index for record in records if is_zero(record)]
    if not processes:
        return passed(code)
    message = f"{name} of process {listed(processes)} is 0, but {contradiction}; the value is unknown, not 0"
    return failed(code, message, found=0.0, processes=processes)


def _duration(record: RawProcessResult) -> bool:
    return record.energy_metrics.duration_sec == 0 and bool(record.energy_metrics.total_energy_j)


def _energy(record: RawProcessResult) -> bool:
    return record.energy_metrics.total_energy_j == 0 and _has_tokens(record)


def _per_token(record: RawProcessResult) -> bool:
    energy = record.energy_metrics
    return energy.energy_per_token_j == 0 and bool(energy.total_energy_j) and _has_tokens(record)


def _memory(record: RawProcessResult) -> bool:
    metrics = record.compute_metrics
    return metrics is not None and metrics.peak_memory_mb == 0 and _has_tokens(record)


def _cpu_power(record: RawProcessResult) -> bool:
    return record.energy_metrics.cpu_power_w == 0 and bool(record.energy_metrics.cpu_energy_j)


def _cpu_energy(record: RawProcessResult) -> bool:
    return record.energy_metrics.cpu_energy_j == 0 and bool(record.energy_metrics.cpu_power_w)


def _has_tokens(record: RawProcessResult) -> bool:
    inference = record.inference_metrics
    return inference is not None and inference.total_tokens > 0


# For each code: the field, the value that contradicts 0, and the function that tests a record.
_ZEROS: dict[str, tuple[str, str, Callable[[RawProcessResult], bool]]] = {
    "zero.duration": ("energy_metrics.duration_sec", "there is energy", _duration),
    "zero.energy": ("energy_metrics.total_energy_j", "there are tokens", _energy),
    "zero.energy_per_token": ("energy_metrics.energy_per_token_j", "there are energy and tokens", _per_token),
    "zero.peak_memory": ("compute_metrics.peak_memory_mb", "there are tokens", _memory),
    "zero.cpu_power": ("energy_metrics.cpu_power_w", "there is CPU energy", _cpu_power),
    "zero.cpu_energy": ("energy_metrics.cpu_energy_j", "there is CPU power", _cpu_energy),
}
_NO_ZERO = [passed(code) for code in _ZEROS]

"""Suspicions: what a reading counted several times looks like, and what honest readings can look like too.

None of them fails. Equal GPUs on equal work agree to a fraction of a percent, and more GPUs may have had more to do.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_energy_measure.domain.statistics import mean
from llm_energy_measure.verification.codes import SUSPICION, joules, not_checked, passed, seconds
from llm_energy_measure.verification.consistency import OF_AN_IMPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_energy_measure.domain.experiment import AggregatedResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.verification.processes import Evidence

IDENTICAL = 0.01
"""Spread of readings, as a fraction of their mean, below which they look like one."""

SAME_TIME = 0.1
"""Fraction by which the times of experiments of one sweep may differ."""

GROWTH = 0.25
"""Fraction by which growth may differ from the number of processes, from the smallest experiment on."""

# What tells the experiments of a sweep over the number of processes apart, and nothing else.
_SWEPT = frozenset({"num_processes", "world_size", "config_name", "gpu_list", "cycle_id", "experiment_id"})


def check_identical_readings(evidence: Evidence) -> Iterator[Finding]:
    """Whether processes of one host, of which nobody knows what their sensors saw, read as good as the same."""
    code = "suspicion.identical_readings"
    if all(process.gpu_scope for process in evidence.processes):
        yield passed(code)
        return
    for host, processes in evidence.hosts.items():
        unscoped = [
            (process.energy.gpu_energy_j, process.record.process_index)
            for process in processes
            if process.energy.gpu_energy_j and process.gpu_scope is None
        ]
        energies = [energy_j for energy_j, _ in unscoped]
        centre = mean(energies)
        if len(energies) < 2 or not centre:
            continue
        spread = (max(energies) - min(energies)) / centre
        if spread <= IDENTICAL:
            on = f" on host {host}" if host is not None else ""
            message = (
                f"{len(energies)} processes{on} read {joules(min(energies))} to {joules(max(energies))} of GPU energy, "
                f"{spread:.2%} apart: equal GPUs on equal work, or one reading taken {len(energies)} times"
            )
            indices = (index for _, index in unscoped)
            yield not_checked(code, SUSPICION, message, expected=IDENTICAL, found=spread, processes=indices)
            return
    yield passed(code)


class _Step(Struct, frozen=True):
    """One experiment of a sweep."""

    experiment_id: str
    processes: int
    energy_j: float
    time_sec: float


def sweep_suspicions(results: Iterable[AggregatedResult]) -> dict[str, Finding]:
    """Experiments whose energy grows with the number of processes while work and time stay, by experiment id.

    Real work that is spread over more GPUs takes less time, or there is more of it: growth with neither is what a host
    counted once a process looks like.

    Args:
        results: Aggregates, of any experiments, with their processes.
    """
    sweeps: dict[object, list[_Step]] = {}
    for result in results:
        step = _step(result)
        if step is not None:
            sweeps.setdefault(_work(result), []).append(step)
    return {step.experiment_id: finding for steps in sweeps.values() for step, finding in _growing(steps)}


def _step(result: AggregatedResult) -> _Step | None:
    energy_j = result.total_energy_j
    work = [process.inference_metrics for process in result.process_results if process.inference_metrics is not None]
    times = [metrics.inference_time_sec for metrics in work if metrics.inference_time_sec]
    if not energy_j or not times:
        return None
    return _Step(result.experiment_id, len(result.process_results), energy_j, max(times))


def _work(result: AggregatedResult) -> object:
    """What experiments of one sweep have in common: model, tokens, and a configuration but for the processes."""
    origins = {process.origin.tool for process in result.process_results if process.origin is not None}
    settings = {name: value for name, value in result.effective_config.items() if name not in origins | OF_AN_IMPORT}
    config = json.dumps(_without_processes(settings), sort_keys=True, default=str)
    return result.model_name, result.total_tokens, result.backend, config


def _without_processes(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_processes(inner) for name, inner in value.items() if name not in _SWEPT}
    return value


def _growing(steps: list[_Step]) -> Iterator[tuple[_Step, Finding]]:
    """The steps of one sweep, but for its smallest, that have grown in step with the processes."""
    smallest = min(steps, key=lambda step: (step.processes, step.experiment_id))
    for step in steps:
        times, grown = step.processes / smallest.processes, step.energy_j / smallest.energy_j
        same_time = math.isclose(step.time_sec, smallest.time_sec, rel_tol=SAME_TIME)
        if times > 1 and same_time and grown >= times * (1 - GROWTH):
            message = (
                f"with {step.processes} processes instead of {smallest.processes} the same work in the same "
                f"{seconds(step.time_sec)} took {grown:.3g} times the energy of {smallest.experiment_id!r}"
            )
            yield (
                step,
                not_checked("suspicion.grows_with_processes", SUSPICION, message, expected=1.0, found=grown),
            )

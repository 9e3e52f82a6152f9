"""Suspicions: patterns that suggest double counting, but that correct readings can show too.

These checks never fail: equal GPUs with equal work agree within a fraction of a percent, and more GPUs may do more
work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

from msgspec import Struct

from llm_energy_measure.domain.experiment import AggregatedResult
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.statistics import mean
from llm_energy_measure.verification.codes import SUSPICION, joules, not_checked, passed, seconds
from llm_energy_measure.verification.consistency import IMPORTED_FIELDS
from llm_energy_measure.verification.processes import Evidence

IDENTICAL = 0.01
"""Greatest spread of readings that counts as identical, as a fraction of their mean."""

SAME_TIME = 0.1
"""Greatest relative difference between the times of experiments that counts as the same time."""

GROWTH = 0.25
"""A ratio of energies is reported if it is at least (1 - this fraction) times the ratio of the numbers of processes."""

# Settings that differ only because a sweep varies the number of processes.
_VARIED_WITH_PROCESSES = frozenset(
    {"num_processes", "world_size", "config_name", "gpu_list", "cycle_id", "experiment_id"}
)


def check_identical_readings(evidence: Evidence) -> Iterator[Finding]:
    """Report processes of one host with unknown scope whose GPU energies are almost identical."""
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
                f"a spread of {spread:.2%}; equal GPUs did equal work, or one reading is counted {len(energies)} times"
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
    """Return, by experiment id, findings about energy that grows with the number of processes at equal work and time.

    More GPUs finish the same work in less time. Energy growth without more work or less time suggests that each process
    counted the energy of the whole host.

    Args:
        results: Aggregates of any experiments, with their processes.
    """
    sweeps: dict[object, list[_Step]] = {}
    for result in results:
        step = _step(result)
        if step is not None:
            sweeps.setdefault(_sweep_key(result), []).append(step)
    return {step.experiment_id: finding for steps in sweeps.values() for step, finding in _growing(steps)}


def _step(result: AggregatedResult) -> _Step | None:
    energy_j = result.total_energy_j
    inference = [process.inference_metrics for process in result.process_results]
    times = [metrics.inference_time_sec for metrics in inference if metrics is not None and metrics.inference_time_sec]
    if not energy_j or not times:
        return None
    return _Step(result.experiment_id, len(result.process_results), energy_j, max(times))


def _sweep_key(result: AggregatedResult) -> object:
    """Return what the experiments of one sweep share: model, tokens, backend, and settings except process counts."""
    origins = {process.origin.tool for process in result.process_results if process.origin is not None}
    settings = {name: value for name, value in result.effective_config.items() if name not in origins | IMPORTED_FIELDS}
    config = json.dumps(_without_processes(settings), sort_keys=True, default=str)
    return result.model_name, result.total_tokens, result.backend, config


def _without_processes(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_processes(inner) for name, inner in value.items() if name not in _VARIED_WITH_PROCESSES}
    return value


def _growing(steps: list[_Step]) -> Iterator[tuple[_Step, Finding]]:
    """Yield the experiments of one sweep whose energy grew in proportion to the number of processes."""
    smallest = min(steps, key=lambda step: (step.processes, step.experiment_id))
    for step in steps:
        times, grown = step.processes / smallest.processes, step.energy_j / smallest.energy_j
        same_time = math.isclose(step.time_sec, smallest.time_sec, rel_tol=SAME_TIME)
        if times > 1 and same_time and grown >= times * (1 - GROWTH):
            message = (
                f"{step.processes} processes used {grown:.3g} times the energy of {smallest.experiment_id!r} "
                f"(processes: {smallest.processes}), for the same work in the same {seconds(step.time_sec)}"
            )
            finding = not_checked("suspicion.grows_with_processes", SUSPICION, message, expected=1.0, found=grown)
            yield step, finding

"""Plausibility: figures of one record that contradict each other, and processes that are unlike their peers."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from llm_energy_measure.results.verification.codes import failed, joules, not_checked, passed, seconds, watts
from llm_energy_measure.results.verification.evidence import read_elsewhere
from llm_energy_measure.results.verification.gpus import gpu_scope, gpus_of, names_gpu
from llm_energy_measure.results.verification.power import TOLERANCE as POWER_TOLERANCE
from llm_energy_measure.results.verification.power import energy_window_sec, longest_sec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.results.verification.evidence import Evidence

SAMPLE_FACTOR = 2.0
"""How far an instantaneous sample of power may lie from the mean that energy and window imply."""

COMPONENT_TOLERANCE = 0.01
"""Fraction of the total that its components may exceed it by."""

THROUGHPUT_TOLERANCE = 0.25
"""Fraction that a throughput may differ from tokens over time: means of batches are not means of a run."""

OUTLIER_FACTOR = 3.0
"""How often its peers' median power, or what part of it, makes a process an outlier; it takes three processes."""

_PEERS = 3
# A sentence or None, with what was expected and found.
_Problem = tuple[str, float | None, float | None] | None


def check_plausibility(evidence: Evidence) -> Iterator[Finding]:
    """Whether the figures of each process agree with each other and with its peers'."""
    for code, check in _EACH.items():
        yield _first_problem(code, evidence, check)
    yield _missing_gpu_energy(evidence)
    yield _outlier(evidence)


def _first_problem(code: str, evidence: Evidence, check: Callable[[RawProcessResult], _Problem]) -> Finding:
    """One finding for the experiment: the first process that has the problem, and how many more have it."""
    problem: _Problem = None
    processes = []
    for record in evidence.records:
        found = check(record)
        if found is not None:
            problem = problem or found
            processes.append(record.process_index)
    if problem is None:
        return passed(code)
    message, expected, value = problem
    if len(processes) > 1:
        message += f" (and {len(processes) - 1} more)"
    return failed(code, f"process {processes[0]} {message}", expected=expected, found=value, processes=processes)


def _power_above_limit(record: RawProcessResult) -> _Problem:
    power = record.energy_metrics.gpu_power_w
    if not power or gpu_scope(record) == "host":
        return None
    limits = [gpu.limit_w for gpu in gpus_of(record) if gpu.limit_w is not None]
    limit = math.fsum(limits)
    if not limits or power <= limit * (1 + POWER_TOLERANCE):
        return None
    return f"reports {watts(power)} of GPU power, and its board can draw {watts(limit)}", limit, power


def _power_contradicts_energy(record: RawProcessResult) -> _Problem:
    """The field is one sample: only what no mean can be near is a contradiction."""
    energy_j, power = record.energy_metrics.gpu_energy_j, record.energy_metrics.gpu_power_w
    if not energy_j or power is None:
        return None
    window = energy_window_sec(record)
    work = record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None
    longest = window or longest_sec(record)
    shortest = window or work or longest
    if power == 0:
        over = f" over {seconds(longest)}" if longest else ""
        return f"reports 0 W of GPU power beside {joules(energy_j)} of GPU energy{over}", None, 0.0
    if not longest or not shortest:
        return None
    least, greatest = energy_j / longest, energy_j / shortest
    if least / SAMPLE_FACTOR <= power <= greatest * SAMPLE_FACTOR:
        return None
    mean = least if power < least else greatest
    message = f"reports {watts(power)} of GPU power, and its GPU energy implies a mean of {watts(mean)}"
    return f"{message}: the field is one sample and no mean", mean, power


def _below_idle(record: RawProcessResult) -> _Problem:
    energy = record.energy_metrics
    window = energy_window_sec(record)
    if not energy.idle_power_w or not window or energy.total_energy_j is None:
        return None
    idle_j = energy.idle_power_w * window
    if energy.total_energy_j >= idle_j * (1 - POWER_TOLERANCE):
        return None
    message = (
        f"measured {joules(energy.total_energy_j)} over {seconds(window)}, less than the {joules(idle_j)} of "
        f"{watts(energy.idle_power_w)} idle"
    )
    return message, idle_j, energy.total_energy_j


def _components(record: RawProcessResult) -> _Problem:
    energy = record.energy_metrics
    if energy.total_energy_j is None:
        return None
    parts = math.fsum(part or 0.0 for part in (energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j))
    if parts <= energy.total_energy_j * (1 + COMPONENT_TOLERANCE):
        return None
    message = f"has {joules(parts)} in GPU, CPU and RAM, more than its total of {joules(energy.total_energy_j)}"
    return message, energy.total_energy_j, parts


def _throughput(record: RawProcessResult) -> _Problem:
    work = record.inference_metrics
    if work is None or not work.tokens_per_second or not work.inference_time_sec:
        return None
    # Some tools count output tokens, some all: whichever comes nearest speaks for the record.
    rates = [
        tokens / work.inference_time_sec
        for tokens in (work.total_tokens, work.output_tokens, work.input_tokens)
        if tokens
    ]
    if not rates:
        return None
    nearest = min(rates, key=lambda rate: abs(rate - work.tokens_per_second))  # type: ignore[operator]  # checked above
    if abs(nearest - work.tokens_per_second) <= THROUGHPUT_TOLERANCE * nearest:
        return None
    message = (
        f"reports {work.tokens_per_second:,.4g} tokens/s, and its tokens over {seconds(work.inference_time_sec)} "
        f"are {nearest:,.4g} tokens/s"
    )
    return message, nearest, work.tokens_per_second


def _tokens(record: RawProcessResult) -> _Problem:
    work = record.inference_metrics
    if work is None:
        return None
    parts = work.input_tokens + work.output_tokens
    if parts > work.total_tokens:
        message = f"counts {parts:,} input and output tokens, more than its total of {work.total_tokens:,}"
        return message, float(work.total_tokens), float(parts)
    requests = work.latency_measurements
    if requests is None:
        return None
    if requests.total_output_tokens is not None and requests.total_output_tokens > work.output_tokens:
        message = (
            f"has requests with {requests.total_output_tokens:,} output tokens, more than the {work.output_tokens:,} "
            "that it counts"
        )
        return message, float(work.output_tokens), float(requests.total_output_tokens)
    if requests.request_count is not None and len(requests.ttft_ms) > requests.request_count:
        message = f"has {len(requests.ttft_ms):,} times to the first token of {requests.request_count:,} requests"
        return message, float(requests.request_count), float(len(requests.ttft_ms))
    return None


_EACH: dict[str, Callable[[RawProcessResult], _Problem]] = {
    "plausibility.power_above_limit": _power_above_limit,
    "plausibility.power_contradicts_energy": _power_contradicts_energy,
    "plausibility.below_idle": _below_idle,
    "plausibility.components": _components,
    "plausibility.throughput": _throughput,
    "plausibility.tokens": _tokens,
}


def _missing_gpu_energy(evidence: Evidence) -> Finding:
    """No GPU energy beside peers that have it; a peer that read its sensors, or the whole host, explains it."""
    code = "plausibility.missing_gpu_energy"
    missing: list[int] = []
    any_has = False
    for records in evidence.hosts.values():
        has = [record for record in records if record.energy_metrics.gpu_energy_j]
        any_has = any_has or bool(has)
        if any(gpu_scope(record) == "host" for record in has):
            continue
        missing += [
            record.process_index
            for record in records
            if not record.energy_metrics.gpu_energy_j
            and names_gpu(record)
            and record.energy_metrics.total_energy_j is not None
            and not read_elsewhere(record, records)
        ]
    if not any_has or not missing:
        return passed(code)
    others = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
    message = f"process {missing[0]}{others} no GPU energy, or 0 J of it, beside peers that have some"
    return failed(code, message, processes=missing)


def _outlier(evidence: Evidence) -> Finding:
    """A process whose power is far from its peers' on the same board."""
    code = "plausibility.outlier"
    by_board: dict[tuple[str | None, str | None], list[tuple[float, int]]] = {}
    for record in evidence.records:
        total, length = record.energy_metrics.total_energy_j, energy_window_sec(record) or longest_sec(record)
        if total and length:
            key = record.gpu_name, record.energy_metrics.total_scope
            by_board.setdefault(key, []).append((total / length, record.process_index))
    groups = [powers for powers in by_board.values() if len(powers) >= _PEERS]
    if not groups:
        return not_checked(code, "fewer than three like processes with energy and time")
    for powers in groups:
        middle = statistics.median(power for power, _ in powers)
        far, process = max(powers, key=lambda pair: (_distance(pair[0], middle), -pair[1]))
        if _distance(far, middle) > OUTLIER_FACTOR:
            message = f"process {process} implies {watts(far)}, and the median of its peers is {watts(middle)}"
            return failed(code, message, expected=middle, found=far, processes=[process])
    return passed(code)


def _distance(power_w: float, middle_w: float) -> float:
    """How often the one goes into the other, at least 1."""
    least, greatest = min(power_w, middle_w), max(power_w, middle_w)
    return greatest / least if least else math.inf

"""Plausibility: figures of one record that contradict each other, and processes that are unlike their peers."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from llm_energy_measure.verification.codes import failed, joules, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import (
    UNCERTAIN,
    host_boards,
    names_gpu,
)
from llm_energy_measure.verification.power import TOLERANCE as POWER_TOLERANCE
from llm_energy_measure.verification.processes import read_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.domain.metrics import InferenceMetrics
    from llm_energy_measure.verification.processes import Evidence, Process

SAMPLE_FACTOR = 2.0
"""How far an instantaneous sample of power may lie from the mean that energy and window imply."""

COMPONENT_TOLERANCE = 0.01
"""Fraction of the total that its components may exceed it by."""

THROUGHPUT_TOLERANCE = 0.25
"""Fraction that a throughput may differ from tokens over time: means of batches are not means of a run."""

OUTLIER_FACTOR = 3.0
"""How often its peers' median power, or what part of it, makes a process an outlier; it takes three processes."""

_PEERS = 3
# A sentence, with what was expected and found; or why that can't be told; or None if nothing is wrong.
_Problem = tuple[str, float | None, float | None]
_Judged = _Problem | str | None
_ABSENT = ""
"""The record lacks the figures that the check compares."""


def check_plausibility(evidence: Evidence) -> Iterator[Finding]:
    """Whether the figures of each process agree with each other and with its peers'."""
    for code, (judge, what) in _EACH.items():
        yield _first_problem(code, evidence, judge(evidence), what)
    yield _missing_gpu_energy(evidence)
    yield _outlier(evidence)


def _first_problem(code: str, evidence: Evidence, judged: Sequence[_Judged], what: str) -> Finding:
    """One finding for the experiment: the first process that has the problem, and how many more have it."""
    if judged.count(None) == len(judged):
        return passed(code)
    if judged.count(_ABSENT) == len(judged):
        return not_checked(code, f"no process has {what}")
    problems = {
        record.process_index: judgement
        for record, judgement in zip(evidence.records, judged, strict=True)
        if isinstance(judgement, tuple)
    }
    if not problems:
        why = next(filter(None, judged), None)
        if why is None and None in judged:
            return passed(code)
        return not_checked(code, why if isinstance(why, str) else f"no process has {what}")
    process, (message, expected, value) = next(iter(problems.items()))
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return failed(code, f"process {process} {message}", expected=expected, found=value, processes=problems)


def _powers_above_limit(evidence: Evidence) -> list[_Judged]:
    return [
        _ABSENT if (power := process.energy.gpu_power_w) is None else _power_above_limit(process, power)
        for process in evidence.processes
    ]


def _power_above_limit(process: Process, power: float) -> _Judged:
    limit, is_certain = process.boards.limit_w, process.boards.is_certain
    if process.gpu_scope == "host":
        name, limit = host_boards(process.record) or ("", None)
        if limit is None:
            return f"no power limit is known of the board {name!r}" if name else "what boards the host has is not known"
        of_whom, is_certain = "the host's boards", True
    elif limit is None:
        board = next((gpu.board for gpu in process.gpus if gpu.limit_w is None and gpu.board), None)
        return f"no power limit is known of the board {'' if board is None else repr(board)}".rstrip()
    else:
        of_whom = "its board" if process.boards.number == 1 else f"its {process.boards.number} boards"
    if power > limit * (1 + POWER_TOLERANCE):
        return f"reports {watts(power)} of GPU power, and {of_whom} can draw {watts(limit)}", limit, power
    return None if is_certain else UNCERTAIN


def _samples_against_energy(evidence: Evidence) -> list[_Judged]:
    return [
        _power_contradicts_energy(process, energy_j, power)
        if (energy_j := process.energy.gpu_energy_j) and (power := process.energy.gpu_power_w) is not None
        else _ABSENT
        for process in evidence.processes
    ]


def _power_contradicts_energy(process: Process, energy_j: float, power: float) -> _Judged:
    """The field is one sample: only what no mean can be near is a contradiction."""
    window, work = process.window_sec, process.record.inference_metrics
    longest = process.length_sec
    shortest = window or (work.inference_time_sec if work is not None else None) or longest
    if power == 0:
        over = f" over {seconds(longest)}" if longest else ""
        return f"reports 0 W of GPU power beside {joules(energy_j)} of GPU energy{over}", None, 0.0
    if not longest or not shortest:
        return _ABSENT
    least, greatest = energy_j / longest, energy_j / shortest
    if least / SAMPLE_FACTOR <= power <= greatest * SAMPLE_FACTOR:
        return None
    mean = least if power < least else greatest
    message = f"reports {watts(power)} of GPU power, and its GPU energy implies a mean of {watts(mean)}"
    return f"{message}: the field is one sample and no mean", mean, power


def _all_below_idle(evidence: Evidence) -> list[_Judged]:
    return [
        _below_idle(idle_w, process.window_sec, process.energy.total_energy_j)
        if (idle_w := process.energy.idle_power_w)
        else _ABSENT
        for process in evidence.processes
    ]


def _below_idle(idle_w: float, window: float | None, energy_j: float | None) -> _Judged:
    if not window or energy_j is None:
        return _ABSENT
    idle_j = idle_w * window
    if energy_j >= idle_j * (1 - POWER_TOLERANCE):
        return None
    least = f"the {joules(idle_j)} of {watts(idle_w)} idle"
    return f"measured {joules(energy_j)} over {seconds(window)}, less than {least}", idle_j, energy_j


def _all_components(evidence: Evidence) -> list[_Judged]:
    return [
        _ABSENT
        if energy.total_energy_j is None
        else _components(energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j)
        for energy in evidence.energies
    ]


def _components(total_j: float, gpu_j: float | None, cpu_j: float | None, ram_j: float | None) -> _Judged:
    if gpu_j is cpu_j is ram_j is None:
        return _ABSENT
    parts = math.fsum((gpu_j or 0.0, cpu_j or 0.0, ram_j or 0.0))
    if parts <= total_j * (1 + COMPONENT_TOLERANCE):
        return None
    message = f"has {joules(parts)} in GPU, CPU and RAM, more than its total of {joules(total_j)}"
    return message, total_j, parts


def _all_throughputs(evidence: Evidence) -> list[_Judged]:
    return [
        _throughput(work, rate, time)
        if work is not None and (rate := work.tokens_per_second) and (time := work.inference_time_sec)
        else _ABSENT
        for work in evidence.works
    ]


def _throughput(work: InferenceMetrics, told: float, time: float) -> _Judged:
    # Where it is as near as this, what is nearer still is near enough as well.
    if abs((rate := work.total_tokens / time) - told) < THROUGHPUT_TOLERANCE / 2 * rate:
        return None
    # Some tools count output tokens, some all: whichever comes nearest speaks for the record.
    rates = [tokens / time for tokens in (work.total_tokens, work.output_tokens, work.input_tokens) if tokens]
    if not rates:
        return _ABSENT
    nearest = min(rates, key=lambda rate: abs(rate - told))
    if abs(nearest - told) <= THROUGHPUT_TOLERANCE * nearest:
        return None
    message = f"reports {told:,.4g} tokens/s, and its tokens over {seconds(time)} are {nearest:,.4g} tokens/s"
    return message, nearest, told


def _all_tokens(evidence: Evidence) -> list[_Judged]:
    return [_ABSENT if work is None else _tokens(work) for work in evidence.works]


def _tokens(work: InferenceMetrics) -> _Judged:
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


_EACH: dict[str, tuple[Callable[[Evidence], list[_Judged]], str]] = {
    "plausibility.power_above_limit": (_powers_above_limit, "a GPU power"),
    "plausibility.power_contradicts_energy": (_samples_against_energy, "GPU power, GPU energy and a time"),
    "plausibility.below_idle": (_all_below_idle, "an idle power, an energy and its window"),
    "plausibility.components": (_all_components, "a total and a component of it"),
    "plausibility.throughput": (_all_throughputs, "a throughput, tokens and their time"),
    "plausibility.tokens": (_all_tokens, "token counts"),
}


def _missing_gpu_energy(evidence: Evidence) -> Finding:
    """No GPU energy beside peers that have it; a peer that read its sensors, or the whole host, explains it."""
    code = "plausibility.missing_gpu_energy"
    readings = [energy.gpu_energy_j for energy in evidence.energies]
    if all(readings) or not any(readings):
        return passed(code)
    missing: list[int] = []
    for processes in evidence.hosts.values():
        if any(process.energy.gpu_energy_j and process.gpu_scope == "host" for process in processes):
            continue
        records = [process.record for process in processes]
        missing += [
            record.process_index
            for record in records
            if not record.energy_metrics.gpu_energy_j
            and names_gpu(record)
            and record.energy_metrics.total_energy_j is not None
            and not read_elsewhere(record, records)
        ]
    if not missing:
        return passed(code)
    others = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
    message = f"process {missing[0]}{others} no GPU energy, or 0 J of it, beside peers that have some"
    return failed(code, message, processes=missing)


def _outlier(evidence: Evidence) -> Finding:
    """A process whose power is far from its peers', of the same component, scope and boards."""
    code = "plausibility.outlier"
    peers: dict[object, list[tuple[float, int]]] = {}
    for process in evidence.processes:
        energy, boards, length = process.energy, process.boards, process.length_sec
        own: tuple[object, ...] = boards.number, boards.limit_w, boards.is_certain
        if energy.gpu_energy_j:
            component, joules, scope = "gpu", energy.gpu_energy_j, process.gpu_scope
        elif energy.cpu_energy_j:  # one process may read the host's for all
            component, joules, scope, own = "cpu", energy.cpu_energy_j, energy.cpu_scope or energy.total_scope, ()
        else:
            component, joules, scope = "total", energy.total_energy_j or 0.0, energy.total_scope
        if joules and length:
            record = process.record
            like = component, scope, own, record.gpu_name
            peers.setdefault(like, []).append((joules / length, record.process_index))
    groups = [powers for powers in peers.values() if len(powers) >= _PEERS]
    if not groups:
        return not_checked(code, "fewer than three like processes with energy and time")
    for powers in groups:
        ordered = sorted([power for power, _ in powers])
        middle = statistics.median(ordered)
        # None is farther than the least or the greatest.
        if max(_distance(ordered[0], middle), _distance(ordered[-1], middle)) > OUTLIER_FACTOR:
            far, index = max(powers, key=lambda pair: (_distance(pair[0], middle), -pair[1]))
            return failed(
                code,
                f"process {index} implies {watts(far)}, and the median of its peers is {watts(middle)}",
                expected=middle,
                found=far,
                processes=[index],
            )
    return passed(code)


def _distance(power_w: float, middle_w: float) -> float:
    """How often the one goes into the other, at least 1."""
    least, greatest = min(power_w, middle_w), max(power_w, middle_w)
    return greatest / least if least else math.inf

"""Plausibility: figures of one record that contradict each other, and processes that are unlike their peers."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from llm_energy_measure.results.verification.codes import failed, joules, not_checked, passed, seconds, watts
from llm_energy_measure.results.verification.evidence import read_elsewhere
from llm_energy_measure.results.verification.gpus import (
    UNCERTAIN,
    gpu_scope,
    gpus_of,
    host_boards,
    names_gpu,
    own_boards,
)
from llm_energy_measure.results.verification.power import TOLERANCE as POWER_TOLERANCE
from llm_energy_measure.results.verification.power import energy_window_sec, longest_sec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.domain.metrics import EnergyMetrics, Scope
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
# A sentence, with what was expected and found; or why that can't be told; or None if nothing is wrong.
_Problem = tuple[str, float | None, float | None]
_Judged = _Problem | str | None
_ABSENT = ""
"""The record lacks the figures that the check compares."""


def check_plausibility(evidence: Evidence) -> Iterator[Finding]:
    """Whether the figures of each process agree with each other and with its peers'."""
    for code, check in _EACH.items():
        yield _first_problem(code, evidence, *check)
    yield _missing_gpu_energy(evidence)
    yield _outlier(evidence)


def _first_problem(code: str, evidence: Evidence, check: Callable[[RawProcessResult], _Judged], what: str) -> Finding:
    """One finding for the experiment: the first process that has the problem, and how many more have it."""
    problems: dict[int, _Problem] = {}
    reasons: list[str] = []
    for record in evidence.records:
        judged = check(record)
        if isinstance(judged, tuple):
            problems[record.process_index] = judged
        elif judged is not None:
            reasons.append(judged)
    if not problems:
        why = next(filter(None, reasons), "")
        if why or len(reasons) == len(evidence.records):
            return not_checked(code, why or f"no process has {what}")
        return passed(code)
    process, (message, expected, value) = next(iter(problems.items()))
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return failed(code, f"process {process} {message}", expected=expected, found=value, processes=problems)


def _power_above_limit(record: RawProcessResult) -> _Judged:
    power = record.energy_metrics.gpu_power_w
    if power is None:
        return _ABSENT
    if gpu_scope(record) == "host":
        name, limit = host_boards(record) or ("", None)
        of_whom, is_certain = "the host's boards", True
        unknown = f"no power limit is known of the board {name!r}" if name else "what boards the host has is not known"
    else:
        gpus = gpus_of(record)
        _, count, limit, is_certain = own_boards(record, gpus)
        of_whom = "its board" if count == 1 else f"its {count} boards"
        board = next((gpu.board for gpu in gpus if gpu.limit_w is None and gpu.board), None)
        unknown = f"no power limit is known of the board {'' if board is None else repr(board)}".rstrip()
    if limit is None:
        return unknown
    if power > limit * (1 + POWER_TOLERANCE):
        return f"reports {watts(power)} of GPU power, and {of_whom} can draw {watts(limit)}", limit, power
    return None if is_certain else UNCERTAIN


def _power_contradicts_energy(record: RawProcessResult) -> _Judged:
    """The field is one sample: only what no mean can be near is a contradiction."""
    energy_j, power = record.energy_metrics.gpu_energy_j, record.energy_metrics.gpu_power_w
    if not energy_j or power is None:
        return _ABSENT
    window = energy_window_sec(record)
    work = record.inference_metrics.inference_time_sec if record.inference_metrics is not None else None
    longest = window or longest_sec(record)
    shortest = window or work or longest
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


def _below_idle(record: RawProcessResult) -> _Judged:
    energy = record.energy_metrics
    window = energy_window_sec(record)
    if not energy.idle_power_w or not window or energy.total_energy_j is None:
        return _ABSENT
    idle_j = energy.idle_power_w * window
    if energy.total_energy_j >= idle_j * (1 - POWER_TOLERANCE):
        return None
    message = (
        f"measured {joules(energy.total_energy_j)} over {seconds(window)}, less than the {joules(idle_j)} of "
        f"{watts(energy.idle_power_w)} idle"
    )
    return message, idle_j, energy.total_energy_j


def _components(record: RawProcessResult) -> _Judged:
    energy = record.energy_metrics
    known = [part for part in (energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j) if part is not None]
    if energy.total_energy_j is None or not known:
        return _ABSENT
    parts = math.fsum(known)
    if parts <= energy.total_energy_j * (1 + COMPONENT_TOLERANCE):
        return None
    message = f"has {joules(parts)} in GPU, CPU and RAM, more than its total of {joules(energy.total_energy_j)}"
    return message, energy.total_energy_j, parts


def _throughput(record: RawProcessResult) -> _Judged:
    work = record.inference_metrics
    if work is None or not work.tokens_per_second or not work.inference_time_sec:
        return _ABSENT
    # Some tools count output tokens, some all: whichever comes nearest speaks for the record.
    rates = [
        tokens / work.inference_time_sec
        for tokens in (work.total_tokens, work.output_tokens, work.input_tokens)
        if tokens
    ]
    if not rates:
        return _ABSENT
    nearest = min(rates, key=lambda rate: abs(rate - work.tokens_per_second))  # type: ignore[operator]  # checked above
    if abs(nearest - work.tokens_per_second) <= THROUGHPUT_TOLERANCE * nearest:
        return None
    message = (
        f"reports {work.tokens_per_second:,.4g} tokens/s, and its tokens over {seconds(work.inference_time_sec)} "
        f"are {nearest:,.4g} tokens/s"
    )
    return message, nearest, work.tokens_per_second


def _tokens(record: RawProcessResult) -> _Judged:
    work = record.inference_metrics
    if work is None:
        return _ABSENT
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


_EACH: dict[str, tuple[Callable[[RawProcessResult], _Judged], str]] = {
    "plausibility.power_above_limit": (_power_above_limit, "a GPU power"),
    "plausibility.power_contradicts_energy": (_power_contradicts_energy, "GPU power, GPU energy and a time"),
    "plausibility.below_idle": (_below_idle, "an idle power, an energy and its window"),
    "plausibility.components": (_components, "a total and a component of it"),
    "plausibility.throughput": (_throughput, "a throughput, tokens and their time"),
    "plausibility.tokens": (_tokens, "token counts"),
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
    """A process whose power is far from its peers', of the same component, scope and boards."""
    code = "plausibility.outlier"
    peers: dict[object, list[tuple[float, int]]] = {}
    for record in evidence.records:
        length = energy_window_sec(record) or longest_sec(record)
        component, joules, scope = _compared(record.energy_metrics)
        if joules and length:
            boards = None if component == "cpu" else own_boards(record, gpus_of(record))[1:]
            key = component, scope, boards, record.gpu_name
            peers.setdefault(key, []).append((joules / length, record.process_index))
    groups = [powers for powers in peers.values() if len(powers) >= _PEERS]
    if not groups:
        return not_checked(code, "fewer than three like processes with energy and time")
    for powers in groups:
        middle = statistics.median(power for power, _ in powers)
        far, process = max(powers, key=lambda pair: (_distance(pair[0], middle), -pair[1]))
        if _distance(far, middle) > OUTLIER_FACTOR:
            message = f"process {process} implies {watts(far)}, and the median of its peers is {watts(middle)}"
            return failed(code, message, expected=middle, found=far, processes=[process])
    return passed(code)


def _compared(energy: EnergyMetrics) -> tuple[str, float | None, Scope | None]:
    """What of a process's energy its peers have too: one of them may read the host's CPU for all."""
    if energy.gpu_energy_j:
        return "gpu", energy.gpu_energy_j, energy.gpu_scope or energy.total_scope
    if energy.cpu_energy_j:
        return "cpu", energy.cpu_energy_j, energy.cpu_scope or energy.total_scope
    return "total", energy.total_energy_j, energy.total_scope


def _distance(power_w: float, middle_w: float) -> float:
    """How often the one goes into the other, at least 1."""
    least, greatest = min(power_w, middle_w), max(power_w, middle_w)
    return greatest / least if least else math.inf

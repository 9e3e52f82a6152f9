"""Checks of plausibility: figures of one record agree with each other, and with those of the other processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from llm_energy_measure.domain.findings import SEVERITIES, Finding, Severity
from llm_energy_measure.domain.metrics import InferenceMetrics
from llm_energy_measure.verification.codes import failed, joules, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import UNCERTAIN, host_boards, names_gpu
from llm_energy_measure.verification.power import LIMIT_EXCEEDED, LIMIT_TOLERANCE, TOLERANCE, noise_explains
from llm_energy_measure.verification.processes import Evidence, Process, read_elsewhere
from llm_energy_measure.verification.registry import CHECKS

SAMPLE_FACTOR = 2.0
"""Greatest accepted ratio between one power sample and the mean power that energy and time imply."""

SAMPLE_ERROR_FACTOR = 10.0
"""Greatest ratio that is a warning. A greater ratio is an error, because only a wrong unit explains this ratio."""

COMPONENT_TOLERANCE = 0.01
"""Greatest excess of the components over the total, as a fraction of the total."""

TOTAL_FACTOR = 10.0
"""Greatest accepted ratio of a total to the sum of its components, if GPU, CPU and memory energy are known."""

PARTIAL_TOTAL_FACTOR = 900.0
"""Greatest accepted ratio if a component is unknown: less than 1,000, the smallest factor between J, Wh and kWh."""

THROUGHPUT_TOLERANCE = 0.25
"""Greatest relative difference between a throughput and tokens / time: means of batches differ from means of a run."""

OUTLIER_FACTOR = 3.0
"""A process is an outlier if its power is more than this factor above or below the median power of its peers."""

_MIN_PEERS = 3


class _Problem(NamedTuple):
    """A problem of one process. `severity` None means the severity of the check."""

    message: str
    expected: float | None
    found: float | None
    severity: Severity | None = None


# A problem, or the reason why the check could not run, or None if it passed.
_Judgement = _Problem | str | None
_ABSENT = ""
"""The judgement if a record does not have the figures that a check compares."""


def check_plausibility(evidence: Evidence) -> Iterator[Finding]:
    """Check that the figures of each process agree with each other and with those of the other processes."""
    for code, (judge, figures) in _JUDGES.items():
        yield _summarise(code, evidence, judge(evidence), figures)
    yield _missing_gpu_energy(evidence)
    yield _outlier(evidence)


def _summarise(code: str, evidence: Evidence, judged: Sequence[_Judgement], figures: str) -> Finding:
    """Return one finding for the experiment: the process with the most severe problem, and the number of others."""
    if judged.count(None) == len(judged):
        return passed(code)
    if judged.count(_ABSENT) == len(judged):
        return not_checked(code, f"no process has {figures}")
    problems = {
        record.process_index: judgement
        for record, judgement in zip(evidence.records, judged, strict=True)
        if isinstance(judgement, _Problem)
    }
    if not problems:
        why = next(filter(None, judged), None)
        if why is None and None in judged:
            return passed(code)
        return not_checked(code, why if isinstance(why, str) else f"no process has {figures}")
    # The most severe problem; if several processes have it, that of the first process.
    process, (message, expected, value, severity) = min(
        problems.items(), key=lambda item: SEVERITIES.index(item[1].severity or CHECKS[code].severity)
    )
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    message = f"process {process} {message}"
    return failed(code, message, expected=expected, found=value, processes=problems, severity=severity)


def _powers_above_limit(evidence: Evidence) -> list[_Judgement]:
    found = [
        (_ABSENT, None) if (power := process.energy.gpu_power_w) is None else _power_above_limit(process, power)
        for process in evidence.processes
    ]
    judged: list[_Judgement] = [judgement for judgement, _ in found]
    ratios = [ratio for _, ratio in found if ratio is not None]
    if not ratios or noise_explains(ratios):
        return judged
    return [
        one._replace(severity="error")
        if isinstance(one, _Problem) and process.gpu_scope is not None and _ratio_of(one) > LIMIT_EXCEEDED
        else one
        for process, one in zip(evidence.processes, judged, strict=True)
    ]


def _ratio_of(problem: _Problem) -> float:
    """Return the found power divided by the limit."""
    return (problem.found or 0.0) / problem.expected if problem.expected else 0.0


def _power_above_limit(process: Process, power: float) -> tuple[_Judgement, float | None]:
    """Return a warning if a power is above the limit, and the ratio of both if the scope of the power is known."""
    limit, is_certain = process.boards.limit_w, process.boards.is_certain
    if process.gpu_scope == "host" or (process.gpu_scope is None and host_boards(process.record) is not None):
        stated = host_boards(process.record)
        if stated is None:
            return "the boards of the host are unknown", None
        limit = stated.limit_w
        if limit is None:
            return f"the power limit of the board {stated.name!r} is unknown", None
        owner, is_certain = "the host's boards", True
    elif limit is None:
        board = next((gpu.board for gpu in process.gpus if gpu.limit_w is None and gpu.board), None)
        return f"the power limit of the board{'' if board is None else f' {board!r}'} is unknown", None
    else:
        owner = "its board" if process.boards.number == 1 else f"its {process.boards.number} boards"
    ratio = None if process.gpu_scope is None else power / limit
    if power > limit * LIMIT_TOLERANCE:
        message = f"reports {watts(power)} of GPU power, but {owner} can draw only {watts(limit)}"
        return _Problem(message, limit, power, "warning"), ratio
    return (None if is_certain else UNCERTAIN), ratio


def _samples_against_energy(evidence: Evidence) -> list[_Judgement]:
    return [_samples_of(process) for process in evidence.processes]


def _samples_of(process: Process) -> _Judgement:
    """Compare the reported GPU power with the GPU energy, else the reported CPU power with the CPU energy."""
    energy = process.energy
    of_gpu = _sample_against_energy(process, "GPU", energy.gpu_power_w, energy.gpu_energy_j)
    if isinstance(of_gpu, _Problem) or not energy.cpu_power_w:  # a CPU power of 0 W is a finding of zero.cpu_power
        return of_gpu
    of_cpu = _sample_against_energy(process, "CPU", energy.cpu_power_w, energy.cpu_energy_j)
    return of_gpu if of_cpu == _ABSENT else of_cpu


def _sample_against_energy(process: Process, component: str, power: float | None, energy_j: float | None) -> _Judgement:
    """Compare one power sample with the mean power over the shortest and the longest known time."""
    if power is None or not energy_j:
        return _ABSENT
    inference, longest = process.record.inference_metrics, process.length_sec
    shortest = process.window_sec or (inference.inference_time_sec if inference is not None else None) or longest
    if power == 0:
        over = f" over {seconds(longest)}" if longest else ""
        message = f"reports 0 W of {component} power, but {joules(energy_j)} of {component} energy{over}"
        return _Problem(message, None, 0.0)
    if not longest or not shortest:
        return _ABSENT
    least, greatest = energy_j / longest, energy_j / shortest
    if least / SAMPLE_FACTOR <= power <= greatest * SAMPLE_FACTOR:
        return None
    mean = least if power < least else greatest
    message = f"reports {watts(power)} of {component} power, but its {component} energy implies a mean of {watts(mean)}"
    severity: Severity = "error" if _ratio(power, mean) > SAMPLE_ERROR_FACTOR else "warning"
    return _Problem(f"{message}; the reported power is one sample, not a mean", mean, power, severity)


def _all_below_idle(evidence: Evidence) -> list[_Judgement]:
    return [
        _below_idle(idle_w, process.window_sec, process.energy.total_energy_j)
        if (idle_w := process.energy.idle_power_w)
        else _ABSENT
        for process in evidence.processes
    ]


def _below_idle(idle_w: float, window: float | None, energy_j: float | None) -> _Judgement:
    if not window or energy_j is None:
        return _ABSENT
    idle_j = idle_w * window
    if energy_j >= idle_j * (1 - TOLERANCE):
        return None
    idle = f"{joules(idle_j)} (idle power {watts(idle_w)} times this time)"
    return _Problem(f"measured {joules(energy_j)} over {seconds(window)}, less than {idle}", idle_j, energy_j)


def _all_components(evidence: Evidence) -> list[_Judgement]:
    return [
        _ABSENT
        if energy.total_energy_j is None
        else _components(energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j)
        for energy in evidence.energies
    ]


def _components(total_j: float, gpu_j: float | None, cpu_j: float | None, ram_j: float | None) -> _Judgement:
    known = [part for part in (gpu_j, cpu_j, ram_j) if part is not None]
    if not known:
        return _ABSENT
    parts_j = math.fsum(known)
    factor = TOTAL_FACTOR if len(known) == 3 else PARTIAL_TOTAL_FACTOR
    if parts_j > total_j * (1 + COMPONENT_TOLERANCE):
        relation = "more than its total of"
    elif parts_j and total_j > parts_j * factor:
        relation = f"less than 1/{factor:.0f} of its total of"
    else:
        return None
    message = f"has {joules(parts_j)} of GPU, CPU and memory energy, {relation} {joules(total_j)}"
    return _Problem(message + _unit_hint(_ratio(total_j, parts_j)), total_j, parts_j)


def _unit_hint(factor: float) -> str:
    """Return the units that explain a factor between two energies; empty if none do."""
    for unit_factor, units in ((1e3, "Wh and kWh"), (3600.0, "J and Wh"), (3.6e6, "J and kWh")):
        if math.isclose(factor, unit_factor, rel_tol=COMPONENT_TOLERANCE):
            return f"; the factor {unit_factor:,.0f} suggests that a tool confused {units}"
    return ""


def _all_throughputs(evidence: Evidence) -> list[_Judgement]:
    return [
        _throughput(inference, rate, time)
        if inference is not None and (rate := inference.tokens_per_second) and (time := inference.inference_time_sec)
        else _ABSENT
        for inference in evidence.inference_metrics
    ]


def _throughput(inference: InferenceMetrics, reported: float, time: float) -> _Judgement:
    # Fast path for most records: if the rate of all tokens is within half of the tolerance, the nearest rate passes.
    if abs((rate := inference.total_tokens / time) - reported) < THROUGHPUT_TOLERANCE / 2 * rate:
        return None
    # Tools count total, output or input tokens, so the nearest rate is compared.
    counts = inference.total_tokens, inference.output_tokens, inference.input_tokens
    rates = [tokens / time for tokens in counts if tokens]
    if not rates:
        return _ABSENT
    nearest = min(rates, key=lambda rate: abs(rate - reported))
    if abs(nearest - reported) <= THROUGHPUT_TOLERANCE * nearest:
        return None
    message = f"reports {reported:,.4g} tokens/s, but its tokens / {seconds(time)} are {nearest:,.4g} tokens/s"
    return _Problem(message, nearest, reported)


def _all_tokens(evidence: Evidence) -> list[_Judgement]:
    return [_ABSENT if inference is None else _tokens(inference) for inference in evidence.inference_metrics]


def _tokens(inference: InferenceMetrics) -> _Judgement:
    parts = inference.input_tokens + inference.output_tokens
    if parts > inference.total_tokens:
        message = f"counts {parts:,} input and output tokens, more than its total of {inference.total_tokens:,}"
        return _Problem(message, float(inference.total_tokens), float(parts))
    requests = inference.latency_measurements
    if requests is None:
        return None
    if requests.total_output_tokens is not None and requests.total_output_tokens > inference.output_tokens:
        message = (
            f"has requests with {requests.total_output_tokens:,} output tokens, more than its output_tokens of "
            f"{inference.output_tokens:,}"
        )
        return _Problem(message, float(inference.output_tokens), float(requests.total_output_tokens))
    first_tokens = requests.count("ttft_ms")
    if requests.request_count is not None and first_tokens > requests.request_count:
        message = f"has {first_tokens:,} times to first token, but only {requests.request_count:,} requests"
        return _Problem(message, float(requests.request_count), float(first_tokens))
    return None


# For each code: the function that judges the processes, and the figures without which the check is not made.
_JUDGES: dict[str, tuple[Callable[[Evidence], list[_Judgement]], str]] = {
    "plausibility.power_above_limit": (_powers_above_limit, "a GPU power"),
    "plausibility.power_contradicts_energy": (_samples_against_energy, "power, energy and time of a GPU or CPU"),
    "plausibility.below_idle": (_all_below_idle, "an idle power, an energy and an energy window"),
    "plausibility.components": (_all_components, "a total and at least one component"),
    "plausibility.throughput": (_all_throughputs, "a throughput, tokens and an inference time"),
    "plausibility.tokens": (_all_tokens, "token counts"),
}


def _missing_gpu_energy(evidence: Evidence) -> Finding:
    """Check for processes without GPU energy, if other processes of the experiment have GPU energy.

    Another process that read the whole host, or the sensors of this process, explains the missing energy.
    """
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
    message = f"process {missing[0]}{others} no GPU energy or 0 J, but other processes have GPU energy"
    return failed(code, message, processes=missing)


def _outlier(evidence: Evidence) -> Finding:
    """Check that no power differs by a factor above `OUTLIER_FACTOR` from the median power of comparable processes."""
    code = "plausibility.outlier"
    peers: dict[object, list[tuple[float, int]]] = {}
    for process in evidence.processes:
        energy, boards, length = process.energy, process.boards, process.length_sec
        own: tuple[object, ...] = boards.number, boards.limit_w, boards.is_certain
        if energy.gpu_energy_j:
            component, joules, scope = "gpu", energy.gpu_energy_j, process.gpu_scope
        elif energy.cpu_energy_j:  # without boards: one process may read the CPU for all of its host
            component, joules, scope, own = "cpu", energy.cpu_energy_j, energy.cpu_scope or energy.total_scope, ()
        else:
            component, joules, scope = "total", energy.total_energy_j or 0.0, energy.total_scope
        if joules and length:
            record = process.record
            peers.setdefault((component, scope, own, record.gpu_name), []).append(
                (joules / length, record.process_index)
            )
    groups = [powers for powers in peers.values() if len(powers) >= _MIN_PEERS]
    if not groups:
        return not_checked(code, "fewer than three comparable processes have energy and time")
    for powers in groups:
        ordered = sorted([power for power, _ in powers])
        middle = statistics.median(ordered)
        # The power that is farthest from the median is the smallest or the greatest power.
        if max(_ratio(ordered[0], middle), _ratio(ordered[-1], middle)) > OUTLIER_FACTOR:
            far, index = max(powers, key=lambda pair: (_ratio(pair[0], middle), -pair[1]))
            return failed(
                code,
                f"process {index} has a mean power of {watts(far)}, but the median of its peers is {watts(middle)}",
                expected=middle,
                found=far,
                processes=[index],
            )
    return passed(code)


def _ratio(power_w: float, middle_w: float) -> float:
    """Return the greater power divided by the smaller one, at least 1."""
    least, greatest = min(power_w, middle_w), max(power_w, middle_w)
    return greatest / least if least else math.inf

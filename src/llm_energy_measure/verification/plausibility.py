"""Checks of plausibility: figures of one record agree with each other, and with those of the other processes."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from llm_energy_measure.verification.codes import failed, joules, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import UNCERTAIN, host_boards, names_gpu
from llm_energy_measure.verification.power import TOLERANCE as POWER_TOLERANCE
from llm_energy_measure.verification.processes import read_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.findings import Finding
    from llm_energy_measure.domain.metrics import InferenceMetrics
    from llm_energy_measure.verification.processes import Evidence, Process

SAMPLE_FACTOR = 2.0
"""Greatest ratio between one power sample and the mean power that energy and window imply."""

COMPONENT_TOLERANCE = 0.01
"""Greatest excess of the components over the total, as a fraction of the total."""

THROUGHPUT_TOLERANCE = 0.25
"""Greatest relative difference between a throughput and tokens / time: means of batches differ from means of a run."""

OUTLIER_FACTOR = 3.0
"""A process is an outlier above the median power of its peers times this factor, or below the median divided by it."""

_MIN_PEERS = 3
# Message, expected value and found value.
_Problem = tuple[str, float | None, float | None]
# A problem, or the reason why the check could not run, or None if it passed.
_Judgement = _Problem | str | None
_ABSENT = ""
"""Reason of a record that lacks the figures that the check compares."""


def check_plausibility(evidence: Evidence) -> Iterator[Finding]:
    """Check that the figures of each process agree with each other and with those of the other processes."""
    for code, (judge, figures) in _JUDGES.items():
        yield _summarise(code, evidence, judge(evidence), figures)
    yield _missing_gpu_energy(evidence)
    yield _outlier(evidence)


def _summarise(code: str, evidence: Evidence, judged: Sequence[_Judgement], figures: str) -> Finding:
    """Return one finding for the experiment: the first process with the problem, and the number of the others."""
    if judged.count(None) == len(judged):
        return passed(code)
    if judged.count(_ABSENT) == len(judged):
        return not_checked(code, f"no process has {figures}")
    problems = {
        record.process_index: judgement
        for record, judgement in zip(evidence.records, judged, strict=True)
        if isinstance(judgement, tuple)
    }
    if not problems:
        why = next(filter(None, judged), None)
        if why is None and None in judged:
            return passed(code)
        return not_checked(code, why if isinstance(why, str) else f"no process has {figures}")
    process, (message, expected, value) = next(iter(problems.items()))
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return failed(code, f"process {process} {message}", expected=expected, found=value, processes=problems)


def _powers_above_limit(evidence: Evidence) -> list[_Judgement]:
    return [
        _ABSENT if (power := process.energy.gpu_power_w) is None else _power_above_limit(process, power)
        for process in evidence.processes
    ]


def _power_above_limit(process: Process, power: float) -> _Judgement:
    limit, is_certain = process.boards.limit_w, process.boards.is_certain
    if process.gpu_scope == "host":
        name, limit = host_boards(process.record) or ("", None)
        if limit is None:
            return f"the power limit of the board {name!r} is unknown" if name else "the boards of the host are unknown"
        owner, is_certain = "the host's boards", True
    elif limit is None:
        board = next((gpu.board for gpu in process.gpus if gpu.limit_w is None and gpu.board), None)
        return f"the power limit of the board{'' if board is None else f' {board!r}'} is unknown"
    else:
        owner = "its board" if process.boards.number == 1 else f"its {process.boards.number} boards"
    if power > limit * (1 + POWER_TOLERANCE):
        return f"reports {watts(power)} of GPU power, but {owner} can draw only {watts(limit)}", limit, power
    return None if is_certain else UNCERTAIN


def _samples_against_energy(evidence: Evidence) -> list[_Judgement]:
    return [
        _power_contradicts_energy(process, energy_j, power)
        if (energy_j := process.energy.gpu_energy_j) and (power := process.energy.gpu_power_w) is not None
        else _ABSENT
        for process in evidence.processes
    ]


def _power_contradicts_energy(process: Process, energy_j: float, power: float) -> _Judgement:
    """Compare one power sample with the mean power over the shortest and the longest known time."""
    inference, longest = process.record.inference_metrics, process.length_sec
    shortest = process.window_sec or (inference.inference_time_sec if inference is not None else None) or longest
    if power == 0:
        over = f" over {seconds(longest)}" if longest else ""
        return f"reports 0 W of GPU power, but {joules(energy_j)} of GPU energy{over}", None, 0.0
    if not longest or not shortest:
        return _ABSENT
    least, greatest = energy_j / longest, energy_j / shortest
    if least / SAMPLE_FACTOR <= power <= greatest * SAMPLE_FACTOR:
        return None
    mean = least if power < least else greatest
    message = f"reports {watts(power)} of GPU power, but its GPU energy implies a mean of {watts(mean)}"
    return f"{message}; the reported power is one sample, not a mean", mean, power


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
    if energy_j >= idle_j * (1 - POWER_TOLERANCE):
        return None
    idle = f"{joules(idle_j)} (idle power {watts(idle_w)} times this time)"
    return f"measured {joules(energy_j)} over {seconds(window)}, less than {idle}", idle_j, energy_j


def _all_components(evidence: Evidence) -> list[_Judgement]:
    return [
        _ABSENT
        if energy.total_energy_j is None
        else _components(energy.total_energy_j, energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j)
        for energy in evidence.energies
    ]


def _components(total_j: float, gpu_j: float | None, cpu_j: float | None, ram_j: float | None) -> _Judgement:
    if gpu_j is cpu_j is ram_j is None:
        return _ABSENT
    parts = math.fsum((gpu_j or 0.0, cpu_j or 0.0, ram_j or 0.0))
    if parts <= total_j * (1 + COMPONENT_TOLERANCE):
        return None
    message = f"has {joules(parts)} of GPU, CPU and memory energy, more than its total of {joules(total_j)}"
    return message, total_j, parts


def _all_throughputs(evidence: Evidence) -> list[_Judgement]:
    return [
        _throughput(inference, rate, time)
        if inference is not None and (rate := inference.tokens_per_second) and (time := inference.inference_time_sec)
        else _ABSENT
        for inference in evidence.works
    ]


def _throughput(inference: InferenceMetrics, reported: float, time: float) -> _Judgement:
    # Fast path for most records: if this rate is within half of the tolerance, the nearest rate is within all of it.
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
    return message, nearest, reported


def _all_tokens(evidence: Evidence) -> list[_Judgement]:
    return [_ABSENT if inference is None else _tokens(inference) for inference in evidence.works]


def _tokens(inference: InferenceMetrics) -> _Judgement:
    parts = inference.input_tokens + inference.output_tokens
    if parts > inference.total_tokens:
        message = f"counts {parts:,} input and output tokens, more than its total of {inference.total_tokens:,}"
        return message, float(inference.total_tokens), float(parts)
    requests = inference.latency_measurements
    if requests is None:
        return None
    if requests.total_output_tokens is not None and requests.total_output_tokens > inference.output_tokens:
        message = (
            f"has requests with {requests.total_output_tokens:,} output tokens, more than its output_tokens of "
            f"{inference.output_tokens:,}"
        )
        return message, float(inference.output_tokens), float(requests.total_output_tokens)
    first_tokens = requests.count("ttft_ms")
    if requests.request_count is not None and first_tokens > requests.request_count:
        message = f"has {first_tokens:,} times to first token, but only {requests.request_count:,} requests"
        return message, float(requests.request_count), float(first_tokens)
    return None


# Function that judges each process, and the figures that it needs, for the reason of a check that could not run.
_JUDGES: dict[str, tuple[Callable[[Evidence], list[_Judgement]], str]] = {
    "plausibility.power_above_limit": (_powers_above_limit, "a GPU power"),
    "plausibility.power_contradicts_energy": (_samples_against_energy, "GPU power, GPU energy and time"),
    "plausibility.below_idle": (_all_below_idle, "an idle power, an energy and an energy window"),
    "plausibility.components": (_all_components, "a total and one of its components"),
    "plausibility.throughput": (_all_throughputs, "a throughput, tokens and an inference time"),
    "plausibility.tokens": (_all_tokens, "token counts"),
}


def _missing_gpu_energy(evidence: Evidence) -> Finding:
    """Check for processes without GPU energy on hosts with GPU energy.

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
    """Check for processes whose power is far from the median of peers with the same component, scope and boards."""
    code = "plausibility.outlier"
    peers: dict[object, list[tuple[float, int]]] = {}
    for process in evidence.processes:
        energy, boards, length = process.energy, process.boards, process.length_sec
        own: tuple[object, ...] = boards.number, boards.limit_w, boards.is_certain
        if energy.gpu_energy_j:
            component, joules, scope = "gpu", energy.gpu_energy_j, process.gpu_scope
        elif energy.cpu_energy_j:  # one process may read the CPU for all processes of its host
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
        # The smallest or the greatest power is the farthest from the median.
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

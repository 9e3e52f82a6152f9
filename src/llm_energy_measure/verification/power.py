"""Implied power: energy over time, compared with the power that boards can draw.

Power is energy divided by the length of the energy window. If the window is not recorded, the divisor is the longest
known time of the process, so the power is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist

from msgspec import Struct

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.formatting import plural
from llm_energy_measure.domain.metrics import Scope
from llm_energy_measure.verification.boards import boards_named
from llm_energy_measure.verification.codes import failed, not_checked, passed, seconds, watts
from llm_energy_measure.verification.gpus import UNCERTAIN, host_boards
from llm_energy_measure.verification.processes import Process
from llm_energy_measure.verification.readings import Reading

TOLERANCE = 0.05
"""Fraction by which power may exceed the limits.

NVML documents 5 % for Fermi and Kepler boards (`nvmlDeviceGetPowerUsage`), and no accuracy for later boards.
"""

LIMIT_TOLERANCE = 1 + TOLERANCE

LIMIT_EXCEEDED = 1.2
"""The error of a sensor can explain a power up to this multiple of the limit, for any number of readings."""

NOISE = 0.1
"""Standard deviation of one reading of a noisy sensor, as a fraction of the true energy."""

SENSOR_ERROR = "the error of a sensor can explain the excess"

# Probability that noise alone makes a check of an experiment fail, if all boards work at their limits.
_CHANCE_OF_ERROR = 1e-3
# Probability that noise alone makes the sum of the readings of a host prove a double count.
_CHANCE_OF_PROOF = 5e-4
# Noise never explains a power above this multiple of the limit, for any number of readings.
_IMPOSSIBLE = 1.5
_TWO = 2


class HostBoards(Struct, frozen=True, kw_only=True):
    """The boards of a host that the records or the user state.

    Attributes:
        number: Number of boards of the host; None if it is not stated.
        total_w: Sum of the power limits of the boards, in watts; None if unknown.
        least_w: Lowest power limit of a board, in watts; None if unknown.
        why_not: Reason why `total_w` is unknown; empty if it is known.
    """

    number: int | None
    total_w: float | None = None
    least_w: float | None = None
    why_not: str = ""

    def needs_all(self, readings: Sequence[Reading]) -> bool:
        """Return True if each reading alone implies more power than all boards except the smallest can draw.

        Return False if the host has fewer than two boards, or if a limit or a power is unknown.
        """
        if self.total_w is None or self.least_w is None or self.number is None or self.number < _TWO:
            return False
        fewer_w = (self.total_w - self.least_w) * LIMIT_TOLERANCE
        return all(reading.power_w is not None and reading.power_w > fewer_w for reading in readings)


def boards_of_host(processes: Sequence[Process], number: int | None = None, board: str | None = None) -> HostBoards:
    """Return the boards of a host that its records or the user state.

    Args:
        processes: The processes of the host.
        number: Number of boards that the user states; None if the user states none.
        board: Name of the boards that the user states; None if the user states none.
    """
    stated = [found for process in processes if (found := host_boards(process.record)) is not None]
    if number is None and not stated:
        return HostBoards(number=None, why_not="the number of boards of the host is unknown")
    if number is None and board is None:
        largest = max(stated, key=lambda found: found.number)
        why_not = f"the power limit of the board {largest.name!r} is unknown" if largest.limit_w is None else ""
        return HostBoards(number=largest.number, total_w=largest.limit_w, least_w=largest.least_w, why_not=why_not)
    count = number if number is not None else max(found.number for found in stated)
    limits = [gpu.limit_w for process in processes for gpu in process.gpus]
    if board is not None and (model := boards_named(board).model) is not None:
        limits = [model.proven_limit_w]
    known = [limit for limit in limits if limit is not None]
    if not known or len(known) < len(limits):
        return HostBoards(number=count, why_not="the power limit of the boards is unknown")
    return HostBoards(number=count, total_w=max(known) * count, least_w=max(known))


def noise_explains(ratios: Sequence[float]) -> bool:
    """Return True if sensor noise alone can explain these powers on boards that draw at most their limits.

    The greatest of many noisy readings deviates more than a single reading, and their mean deviates less. So the
    allowed excess of the greatest ratio grows with the number of ratios, and the allowed excess of the mean shrinks.

    Args:
        ratios: At least one power, each divided by the limit of its boards.
    """
    number = len(ratios)
    greatest, mean = max(ratios), sum(ratios) / number
    return greatest <= _explained(NOISE, _CHANCE_OF_ERROR / number) and mean <= _explained(
        NOISE / math.sqrt(number), _CHANCE_OF_ERROR
    )


def explained_sum(energies: Sequence[float]) -> float:
    """Return the greatest multiple of the limit that noise can explain in the sum of these readings.

    Args:
        energies: The readings, in joules; their sum is more than 0.
    """
    return _explained(NOISE * math.hypot(*energies) / sum(energies), _CHANCE_OF_PROOF)


def _explained(noise: float, chance: float) -> float:
    """Return the multiple of the true value that a figure exceeds with this probability, limited to 1.2 to 1.5.

    Args:
        noise: Standard deviation of the figure, as a fraction of the true value.
        chance: Probability, between 0 and 1.
    """
    return min(max(LIMIT_EXCEEDED, 1 + noise * _deviations(chance)), _IMPOSSIBLE)


@lru_cache(maxsize=1024)
def _deviations(chance: float) -> float:
    """Return the number of standard deviations that a normal variable exceeds with this probability."""
    return NormalDist().inv_cdf(1 - chance)


def check_process_power(readers: Sequence[tuple[Process, Scope | None, HostBoards | None]]) -> Iterator[Finding]:
    """Check that each process implies no more GPU power than the boards that it read can draw.

    Args:
        readers: Each process with GPU energy, the scope of this energy (None if unknown), and the boards of the host.
            The boards are needed for the scope `host` and for unknown scopes.
    """
    code = "energy.exceeds_devices"
    reasons: list[str] = []
    ratios: list[float] = []
    above: list[tuple[float, Process, float]] = []
    for process, scope, boards in readers:
        limit, why_not = _limit_of(process, scope, boards)
        if limit is None:
            reasons.append(why_not)
            continue
        if process.gpu_w is not None:
            ratios.append(ratio := process.gpu_w / limit)
            if ratio > LIMIT_TOLERANCE:
                above.append((ratio, process, limit))
                continue
        if scope != "host" and not process.boards.is_certain:
            reasons.append(UNCERTAIN)
        elif process.window_sec is None:
            reasons.append(f"the energy window of process {process.index} is unknown")
    if above and not noise_explains(ratios):
        beyond = [one for one in above if one[0] > LIMIT_EXCEEDED]
        message, limit, found, effect_j = _excess(beyond)
        indices = [process.index for _, process, _ in beyond]
        yield failed(code, message, expected=limit, found=found, effect_j=effect_j, processes=indices)
    elif above:
        message, limit, found, _ = _excess(above)
        indices = [process.index for _, process, _ in above]
        yield not_checked(code, SENSOR_ERROR, message, expected=limit, found=found, processes=indices)
    elif not readers:
        yield not_checked(code, "no process has GPU energy")
    else:
        yield not_checked(code, reasons[0]) if reasons else passed(code)


def _limit_of(process: Process, scope: Scope | None, boards: HostBoards | None) -> tuple[float | None, str]:
    """Return the greatest power of the boards that a process read, in watts; or None, and why it is unknown."""
    if scope in ("device", "process"):
        name = next((gpu.board for gpu in process.gpus if gpu.limit_w is None), None)
        board = f"the board {name!r}" if name else f"the board of process {process.index}"
        return process.boards.limit_w, f"the power limit of {board} is unknown"
    if boards is not None and boards.total_w is not None:
        return boards.total_w, ""
    if boards is not None and scope == "host":
        return None, boards.why_not
    return None, "the scope of the GPU sensor is not recorded"


def _excess(found: Sequence[tuple[float, Process, float]]) -> tuple[str, float, float, float]:
    """Return message, limit (W) and power (W) of the greatest excess, and the energy (J) above the limits of all."""
    _, worst, limit = max(found, key=lambda one: (one[0], -one[1].index))
    others = f" ({plural(len(found) - 1, 'more process')} above the limit)" if len(found) > 1 else ""
    effect_j = math.fsum(
        max(0.0, (process.energy.gpu_energy_j or 0.0) - limit_w * process.length_sec)
        for _, process, limit_w in found
        if process.length_sec is not None
    )
    message = (
        f"process {worst.index} implies {watts(worst.gpu_w)} of GPU power over {seconds(worst.length_sec)}{others}, "
        f"and the boards that it read can draw {watts(limit)}"
    )
    return message, limit, worst.gpu_w or 0.0, effect_j

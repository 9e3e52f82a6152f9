"""The registry of reason codes, and the making of findings."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from llm_energy_measure.domain.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CODES",
    "SUM_FAMILIES",
    "SUSPICION",
    "failed",
    "joules",
    "listed",
    "not_checked",
    "passed",
    "passed_by",
    "seconds",
    "watts",
]

CODES = {
    "energy.over_counted": "the processes of a host imply more GPU power together than its boards can draw",
    "energy.exceeds_devices": "a process implies more GPU power than its own boards can draw",
    "attribution.repeated_gpu": "several processes measured the same GPU at the same time",
    "attribution.shared_sensor": "several processes measured parts that share one sensor",
    "attribution.host_counted": "several processes measured the same host, or parts of it, at the same time",
    "attribution.two_names_one_host": "one GPU, or one boot of a machine, appears under two names of hosts",
    "attribution.module_sensor": "the GPU's sensor may see the CPU of its module, which is counted besides",
    "attribution.scope_unknown": "nothing says what the sensors of several processes on one host saw",
    "completeness.missing_process": "a process that should be there has no readable result",
    "completeness.unreadable_file": "a file that stands where a result should can't be read",
    "completeness.unexpected_process": "there is a process beyond the expected number",
    "completeness.world_size": "the processes disagree on how many they are",
    "completeness.no_energy": "a process has no energy",
    "completeness.unfinished_process": "a process failed, was interrupted, or left a checkpoint only",
    "completeness.duplicate_process": "one result stands under two process indices",
    "time.no_overlap": "there is no instant at which all processes ran",
    "time.impossible_span": "an end is before its start, a duration is negative, or stamps can't be compared",
    "time.mixed_offsets": "some stamps have a UTC offset and some have none",
    "time.naive_stamps": "stamps of several hosts have no UTC offset",
    "time.duration_mismatch": "a duration differs from end - start",
    "time.clock_jump": "a wall clock was set while the processes ran",
    "time.clock_offset": "the clocks of two hosts are apart, or one host's times are those of another, shifted",
    "window.mismatch": "energy and inference are not of the same time",
    "window.unknown": "no energy window is recorded, and run and inference differ",
    "plausibility.power_above_limit": "a reported power is above what the board can draw",
    "plausibility.power_contradicts_energy": "a reported power is far from what the energy implies",
    "plausibility.below_idle": "the energy is less than the idle power over the window",
    "plausibility.components": "GPU, CPU and RAM are more than the total",
    "plausibility.throughput": "a throughput is not tokens over time",
    "plausibility.tokens": "token counts contradict each other",
    "plausibility.missing_gpu_energy": "a process has no GPU energy beside peers that have some",
    "plausibility.outlier": "the power of one process is far from its peers'",
    "counter.recorded": "nothing is recorded of the sensors behind the energy",
    "counter.reset": "an energy counter was set back within the window",
    "counter.wrap": "an energy counter ran over its range, or the energy is not its difference",
    "counter.cumulative": "a counter's reading was taken for the energy of the window",
    "counter.lost": "a sensor was lost within the window",
    "counter.gap": "a sensor was not sampled for a time",
    "counter.mismatch": "the energy of a component is not what its sensors read",
    "likeness.model": "processes ran different models",
    "likeness.backend": "processes ran different backends or versions of one",
    "likeness.precision": "processes computed in different precisions",
    "likeness.library_versions": "processes ran different versions of libraries",
    "likeness.batch_size": "processes had different batch sizes",
    "likeness.configuration": "processes had different configurations",
    "zero.duration": "an energy window of 0 s beside energy",
    "zero.energy": "an energy of 0 J beside tokens",
    "zero.energy_per_token": "0 J per token beside energy and tokens",
    "zero.peak_memory": "a peak memory of 0 beside tokens",
    "zero.cpu_power": "a CPU power of 0 W beside CPU energy",
    "zero.cpu_energy": "a CPU energy of 0 J beside CPU power",
    "provenance.modelled": "a part of the total was modelled, not measured",
    "provenance.unknown": "nobody says where the energy comes from",
    "provenance.tool_warning": "the measuring tool warned of its own figures",
    "provenance.schema_version": "a file names no schema version",
    "sources.missing": "a raw file that the aggregate was made from is gone",
    "sources.changed": "a raw file has other bytes than the aggregate was made from",
    "sources.added": "there is a raw file that the aggregate does not know",
    "sources.embedded": "the aggregate does not hold a raw file as it is",
    "aggregate.recomputed": "what the aggregate says does not follow from its raw files",
    "aggregate.readable": "the aggregate can't be read",
    "aggregate.possible": "the raw files can't be made into one result",
    "suspicion.identical_readings": "readings of several processes are as good as identical",
    "suspicion.grows_with_processes": "the energy of a sweep grows with the processes at constant work and time",
}
"""Every code that a finding can have, and what it means when it failed."""

SUM_FAMILIES = ("energy", "attribution")
"""Families whose failures mean that the plain sum is not to be trusted."""

_MAX_TEXT = 1000

SUSPICION = "a suspicion and no proof"
"""Reason of what looks wrong, and can be right."""


def listed(indices: Sequence[int]) -> str:
    """Indices for a sentence, the first eight of many.

    Example:
        >>> listed([0, 3])
        '0, 3'
    """
    shown = ", ".join(str(index) for index in indices[:8])
    return shown if len(indices) <= 8 else f"{shown} and {len(indices) - 8} more"


# Most findings of most experiments: made once, shared by all, and changed by nobody.
_PASSED = {code: Finding(code=code, outcome="passed") for code in CODES}


def passed(code: str) -> Finding:
    """The finding that a check held."""
    return _PASSED[code]


def passed_by(code: str, found: float) -> Finding:
    """The finding that a check held, and by how much."""
    return Finding(code=code, outcome="passed", found=found)


def failed(
    code: str,
    message: str,
    *,
    expected: float | str | None = None,
    found: float | str | None = None,
    effect_j: float | None = None,
    processes: Iterable[int] = (),
) -> Finding:
    """The finding that a check did not hold; see `Finding` for the arguments."""
    return Finding(
        code=code,
        outcome="failed",
        message=_short(message),
        expected=_recorded(expected),
        found=_recorded(found),
        effect_j=_finite(effect_j),
        processes=sorted(processes),
    )


def not_checked(
    code: str,
    reason: str,
    message: str = "",
    *,
    expected: float | str | None = None,
    found: float | str | None = None,
    effect_j: float | None = None,
    processes: Iterable[int] = (),
) -> Finding:
    """The finding that nothing could be checked, and why."""
    if not message and expected is found is effect_j is None and not processes:
        return _not_checked(code, reason)
    return Finding(
        code=code,
        outcome="not_checked",
        reason=_short(reason),
        message=_short(message),
        expected=_recorded(expected),
        found=_recorded(found),
        effect_j=_finite(effect_j),
        processes=sorted(processes),
    )


@lru_cache(maxsize=1024)
def _not_checked(code: str, reason: str) -> Finding:
    """The finding that says no more than why: most say the same of every experiment of a sweep."""
    return Finding(code=code, outcome="not_checked", reason=_short(reason))


def watts(power_w: float | None) -> str:
    """Power for a sentence.

    Example:
        >>> watts(3156.4)
        '3,156 W'
    """
    return "unknown power" if power_w is None else f"{_digits(power_w, 0)} W"


def joules(energy_j: float | None) -> str:
    """Energy for a sentence.

    Example:
        >>> joules(109872.19)
        '109,872.2 J'
    """
    return "unknown energy" if energy_j is None else f"{_digits(energy_j, 1)} J"


def seconds(duration_sec: float | None) -> str:
    """A length of time for a sentence.

    Example:
        >>> seconds(22.94)
        '22.9 s'
    """
    return "unknown time" if duration_sec is None else f"{_digits(duration_sec, 1)} s"


def _digits(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if abs(value) < 1e12 else f"{value:.4g}"


def _recorded(value: float | str | None) -> float | str | None:
    """A value as a finding can hold it: no text without end, no number that JSON lacks."""
    if isinstance(value, str):
        return _short(value)
    return _finite(value)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _short(text: str) -> str:
    """Names of hosts and boards come from files and can be of any length; a sentence can't."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."

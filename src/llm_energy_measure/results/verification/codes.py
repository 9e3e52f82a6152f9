"""The registry of reason codes, and the making of findings."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.results.completeness import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CODES",
    "SUM_FAMILIES",
    "SUSPICION",
    "failed",
    "joules",
    "listed",
    "not_checked",
    "passed",
    "seconds",
    "watts",
]

CODES = {
    "energy.over_counted": "the processes of a host imply more GPU power together than its boards can draw",
    "energy.exceeds_devices": "a process implies more GPU power than its own boards can draw",
    "attribution.repeated_gpu": "several processes measured the same GPU at the same time",
    "attribution.shared_sensor": "several processes measured parts that share one sensor",
    "attribution.host_counted": "several processes measured the same host at the same time",
    "attribution.gpu_on_two_hosts": "one GPU appears under two names of hosts",
    "attribution.module_sensor": "the GPU's sensor may see the CPU of its module, which is counted besides",
    "attribution.scope_unknown": "nothing says what the sensors of several processes on one host saw",
}
"""Every code that a finding can have, and what it means when it failed."""

SUM_FAMILIES = ("energy", "attribution")
"""Families whose failures mean that the plain sum is not to be trusted."""

SUSPICION = "a suspicion and no proof"
"""Reason of what looks wrong, and can be right."""


@lru_cache(maxsize=256)
def passed(code: str) -> Finding:
    """The finding that a check held."""
    return Finding(code=code, outcome="passed")


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
        message=message,
        expected=_finite(expected),
        found=_finite(found),
        effect_j=effect_j if effect_j is None or math.isfinite(effect_j) else None,
        processes=sorted(processes),
    )


def not_checked(
    code: str,
    reason: str,
    message: str = "",
    *,
    expected: float | str | None = None,
    found: float | str | None = None,
    processes: Iterable[int] = (),
) -> Finding:
    """The finding that nothing could be checked, and why."""
    return Finding(
        code=code,
        outcome="not_checked",
        reason=reason,
        message=message,
        expected=_finite(expected),
        found=_finite(found),
        processes=sorted(processes),
    )


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
    return f"{value:,.{decimals}f}" if abs(value) < 1e12 else f"{value:.4g}"  # noqa: PLR2004 - what a sentence can hold


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value

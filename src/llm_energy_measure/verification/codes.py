"""Helpers that build findings and format quantities. The registry of codes is in `registry.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from llm_energy_measure.domain.findings import Finding, Severity
from llm_energy_measure.verification.registry import CHECKS

__all__ = [
    "CODES",
    "DOUBLE_COUNT_CODES",
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

CODES = {code: check.meaning for code, check in CHECKS.items()}
"""Meaning of a failure by code, for every code that a finding can have."""

DOUBLE_COUNT_CODES = (
    *("energy.over_counted", "attribution.repeated_gpu", "attribution.shared_sensor"),
    *("attribution.host_counted", "attribution.two_names_one_host"),
)
"""Codes whose failure proves that the plain sum counts some energy twice."""

SUM_FAMILIES = ("energy", "attribution")
"""Families of checks whose failures mean that the plain sum may be wrong."""

_MAX_TEXT = 1000

SUSPICION = "a suspicion, not a proof"
"""Value of `Finding.reason` for a pattern that correct measurements can also show."""


def listed(indices: Sequence[int]) -> str:
    """Format indices for a sentence: the first eight, and the number of the others.

    Example:
        >>> listed([0, 3])
        '0, 3'
    """
    shown = ", ".join(str(index) for index in indices[:8])
    return shown if len(indices) <= 8 else f"{shown} and {len(indices) - 8} more"


# Most checks pass, so all experiments share one immutable finding per code.
_PASSED = {code: Finding(code=code, outcome="passed", severity="info") for code in CODES}


def passed(code: str) -> Finding:
    """Return the finding that a check passed."""
    return _PASSED[code]


def passed_by(code: str, found: float) -> Finding:
    """Return the finding that a check passed, with the value that was found."""
    return Finding(code=code, outcome="passed", severity="info", found=found)


def failed(
    code: str,
    message: str,
    *,
    expected: float | str | None = None,
    found: float | str | None = None,
    effect_j: float | None = None,
    processes: Iterable[int] = (),
    severity: Severity | None = None,
) -> Finding:
    """Return the finding that a check failed; see `Finding` for the arguments.

    By default, the severity is the severity of the check.
    """
    return Finding(
        code=code,
        outcome="failed",
        severity=severity or CHECKS[code].severity,
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
    """Return the finding that a check could not decide; see `Finding` for the arguments.

    With a message, the severity is the severity of the check, but at most `warning`. Without a message, it is `info`.
    """
    if not message and expected is found is effect_j is None and not processes:
        return _not_checked(code, reason)
    severity = CHECKS[code].severity if message else "info"
    return Finding(
        code=code,
        outcome="not_checked",
        severity="warning" if severity == "error" else severity,
        reason=_short(reason),
        message=_short(message),
        expected=_recorded(expected),
        found=_recorded(found),
        effect_j=_finite(effect_j),
        processes=sorted(processes),
    )


@lru_cache(maxsize=1024)
def _not_checked(code: str, reason: str) -> Finding:
    """Return a finding that has only a reason. Cached, because experiments of a sweep often have equal reasons."""
    return Finding(code=code, outcome="not_checked", severity="info", reason=_short(reason))


def watts(power_w: float | None) -> str:
    """Format a power for a sentence.

    Example:
        >>> watts(3156.4), watts(0.06)
        ('3,156 W', '0.06 W')
    """
    if power_w is None:
        return "unknown power"
    return f"{power_w:.3g} W" if 0 < power_w < 1 else f"{_digits(power_w, 0)} W"


def joules(energy_j: float | None) -> str:
    """Format an energy for a sentence.

    Example:
        >>> joules(109872.19), joules(0.0948)
        ('109,872.2 J', '94.8 mJ')
    """
    if energy_j is not None and 0 < abs(energy_j) < 1:
        return f"{energy_j * 1e3:.4g} mJ"
    return "unknown energy" if energy_j is None else f"{_digits(energy_j, 1)} J"


def seconds(duration_sec: float | None) -> str:
    """Format a duration for a sentence.

    Example:
        >>> seconds(22.94)
        '22.9 s'
    """
    return "unknown time" if duration_sec is None else f"{_digits(duration_sec, 1)} s"


def _digits(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if abs(value) < 1e12 else f"{value:.4g}"


def _recorded(value: float | str | None) -> float | str | None:
    """Return a value that a finding can store: text of limited length, and only finite numbers."""
    if isinstance(value, str):
        return _short(value)
    return _finite(value)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _short(text: str) -> str:
    """Return a text. A text above `_MAX_TEXT` characters is cut, because names in files can have any length."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."

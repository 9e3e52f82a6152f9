"""Findings: the results of the verification checks."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from llm_energy_measure.domain.units import Joules

Outcome = Literal["passed", "failed", "not_checked"]
"""The check passed, failed, or could not run because data is missing (`reason` names this data)."""

Severity = Literal["error", "warning", "info"]
"""`error`: a figure is wrong or contradicts another figure.

`warning`: a figure may be wrong, or evidence is missing. `info`: a fact that the reader may want to know.
"""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""All severities, the most severe first."""


class Finding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One result of one check.

    Attributes:
        code: Stable name of the check, as `family.name`. `docs/reference/checks.md` describes each code.
        outcome: `passed`, `failed` or `not_checked`.
        severity: `error`, `warning` or `info`; `info` if the check passed. None in aggregates of earlier releases.
        reason: Why the check could not run. None for the other outcomes.
        message: One sentence with the numbers that were compared. Empty if there is no detail.
        expected: The expected value, a number or a word. None if the check expects no value.
        found: The value that was found, in the same unit. None if the check reports no value.
        effect_j: Energy by which the plain sum is too high, in joules, at least 0. If the outcome is `not_checked`, the
            energy by which the plain sum may be too high. None if unknown.
        processes: Indices of the affected processes, from 0. Empty if the finding is about the experiment.
    """

    code: str
    outcome: Outcome
    severity: Severity | None = None
    reason: str | None = None
    message: str = ""
    expected: float | str | None = None
    found: float | str | None = None
    effect_j: Joules | None = None
    processes: list[int] = field(default_factory=list)

    @property
    def problem(self) -> Severity | None:
        """Severity of a failed check; None if the check passed or could not run.

        A failed check without severity is an error.
        """
        return (self.severity or "error") if self.outcome == "failed" else None

    @property
    def is_reported(self) -> bool:
        """True if the check failed, or if it could not run and there is a message."""
        return self.outcome == "failed" or (self.outcome == "not_checked" and bool(self.message))

    @property
    def family(self) -> str:
        """The first part of the code.

        Example:
            >>> Finding(code="energy.over_counted", outcome="passed").family
            'energy'
        """
        return self.code.partition(".")[0]

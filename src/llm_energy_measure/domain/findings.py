"""What a check of an experiment found."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from llm_energy_measure.domain.units import Joules

Outcome = Literal["passed", "failed", "not_checked"]
"""A check held; it did not; or nothing that could be checked was there, and `reason` says what was missing."""


class Finding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One result of one check.

    Attributes:
        code: What was checked, as `family.what`; stable, and documented in `docs/verification.md`.
        outcome: `passed`, `failed` or `not_checked`.
        reason: Why it was not checked; None for the other outcomes.
        message: What was found, a sentence with its numbers; empty where there is nothing to say.
        expected: What was expected, a number or a word.
        found: What was found instead, in the same unit.
        effect_j: Joules that the plain sum counts too many because of it, or may count where that is not checked; None
            if nothing tells.
        processes: Indices of the processes that it is about; empty if it is about the experiment.
    """

    code: str
    outcome: Outcome
    reason: str | None = None
    message: str = ""
    expected: float | str | None = None
    found: float | str | None = None
    effect_j: Annotated[Joules | None, Meta(description="joules that the plain sum counts too many")] = None
    processes: list[int] = field(default_factory=list)

    @property
    def family(self) -> str:
        """First part of the code.

        Example:
            >>> Finding(code="energy.over_counted", outcome="passed").family
            'energy'
        """
        return self.code.partition(".")[0]

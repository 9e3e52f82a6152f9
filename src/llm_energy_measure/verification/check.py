"""The description of one check."""

from __future__ import annotations

from msgspec import Struct

from llm_energy_measure.domain.findings import Severity


class Check(Struct, frozen=True):
    """One check, described for a user. Each text is one or more sentences.

    Attributes:
        meaning: What it means if the check fails.
        rule: When the check fails, and when it is not made.
        advice: What to do about a failure.
        source: Reference for the rule; empty if the rule is a definition of this project.
        example: Published result that fails the check; empty if none is known.
        severity: Severity of a failure, and of a finding that the check reports although it never fails.
    """

    meaning: str
    rule: str
    advice: str
    source: str = ""
    example: str = ""
    severity: Severity = "error"

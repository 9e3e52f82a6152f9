"""The description of one check."""

from __future__ import annotations

from msgspec import Struct

from llm_energy_measure.domain.findings import Severity


class Check(Struct, frozen=True):
    """Description of one check for a user. `meaning`, `rule` and `advice` consist of sentences.

    Attributes:
        meaning: Meaning of a failure.
        rule: Conditions under which the check fails, and under which the check is not made.
        advice: What to do about a failure.
        source: Reference for the rule; empty if the rule is a definition of this project.
        example: Published result that fails the check; empty if none is known.
        severity: Severity of a failure. For a check that never fails, the severity of what the check reports.
    """

    meaning: str
    rule: str
    advice: str
    source: str = ""
    example: str = ""
    severity: Severity = "error"

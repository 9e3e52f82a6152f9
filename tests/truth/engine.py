"""The adapter between the simulator and the engine of attribution: the only module here that knows the engine."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult


def _engine() -> Any:
    try:
        return import_module("llm_energy_measure.verification.attribution")
    except ModuleNotFoundError:
        return import_module("llm_energy_measure.verification.attribution")


ENGINE = _engine()
TAKES_ASSUMPTIONS = hasattr(ENGINE, "Assumptions")


@dataclass(frozen=True)
class Judgement:
    """What the engine says of one experiment.

    Attributes:
        plain_j: Plain sum, in joules.
        point_j: Attributed energy, in joules; None if it is undetermined.
        bounds_j: Least and greatest energy, in joules.
        status: `exact`, `estimated` or `undetermined`.
        errors: Codes of the findings that are errors.
        basis: Reasons of an estimate.
    """

    plain_j: float
    point_j: float | None
    bounds_j: tuple[float, float] | None
    status: str
    errors: tuple[str, ...]
    basis: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the verdict is `complete`: a point, no error, and no proof that the plain sum is too high."""
        if self.point_j is None or self.bounds_j is None or self.errors:
            return False
        return self.bounds_j[1] >= 0.98 * self.plain_j


def judge(records: Sequence[RawProcessResult], assume: Mapping[str, object] | None = None) -> Judgement:
    """The engine's judgement on the records of an experiment.

    Args:
        records: Records by process index.
        assume: Keyword arguments of `Assumptions`; an engine without assumptions ignores them.
    """
    if assume and TAKES_ASSUMPTIONS:
        attribution = ENGINE.attribute(records, ENGINE.Assumptions(**assume))
    else:
        attribution = ENGINE.attribute(records)
    bounds = attribution.bounds_j
    # An engine without severities takes each failed check for an error.
    errors = tuple(
        finding.code
        for finding in attribution.findings
        if finding.outcome == "failed" and getattr(finding, "severity", "error") == "error"
    )
    status = getattr(attribution, "status", None) or ("exact" if bounds and bounds[0] == bounds[1] else "estimated")
    return Judgement(
        plain_j=attribution.plain_j or 0.0,
        point_j=attribution.energy_j,
        bounds_j=bounds,
        status=status,
        errors=errors,
        basis=tuple(getattr(attribution, "basis", ())),
    )

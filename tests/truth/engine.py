"""The adapter between the simulator and the engine: the whole verification of an experiment, as `aggregate` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.verification.verdicts import verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult


@dataclass(frozen=True)
class Judgement:
    """The result of the verification of one experiment.

    Attributes:
        plain_j: Plain sum, in joules.
        point_j: Attributed energy, in joules; None if it is undetermined.
        bounds_j: Least and greatest energy, in joules.
        status: `exact`, `estimated` or `undetermined`.
        errors: Codes of the findings of all checks that are errors.
        basis: Reasons of an estimate.
        verdict: The verdict that `list`, `show` and `verify` print.
    """

    plain_j: float
    point_j: float | None
    bounds_j: tuple[float, float] | None
    status: str
    errors: tuple[str, ...]
    basis: tuple[str, ...]
    verdict: str = "complete"

    @property
    def is_passed(self) -> bool:
        """Whether a point is given, and the verdict is `complete` or the outcome of `verify` is `passed`."""
        return self.point_j is not None and (self.verdict == "complete" or not self.errors)


def judge(records: Sequence[RawProcessResult], assume: Mapping[str, Any] | None = None) -> Judgement:
    """Return the result of the whole verification of an experiment.

    Args:
        records: Records by process index.
        assume: Keyword arguments of `Assumptions`.
    """
    result = aggregate_results(records[0].experiment_id, records, assume=Assumptions(**assume) if assume else None)
    return Judgement(
        plain_j=result.plain_energy_j or 0.0,
        point_j=result.attributed_energy_j,
        bounds_j=result.attributed_bounds_j,
        status=result.attribution_status or "",
        errors=tuple(result.codes_of("error")),
        basis=tuple(result.attribution_basis or ()),
        verdict=verdict_of(result),
    )

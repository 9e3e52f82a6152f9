"""Stored verdicts: what the checks found when the bundle was made, and how a new verification differs from it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from msgspec import Struct, field

from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.snapshot import Snapshot
from llm_energy_measure.bundle.version import VERSION
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.results.batch.verify import verify_experiment
from llm_energy_measure.security import require_bounded_json

CLEAN = "complete"
"""The verdict on an experiment with no error, no missing process and a known energy."""

# Sums of floats have the same bits on all machines. Logarithms can differ in the last bit between math libraries.
_RELATIVE = 1e-9


class StoredVerdict(Struct, frozen=True, kw_only=True):
    """The verdict on an experiment of a bundle: one line of `verdicts.jsonl`.

    Attributes:
        folder: Folder name of the experiment.
        experiment_id: Id of the experiment.
        verdict: One of the words in `verification.verdicts`.
        outcome: `passed`, `failed` or `not_checked`.
        total_energy_j: Plain sum over processes, in joules. None if unknown.
        attributed_energy_j: Energy with each joule counted once, in joules. None if undetermined.
        attributed_bounds_j: Least and greatest energy that the evidence allows, in joules.
        attribution_status: `exact`, `estimated` or `undetermined`. None if unknown.
        is_lower_bound: True if data are missing, so that the sums are too low.
        findings: The findings that failed or have a message.
        checks: Version of this package, whose checks gave the verdict.
    """

    folder: str
    experiment_id: str
    verdict: str
    outcome: str
    total_energy_j: float | None = None
    attributed_energy_j: float | None = None
    attributed_bounds_j: tuple[float, float] | None = None
    attribution_status: str | None = None
    is_lower_bound: bool | None = None
    findings: list[Finding] = field(default_factory=list)
    checks: str = VERSION


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(StoredVerdict)
_COMPARED = (
    "experiment_id",
    "verdict",
    "outcome",
    "total_energy_j",
    "attributed_energy_j",
    "attributed_bounds_j",
    "attribution_status",
    "is_lower_bound",
)


def verdict_on(snapshot: Snapshot) -> StoredVerdict:
    """Return the verdict on an experiment, from its files alone.

    Raises:
        ExperimentIdError: A file belongs to another experiment.
    """
    found = verify_experiment(snapshot.repository(), snapshot.folder)
    return StoredVerdict(
        folder=snapshot.folder,
        experiment_id=found.experiment_id,
        verdict=found.verdict,
        outcome=found.outcome,
        total_energy_j=found.total_energy_j,
        attributed_energy_j=found.attributed_energy_j,
        attributed_bounds_j=found.attributed_bounds_j,
        attribution_status=found.attribution_status,
        is_lower_bound=found.is_lower_bound,
        findings=[finding for finding in found.findings if finding.is_reported],
    )


def encode_verdict(verdict: StoredVerdict) -> bytes:
    """Return the line of a verdict in `verdicts.jsonl`."""
    return _ENCODER.encode(verdict) + b"\n"


def decode_verdict(line: bytes, name: str) -> StoredVerdict:
    """Return the verdict in a line of `verdicts.jsonl`. Raises `BundleError` if the line is not a verdict."""
    try:
        require_bounded_json(line)
        return _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise refuse("bag.form", name, f"a line is not a verdict: {str(error)[:200]}") from error


def differences(stored: StoredVerdict, found: StoredVerdict) -> list[str]:
    """Return one clause for each value in which two verdicts differ; messages of findings are not compared."""
    clauses = []
    for name in _COMPARED:
        before, now = getattr(stored, name), getattr(found, name)
        if not _agree(before, now):
            clauses.append(f"the recomputed {name} is {_text(now)}, the stored {name} is {_text(before)}")
    before_codes, now_codes = _codes(stored.findings), _codes(found.findings)
    clauses += [f"the finding {code} ({outcome}) is new" for code, outcome in sorted(now_codes - before_codes)]
    clauses += [f"the finding {code} ({outcome}) is gone" for code, outcome in sorted(before_codes - now_codes)]
    if clauses and stored.checks != found.checks:
        clauses.append(f"the checks have version {found.checks}; the stored verdict comes from version {stored.checks}")
    return clauses


def _codes(findings: Iterable[Finding]) -> set[tuple[str, str]]:
    return {(finding.code, finding.outcome) for finding in findings}


def _agree(before: object, now: object) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=_RELATIVE)
    if isinstance(before, tuple) and isinstance(now, tuple):
        return len(before) == len(now) and all(map(_agree, before, now))
    return before == now


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)[:120]

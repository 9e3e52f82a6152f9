"""The two flags of the file format, and the warnings that explain why a flag is False."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llm_energy_measure.domain.findings import Finding, Outcome
from llm_energy_measure.verification.codes import DOUBLE_COUNT_CODES

_IDENTITY_CODES = ("identity.repeated_gpu", "identity.unnamed_gpu", "identity.mig_slice")


def temporal_overlap_verified(outcomes: Mapping[str, Outcome]) -> bool:
    """Return True if each process overlaps the process that started next by at least half of the shorter run.

    Return False for a single process, and if the times are unknown.
    """
    return outcomes["time.short_overlap"] == "passed"


def gpu_attribution_verified(outcomes: Mapping[str, Outcome]) -> bool:
    """Return True if each process names its own GPU, no GPU is a MIG slice, and no check proves a double count."""
    are_named = all(outcomes[code] == "passed" for code in _IDENTITY_CODES)
    return are_named and all(outcomes[code] != "failed" for code in DOUBLE_COUNT_CODES)


def flag_warnings(findings: Sequence[Finding], num_processes: int) -> Iterator[str]:
    """Yield a sentence for each reason why a flag is False, except proven double counts.

    Args:
        findings: Findings of the experiment that did not pass.
        num_processes: Number of processes. For a single process, no sentence is about the overlap flag.
    """
    by_code = {finding.code: finding for finding in findings}
    yield from (finding.message for finding in findings if finding.code in _IDENTITY_CODES)
    overlap, common = by_code.get("time.short_overlap"), by_code.get("time.no_overlap")
    if overlap is None or num_processes == 1:
        return
    if overlap.outcome == "failed":
        yield overlap.message
    elif common is not None and common.outcome == "failed":
        yield common.message
    else:
        yield f"it is unknown whether the processes ran concurrently: {overlap.reason}"

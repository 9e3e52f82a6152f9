"""Compare a stored aggregate with its raw files, and with the aggregate that is recomputed from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeGuard

import msgspec
from msgspec import Struct

from llm_energy_measure.constants import MANIFEST_NAME
from llm_energy_measure.domain.experiment import (
    AggregatedResult,
    AggregatedSummary,
    RawProcessResult,
    SourceFile,
    UnreadableFile,
)
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.exceptions import ResultCorruptError
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import folder_name
from llm_energy_measure.verification.codes import failed, joules, not_checked, passed

AGREEMENT = 1e-9
"""Greatest relative difference at which a stored number agrees with the recomputed number."""

# The totals of the strategy. Every aggregate has them.
_TOTALS = (
    *("total_energy_j", "total_tokens", "total_inference_time_sec", "avg_tokens_per_second", "avg_energy_per_token_j"),
    *("total_flops", "aggregation.num_processes"),
)
# Fields that depend on the raw files only.
_FACTS = (
    *("experiment_id", "backend", "backend_version", "model_name", "start_time", "end_time", "latency_stats"),
    *("effective_config", "cli_overrides", "config_warnings", "is_lower_bound", "completeness", "sources"),
    *("aggregation.temporal_overlap_verified", "plain_energy_j", "partial_energy_j"),
)
# Fields that depend on the raw files and the attribution rule.
_ATTRIBUTED = (
    *("attributed_energy_j", "attributed_bounds_j", "attribution_factor", "attribution_status", "attribution_basis"),
    *("attributed_gpu_energy_j", "attributed_cpu_energy_j", "attributed_ram_energy_j"),
    *("aggregation.gpu_attribution_verified", "aggregation.warnings", "failed_codes"),
)
_MAX_VALUE_LENGTH = 200
_MAX_NAMES = 8
_MAX_DIFFERENCES = 20


class Difference(NamedTuple):
    """A value of the aggregate that differs: its path, the found value, and the expected value."""

    path: str
    found: object
    expected: object


def compare_sources(
    stored: AggregatedSummary, records: Sequence[RawProcessResult], unreadable: Sequence[UnreadableFile], data: bytes
) -> Iterator[Finding]:
    """Compare an aggregate with its raw files, and yield the findings on their digests and embedded copies.

    Args:
        stored: The aggregate.
        records: The raw results of the experiment, with the checkpoints that the aggregate includes.
        unreadable: The unreadable raw files of the experiment.
        data: The bytes of the aggregate's file.
    """
    if stored.sources is None:
        for code in ("sources.missing", "sources.changed", "sources.added", "sources.embedded"):
            yield not_checked(code, "the aggregate is of another tool, and names no sources")
        return
    now = {record.stored.source.name: record.stored.source.sha256 for record in records if record.stored}
    now |= _digests(unreadable)
    sources = _digests(stored.completeness.unreadable if stored.completeness is not None else ())
    sources |= {source.name: source.sha256 for source in stored.sources}
    removed = sorted(sources.keys() - now.keys())
    changed = sorted(name for name in sources.keys() & now.keys() if sources[name] != now[name])
    added = sorted(now.keys() - sources.keys())
    yield _finding_of_files("sources.missing", "removed after the aggregation", removed)
    yield _finding_of_files("sources.changed", "changed after the aggregation", changed)
    yield _finding_of_files("sources.added", "added after the aggregation", added)
    yield from _compare_embedded(records, stored.sources, data, skipped={*changed, *added, *removed})


def _digests(files: Sequence[UnreadableFile]) -> dict[str, str]:
    return {file.name: file.sha256 or "" for file in files if file.name != MANIFEST_NAME}


def _compare_embedded(
    records: Sequence[RawProcessResult], sources: Sequence[SourceFile], data: bytes, skipped: Collection[str]
) -> Iterator[Finding]:
    """Check that the aggregate contains the values of each raw file, in any JSON layout, and no other record."""
    code = "sources.embedded"
    embedded = codec.embedded_records(data)
    if len(embedded) != len(sources):
        message = f"the aggregate contains {len(embedded)} processes and names {len(sources)} source files"
        yield failed(code, message, expected=float(len(sources)), found=float(len(embedded)))
        return
    files = {record.stored.source.name: record for record in records if record.stored}
    differences: list[Difference] = []
    for source, copy in zip(sources, embedded, strict=True):
        record = files.get(source.name) if source.name not in skipped else None
        if record is None or record.stored is None or codec.is_copy_of(copy, record.stored.data):
            continue
        try:
            found = codec.decode_raw(bytes(copy), source.name)
        except ResultCorruptError as error:
            differences.append(Difference(source.name, f"unreadable ({error.found})", "readable"))
        else:
            differences += (
                Difference(f"{source.name}, {path}", value, expected)
                for path, value, expected in _differences(found, record)
            )
    yield from _findings_of(code, differences, "in the raw file") if differences else [passed(code)]


def _findings_of(code: str, differences: Sequence[Difference], truth: str) -> Iterator[Finding]:
    """Yield a finding for each difference up to a limit, and one finding about the other differences."""
    for path, found, expected in differences[:_MAX_DIFFERENCES]:
        message = f"{path} is {_text(found)} in the aggregate, and {_text(expected)} {truth}"
        yield failed(code, message, expected=_as_float(expected), found=_as_float(found))
    others = [difference.path for difference in differences[_MAX_DIFFERENCES:]]
    if others:
        yield failed(code, f"{len(others)} more values differ: {', '.join(others)}")


def _finding_of_files(code: str, problem: str, names: Sequence[str]) -> Finding:
    if not names:
        return passed(code)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    shown = ", ".join(names[:_MAX_NAMES]) + more
    return failed(code, f"{problem}: {shown}", found=shown)


def compare_aggregates(stored: AggregatedSummary, recomputed: AggregatedResult) -> Iterator[Finding]:
    """Compare a stored aggregate with the recomputed one, and yield the findings."""
    code = "aggregate.recomputed"
    names, reasons = _comparable(stored, recomputed)
    one, other = ({name: _value(result, name) for name in names} for result in (stored, recomputed))
    differences = list(_differences(one, other))
    if differences:
        yield from _findings_of(code, differences, "if it is recomputed")
    else:
        yield not_checked(code, "; ".join(reasons)) if reasons else passed(code)


def check_integrity(stored: AggregatedSummary, recomputed: AggregatedResult | None) -> Finding:
    """Return the finding that says whether another program changed values of the aggregate."""
    code = "aggregate.altered"
    if stored.integrity == "sealed":
        return passed(code)
    if stored.integrity != "altered":
        return not_checked(code, "the file has no digest of its values: an earlier release or another tool wrote it")
    claimed = stored.total_energy_j
    actual = "an unknown energy" if recomputed is None else joules(recomputed.total_energy_j)
    message = (
        "another program changed values in the file: they differ from the digest in the file; the file claims "
        f"{joules(claimed)}, and {actual} follows from the raw files"
    )
    expected = None if recomputed is None else recomputed.total_energy_j
    return failed(code, message, expected=expected, found=claimed)


def _comparable(stored: AggregatedSummary, recomputed: AggregatedSummary) -> tuple[list[str], list[str]]:
    """Return the names of the fields that can be compared, and the reasons why other fields can't be compared.

    For an aggregate of another tool, only the totals are compared, because the other tool makes other checks.
    """
    names: list[str] = []
    reasons = []
    if stored.aggregation.method == recomputed.aggregation.method:
        names += _TOTALS
    else:
        reasons.append(f"the strategy {stored.aggregation.method!r} is not installed")
    if stored.sources is not None:
        names += _FACTS
        if stored.attribution_rule == recomputed.attribution_rule:
            names += _ATTRIBUTED
        else:
            rule = f"the rule {stored.attribution_rule!r}" if stored.attribution_rule else "no rule"
            known = recomputed.attribution_rule
            reasons.append(f"the aggregate names {rule} of attribution, and this version has only {known!r}")
    return names, reasons


def _value(result: AggregatedSummary, path: str) -> object:
    """Return the value of a field by its path. For the id, return its folder name, which several ids can share."""
    if path == "experiment_id":
        return folder_name(result.experiment_id)
    value: object = result
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _differences(one: object, other: object, path: str = "") -> Iterator[Difference]:
    """Yield the path and both values of each difference. Numbers agree up to the relative difference `AGREEMENT`."""
    if one == other:
        return
    if isinstance(one, Struct) and type(one) is type(other):
        one, other = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            yield from _differences(one.get(name), other.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (value, other_value) in enumerate(zip(one, other, strict=True)):
            yield from _differences(value, other_value, f"{path}[{index}]")
    elif not (_is_number(one) and _is_number(other) and math.isclose(one, other, rel_tol=AGREEMENT, abs_tol=0.0)):
        yield Difference(path, one, other)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}..."

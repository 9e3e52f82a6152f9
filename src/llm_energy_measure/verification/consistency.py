"""Checks of consistency: all processes of an experiment ran the same model, software and configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from llm_energy_measure.domain.experiment import RawProcessResult, config_digest
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.verification.codes import failed, not_checked, passed
from llm_energy_measure.verification.processes import Evidence

PER_PROCESS_SETTINGS = frozenset(
    {"process_index", "rank", "local_rank", "global_rank", "gpu_id", "gpu_ids", "gpu_list", "gpu_uuid", "device"}
    | {"devices", "device_id", "host", "hostname", "seed", "random_seed", "port", "pid", "output_dir", "results_dir"}
)
"""Settings that belong to one process and may differ."""

IMPORTED_FIELDS = frozenset({"legacy", "joined"})
"""Names under which an import keeps fields of the source file that are not settings.

An import also keeps fields under the name of the source tool.
"""

_MAX_DEPTH = 8


def check_consistency(evidence: Evidence) -> Iterator[Finding]:
    """Check that model, backend, precision, batch size, configuration and libraries are the same in all processes.

    A process with an unknown value is not compared.
    """
    for code, getter in _FACTS.items():
        yield _same(code, evidence.records, getter(evidence.records))
    yield from _configuration(evidence)


def _backends(records: Sequence[RawProcessResult]) -> list[object]:
    return [_backend(record.backend, record.backend_version) for record in records]


@lru_cache(maxsize=256)
def _backend(name: str | None, version: str | None) -> str | None:
    return None if name is None else f"{name} {version or ''}".strip()


def _precisions(records: Sequence[RawProcessResult]) -> list[object]:
    computed = [record.compute_metrics for record in records]
    return [None if metrics is None else metrics.compute_precision for metrics in computed]


_FACTS: dict[str, Callable[[Sequence[RawProcessResult]], list[object]]] = {
    "likeness.model": lambda records: [record.model_name for record in records],
    "likeness.backend": _backends,
    "likeness.precision": _precisions,
    "likeness.library_versions": lambda records: [record.library_versions for record in records],
}


def _name(code: str) -> str:
    """Return the name of the compared value, for messages."""
    return code.partition(".")[2].replace("_", " ")


def _same(code: str, records: Sequence[RawProcessResult], values: Sequence[object]) -> Finding:
    if values.count(values[0]) == len(values):
        return not_checked(code, f"no process states the {_name(code)}") if values[0] is None else passed(code)
    known = [(value, record.process_index) for value, record in zip(values, records, strict=True) if value is not None]
    first, first_process = known[0]
    for value, process in known:
        if value != first:
            one, other = _texts(first, value)
            message = f"{_name(code)} is {one} in process {first_process} and {other} in process {process}"
            return failed(code, message, expected=one, found=other, processes=[first_process, process])
    return passed(code)


def _texts(one: object, other: object) -> tuple[str, str]:
    """Return two different values as text. The text of a dictionary has only the first four different keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
        return (
            ", ".join(f"{name} {one.get(name)}" for name in names[:4]),
            ", ".join(f"{name} {other.get(name)}" for name in names[:4]),
        )
    return str(one)[:200], str(other)[:200]


def _configuration(evidence: Evidence) -> Iterator[Finding]:
    """Compare each configuration with the first one: one finding for the batch size, one for all other settings."""
    first = evidence.records[0]
    configs = [record.effective_config for record in evidence.records]
    are_equal = configs.count(configs[0]) == len(configs)
    found: dict[str, Finding] = {}
    for record in () if are_equal else evidence.records[1:]:
        if record.effective_config == first.effective_config:
            continue
        if not record.effective_config or not first.effective_config:
            continue
        kept = {result.origin.tool for result in (first, record) if result.origin is not None} | IMPORTED_FIELDS
        one_config, other_config = (
            {name: value for name, value in result.effective_config.items() if name not in kept}
            for result in (first, record)
        )
        for path, one, other in _differences(one_config, other_config):
            code = "likeness.batch_size" if "batch" in path.rpartition(".")[2] else "likeness.configuration"
            if code not in found:
                one_text, other_text = _texts(one, other)
                processes = [first.process_index, record.process_index]
                message = (
                    f"{path} is {one_text} in process {first.process_index} and {other_text} in process "
                    f"{record.process_index}"
                )
                found[code] = failed(code, message, expected=one_text, found=other_text, processes=processes)
    if not any(configs):
        for code in ("likeness.batch_size", "likeness.configuration"):
            yield not_checked(code, "no process states its configuration")
        return
    yield found.get("likeness.batch_size") or passed("likeness.batch_size")
    yield found.get("likeness.configuration") or _configuration_of_manifest(evidence)


def _configuration_of_manifest(evidence: Evidence) -> Finding:
    """Check that the configuration has the digest that the manifest recorded before the run."""
    code = "likeness.configuration"
    expected = evidence.manifest.config_digest if evidence.manifest is not None else None
    if expected is None:
        return passed(code)
    configs = [record.effective_config for record in evidence.records if record.effective_config]
    if any(config_digest(config) == expected for config in configs):
        return passed(code)
    reason = f"no process has the configuration digest of the manifest, {expected}"
    return not_checked(code, reason, expected=expected, found=config_digest(configs[0]))


def _differences(
    one: dict[str, Any], other: dict[str, Any], prefix: str = "", depth: int = _MAX_DEPTH
) -> Iterator[tuple[str, object, object]]:
    """Yield path and both values of each difference between two configurations, without per-process settings."""
    for name in sorted({*one, *other} - PER_PROCESS_SETTINGS):
        values = one.get(name), other.get(name)
        if values[0] == values[1]:
            continue
        if depth and isinstance(values[0], dict) and isinstance(values[1], dict):
            yield from _differences(values[0], values[1], f"{prefix}{name}.", depth - 1)
        else:
            yield f"{prefix}{name}", *values

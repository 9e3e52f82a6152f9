"""Import JSON results of benchmarks. A `Benchmark` describes the files of one benchmark and their fields.

A benchmark client measures tokens, throughput and latencies. For a result without energy, the caller can pass an energy
record of the same time. If no energy is found, the report lists the fields whose names suggest an energy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from llm_energy_measure.domain.experiment import ImportOrigin, RawProcessResult, Status
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, Provenance, Scope, Timestamps
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import at_path
from llm_energy_measure.importers.mapping import FIELDS, Expression, parse_mappings
from llm_energy_measure.importers.record_parts import (
    component,
    imported_record,
    inference_metrics,
    latency_samples,
    timestamps_before,
)
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import (
    as_integer,
    as_number,
    as_text,
    digest,
    identifier,
    parse_local_time,
    parse_time,
)

Document = dict[str, Any]
Documents = Iterator[Document | RefusedInputError]

_ENERGY = re.compile(r"energy|joule|power|watt|(?:^|[._])k?wh?(?:$|[._])", re.IGNORECASE)
MAX_LEVELS = 50
"""Greatest nesting depth of a field. The record that contains the field may have `MAX_RECORD_DEPTH` levels."""
_COMPONENTS = ("total", "gpu", "cpu", "ram")


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one benchmark: how they are recognised, and which fields they have.

    Attributes:
        name: Name of the format and of the tool.
        looks_for: Text in messages: what identifies a file.
        covers: Scope and provenance of the energies, for the documentation.
        unknown: Fields that the files do not state, for the documentation.
        needs: Top-level fields of each document.
        mapping: `FIELD=EXPRESSION` for fields of a record, as for `import --map`.
        end_pattern: `strptime` pattern of start and end; None if they are in ISO 8601.
        scope: Scope of the energy of the GPUs and of the total.
        other_scope: Scope of the energy of CPU and memory.
        provenance: Provenance of the energies; None if the files do not state it.
        dropped: Fields that are not stored in the configuration: values of each request, and texts (personal data).
        recognises: Returns whether a file has this format. By default, the first document needs the fields `needs`.
        documents: Returns the documents of a file; by default its JSON objects.
        energy: Returns an energy that `mapping` cannot compute; None if the document has no such energy.
        host: Returns the name of the host.
        status: Returns the status of the run, and adds notes about problems of the run.
    """

    name: str
    looks_for: str
    covers: str
    unknown: str
    needs: frozenset[str]
    mapping: tuple[str, ...]
    end_pattern: str | None = None
    scope: Scope | None = "device"
    other_scope: Scope | None = None
    provenance: Provenance | None = None
    dropped: frozenset[str] = frozenset()
    recognises: Callable[[ImportSource], bool] | None = None
    documents: Callable[[ImportSource], Documents] = ImportSource.objects
    energy: Callable[[Document, Notes], EnergyMetrics | None] | None = None
    host: Callable[[Document], str | None] | None = None
    status: Callable[[Document, Notes], Status | None] | None = None

    def format(self) -> Format:
        """Return the format that reads the files of this benchmark."""
        recognises = self.recognises or (lambda source: set(source.first_fields) >= self.needs)
        return Format(
            name=self.name,
            looks_for=self.looks_for,
            recognises=recognises,
            read=functools.partial(_read, self),
            covers=self.covers,
            unknown=self.unknown,
        )


class _Row(Mapping[str, str | float | None]):
    """A document as a row of cells for an expression: top-level fields by name, nested values by `{path}`."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def __getitem__(self, column: str) -> str | float | None:
        name = column[1:-1] if column.startswith("{") else column
        value = at_path(self._document, name) if column.startswith("{") else self._document.get(name)
        return value if isinstance(value, str) else as_number(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)


@functools.cache
def _expressions(mapping: tuple[str, ...]) -> dict[str, Expression]:
    return parse_mappings(mapping)


def _read(
    benchmark: Benchmark, sources: list[ImportSource], options: Options, report: ImportReport
) -> Iterator[RawProcessResult]:
    """Yield one record for each document. The row in the report is the number of the document, counted from 1."""
    [source] = sources
    for row, document in enumerate(benchmark.documents(source), start=1):
        with report.refusing(source.path, row=row, prefix=f"object {row}: "):
            if isinstance(document, RefusedInputError):
                raise document
            if missing := sorted(benchmark.needs - set(document)):
                raise RefusedInputError("missing_field", f"it has no field {', '.join(missing)}")
            if deep := next((name for name, value in document.items() if not is_within(value, MAX_LEVELS)), None):
                raise RefusedInputError("impossible_value", f"{deep[:40]} is nested more than {MAX_LEVELS} levels deep")
            notes = Notes()
            values = _values(benchmark, document)
            record = _record(benchmark, document, values, notes, source.origin(benchmark.name, _version(document), row))
            _note_tokens(record, values, notes)
            source.note_undecodable(record, notes)
            unread = _unread_energies(document) if record.energy_metrics.total_energy_j is None else []
            if unread and not notes.warnings:
                names = ", ".join(unread[:10]) + (f" and {len(unread) - 10} more" if len(unread) > 10 else "")
                found = f"the fields {names} can contain an energy, but their meaning is unknown"
                notes.add("energy_not_understood", f"{found}; please report the file")
            yield report.record(source.path, options.energy.joined(record, notes), notes, row=row)


def _record(
    benchmark: Benchmark, document: Document, values: Mapping[str, Any], notes: Notes, origin: ImportOrigin
) -> RawProcessResult:
    """Return the record of one run."""
    status = benchmark.status(document, notes) if benchmark.status is not None else None
    energy = benchmark.energy(document, notes) if benchmark.energy is not None else None
    config = {name: value for name, value in document.items() if name not in benchmark.dropped}
    label, model = values.get("config_name"), values.get("model_name")
    devices = (energy.devices if energy is not None else None) or []
    compute = values.get("compute_precision")
    return imported_record(
        identifier(benchmark.name, label or "", model or "", values.get("end") or "", digest(document)),
        backend=values.get("backend"),
        config_name=label,
        model_name=model,
        host=benchmark.host(document) if benchmark.host is not None else None,
        gpu_id=devices[0].gpu_id if len(devices) == 1 else None,
        gpu_uuid=devices[0].gpu_uuid if len(devices) == 1 else None,
        gpu_name=values.get("gpu_name"),
        energy_measurement_warning=notes.warning,
        timestamps=_timestamps(benchmark, values),
        inference_metrics=None if status == "failed" else _inference(values, document),
        energy_metrics=energy or _energy(benchmark, values),
        compute_metrics=ComputeMetrics(flops_total=None, compute_precision=compute) if compute else None,
        effective_config={benchmark.name: config},
        origin=origin,
        status=status,
    )


def _version(document: Document) -> str | None:
    """Return the version of AIPerf, from its field `aiperf_version`; None if the file has no such field."""
    return as_text(document.get("aiperf_version"))


def _note_tokens(record: RawProcessResult, values: Mapping[str, Any], notes: Notes) -> None:
    """Add a note if the file has token counts, but not both input and output tokens."""
    known = [name for name in ("input_tokens", "output_tokens", "total_tokens") if values.get(name) is not None]
    if known and record.inference_metrics is None and record.status != "failed":
        found = f"the file has only {' and '.join(known)}, but a record needs input and output tokens"
        found += ", so the token counts are null; the configuration of the record contains the values of the file"
        notes.add("tokens_incomplete", found)


def _values(benchmark: Benchmark, document: Document) -> dict[str, Any]:
    """Return the value of each mapped field; None if it is missing or has the wrong type.

    If the field is an integer and the expression has several columns, the result is rounded.
    """
    row, values = _Row(document), dict[str, Any]()
    for field, expression in _expressions(benchmark.mapping).items():
        try:
            value = expression.value(row)
        except ValueError:
            value = None
        kind = FIELDS[field]
        if kind in ("number", "whole"):
            value = as_number(value)
            if kind == "whole" and value is not None:
                value = as_integer(round(value) if len(expression.columns) > 1 else value)
        else:
            value = as_text(value)
        values[field] = value
    return values


def _timestamps(benchmark: Benchmark, values: Mapping[str, Any]) -> Timestamps:
    """Return start, end and duration of the inference. A missing start is the end minus the duration."""
    duration_sec = values.get("inference_time_sec")
    end = _time(values.get("end"), benchmark.end_pattern)
    start = _time(values.get("start"), benchmark.end_pattern)
    if start is not None:
        has_order = end is not None and (end.tzinfo is None) == (start.tzinfo is None) and end >= start
        return Timestamps(start=start, end=end if has_order else None, duration_sec=duration_sec)
    return timestamps_before(end, duration_sec)


def _time(value: object, pattern: str | None) -> datetime | None:
    if pattern is not None:
        return parse_local_time(value, pattern)
    return parse_time(value) if isinstance(value, str) else None


def _inference(values: Mapping[str, Any], document: Document) -> Any:
    """Return the inference metrics; None unless input and output tokens are known."""
    input_tokens, output_tokens = values.get("input_tokens"), values.get("output_tokens")
    total_tokens = values.get("total_tokens")
    if input_tokens is None and total_tokens is not None and output_tokens is not None:
        input_tokens = total_tokens - output_tokens if total_tokens >= output_tokens else None
    return inference_metrics(
        input_tokens,
        output_tokens,
        inference_time_sec=values.get("inference_time_sec"),
        tokens_per_second=values.get("tokens_per_second"),
        time_to_first_token_ms=values.get("time_to_first_token_ms"),
        latency_measurements=latency_samples(
            document.get("ttfts"), document.get("itls"), as_integer(document.get("completed"))
        ),
    )


def _energy(benchmark: Benchmark, values: Mapping[str, Any]) -> EnergyMetrics:
    """Return the energies of the mapped fields; all are None if the document has no energy."""
    joules = {name: values.get("energy_j" if name == "total" else f"{name}_energy_j") for name in _COMPONENTS}
    if all(value is None for value in joules.values()):
        return EnergyMetrics(total_energy_j=None, duration_sec=None)
    parts: dict[str, Any] = {}
    for name, value in joules.items():
        scope = benchmark.scope if name in ("total", "gpu") else benchmark.other_scope
        parts |= component(name, value, scope, benchmark.provenance)
    return EnergyMetrics(
        **parts,
        duration_sec=values.get("duration_sec"),
        gpu_power_w=values.get("gpu_power_w"),
        cpu_power_w=values.get("cpu_power_w"),
    )


def is_within(value: object, levels: int) -> bool:
    """Return True if lists and objects are nested at most `levels` levels deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(is_within(one, levels - 1) for one in inner if isinstance(one, dict | list))


def _unread_energies(document: Document, prefix: str = "") -> list[str]:
    """Return the dotted names of the fields, also in nested objects, that have a value and a name such as `energy`."""
    found = []
    for name, value in document.items():
        if isinstance(value, dict):
            found += _unread_energies(value, f"{prefix}{name}.")
        elif value is not None and _ENERGY.search(f"{prefix}{name}"):
            found.append(f"{prefix}{name}")
    return found

"""Import results of `vllm bench serve`: one JSON object, or several appended to one file.

A client measures tokens, throughput and latencies, but no energy. The energy can come from a record of the same time,
if the caller passes one. `date` is the end of the run in local time, without a zone. If no request succeeded, the run
has the status failed, and not a throughput of 0.

Source: vLLM, `vllm bench serve --save-result [--save-detailed] [--append-result]`, versions of 2025-03 to 0.25.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.metrics import EnergyMetrics
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import (
    client_metrics,
    component,
    imported_record,
    latency_samples,
    timestamps_before,
)
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.values import as_integer, as_number, as_text, digest, identifier, parse_local_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.importers.source_file import ImportSource

TOOL = "vllm"

_FIELDS = {"date", "model_id", "tokenizer_id", "num_prompts", "request_rate"}
_PER_REQUEST = frozenset(("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"))
"""Fields with a value for each request. The record keeps the latencies; the texts are personal data."""


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each object; `row` is the number of the object."""
    [source] = sources
    for row, document in enumerate(source.objects(), start=1):
        with report.refusing(source.path, row=row, prefix=f"object {row}: "):
            if isinstance(document, RefusedInputError):
                raise document
            if missing := sorted(_FIELDS - set(document)):
                raise RefusedInputError("missing_field", f"it has no field {', '.join(missing)}")
            notes = Notes()
            record = _record(document, source, row, notes)
            source.note_undecodable(record, notes)
            yield report.record(source.path, options.energy.joined(record, notes), notes, row=row)


def _record(document: dict[str, Any], source: ImportSource, row: int, notes: Notes) -> RawProcessResult:
    """Return the record of one run, without energy unless the server counted it."""
    completed, failed = as_integer(document.get("completed")), as_integer(document.get("failed"))
    has_failed = completed == 0
    if has_failed:
        notes.add("run_failed", f"none of {failed or document.get('num_prompts')} requests succeeded")
    latency = latency_samples(document.get("ttfts"), document.get("itls"), completed)
    label, model, date = as_text(document.get("label")), as_text(document["model_id"]), str(document["date"])
    end = parse_local_time(date, "%Y%m%d-%H%M%S")  # such as 20260816-160853
    return imported_record(
        identifier(TOOL, label or "", model or "", date, digest(document)),
        backend=as_text(document.get("backend")),
        config_name=label,
        model_name=model,
        timestamps=timestamps_before(end, as_number(document.get("duration"))),
        inference_metrics=None if has_failed else client_metrics(document, latency),
        energy_metrics=_energy(document),
        effective_config={TOOL: {name: value for name, value in document.items() if name not in _PER_REQUEST}},
        origin=source.origin(TOOL, row=row),
        status="failed" if has_failed else None,
    )


def _energy(document: dict[str, Any]) -> EnergyMetrics:
    """Return the energy that the server counted; unknown in versions that do not write it."""
    joules = as_number(document.get("gpu_energy_j"))
    if joules is None:
        return EnergyMetrics(total_energy_j=None, duration_sec=None)
    return EnergyMetrics(
        **component("total", joules, "device"),
        **component("gpu", joules, "device"),
        duration_sec=as_number(document.get("gpu_energy_duration_s")),
        gpu_power_w=as_number(document.get("gpu_avg_power_w")),
    )


FORMAT = Format(
    name=TOOL,
    looks_for="JSON objects with date, model_id, tokenizer_id, num_prompts and request_rate",
    recognises=lambda source: set(source.first_fields) >= _FIELDS,
    read=_read,
)

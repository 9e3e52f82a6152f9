"""Import results of `vllm bench serve` and of TensorRT-LLM: one JSON object, or several appended to one file.

A client measures tokens, throughput and latencies. Servers of some versions add the energy of their GPUs. Otherwise,
the energy can come from a record of the same time, if the caller passes one. `date` is the end of the run in local
time, without a zone. If no request succeeded, the run has the status failed, and not a throughput of 0.

Source: vLLM, `vllm bench serve --save-result [--save-detailed] [--append-result]`, versions of 2025-03 to 0.25.1;
TensorRT-LLM, `benchmark_serving`, whose server writes `energy` if `enable_energy_metrics` is set (pull request 11855).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.record_parts import (
    client_metrics,
    component,
    imported_record,
    latency_samples,
    timestamps_before,
)
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_integer, as_number, as_text, digest, identifier, parse_local_time

TOOL = "vllm"
TENSORRT_LLM = "trtllm"

_FIELDS = {"date", "model_id", "tokenizer_id", "num_prompts", "request_rate"}
_TENSORRT_LLM_FIELD = "request_goodput:"
"""A field that only TensorRT-LLM writes. The colon is part of its name."""
_ENERGY = re.compile(r"energy|joule|power|watt|(?:^|[._])k?wh?(?:$|[._])", re.IGNORECASE)
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
            unread = _unread_energies(document) if record.energy_metrics.total_energy_j is None else []
            if unread:
                found = f"the fields {', '.join(unread)} can contain an energy, but their meaning is unknown"
                notes.add("energy_not_understood", f"{found}; please report the file")
            yield report.record(source.path, options.energy.joined(record, notes), notes, row=row)


def _record(document: dict[str, Any], source: ImportSource, row: int, notes: Notes) -> RawProcessResult:
    """Return the record of one run, without energy unless the server counted it."""
    tool = TENSORRT_LLM if _TENSORRT_LLM_FIELD in document else TOOL
    completed, failed = as_integer(document.get("completed")), as_integer(document.get("failed"))
    has_failed = completed == 0
    if has_failed:
        notes.add("run_failed", f"none of {failed or document.get('num_prompts')} requests succeeded")
    latency = latency_samples(document.get("ttfts"), document.get("itls"), completed)
    label, model, date = as_text(document.get("label")), as_text(document["model_id"]), str(document["date"])
    end = parse_local_time(date, "%Y%m%d-%H%M%S")  # such as 20260816-160853
    return imported_record(
        identifier(tool, label or "", model or "", date, digest(document)),
        backend=as_text(document.get("backend")),
        config_name=label,
        model_name=model,
        timestamps=timestamps_before(end, as_number(document.get("duration"))),
        inference_metrics=None if has_failed else client_metrics(document, latency),
        energy_metrics=_energy(document),
        effective_config={tool: {name: value for name, value in document.items() if name not in _PER_REQUEST}},
        origin=source.origin(tool, row=row),
        status="failed" if has_failed else None,
    )


def _energy(document: dict[str, Any]) -> EnergyMetrics:
    """Return the energy that the server counted; unknown in versions that do not write it."""
    joules = as_number(document.get("gpu_energy_j"))
    duration_sec = as_number(document.get("gpu_energy_duration_s"))
    power_w = as_number(document.get("gpu_avg_power_w"))
    if joules is None:
        energy = as_object(document.get("energy"))
        joules, power_w = as_number(energy.get("total_energy_j")), as_number(energy.get("total_gpu_power_w"))
        # The window of the counters is not that of the client.
        duration_sec = joules / power_w if joules is not None and power_w else None
    if joules is None:
        return EnergyMetrics(total_energy_j=None, duration_sec=None)
    # TensorRT-LLM extrapolates from the GPUs of its own node to all nodes, and does not say whether it did.
    return EnergyMetrics(
        **component("total", joules, "device"),
        **component("gpu", joules, "device"),
        duration_sec=duration_sec,
        gpu_power_w=power_w,
    )


def _unread_energies(document: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the names of all fields, also nested ones, with an energy in their name and a value."""
    found = []
    for name, value in document.items():
        if isinstance(value, dict):
            found += _unread_energies(value, f"{prefix}{name}.")
        elif value is not None and _ENERGY.search(f"{prefix}{name}"):
            found.append(f"{prefix}{name}")
    return found


FORMAT = Format(
    name=TOOL,
    looks_for="JSON objects with date, model_id, tokenizer_id, num_prompts and request_rate",
    recognises=lambda source: set(source.first_fields) >= _FIELDS,
    read=_read,
)

"""Results of `vllm bench serve`, one JSON object or several appended to each other, of old and new shapes.

They tell what a client saw: tokens, throughput and latencies, and no energy. `date` is the local end, without a zone. A
run of which no request succeeded is a failed one, and no throughput of 0. Energy comes from a record of the same time,
where the caller has one.

Source: vLLM, `vllm bench serve --save-result [--save-detailed] [--append-result]`, versions of 2025-03 to 0.25.1.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import EnergyMetrics, Timestamps
from llm_energy_measure.importers.cells import identifier, number, shifted, text, whole
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.work import client_work, latency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.latency import LatencyMeasurements
    from llm_energy_measure.importers.bounded import Original

TOOL = "vllm"

_FIELDS = {"date", "model_id", "tokenizer_id", "num_prompts", "request_rate"}
# One value a request: samples of latency, which have a place of their own, and texts, which are nobody's business.
_DETAILS = frozenset(("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"))


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each object; `row` counts them."""
    [original] = originals
    for row, document in enumerate(original.objects(), start=1):
        if isinstance(document, RefusedFileError):
            report.refuse(original.shown, document.code, f"object {row}: {document.sentence}", row=row)
            continue
        if not set(document) >= _FIELDS:
            lost = ", ".join(sorted(_FIELDS - set(document)))
            report.refuse(original.shown, "missing_field", f"object {row} has no {lost}", row=row)
            continue
        remarks = Remarks()
        try:
            record = _record(document, original, row, remarks)
        except RefusedFileError as refused:
            report.refuse(original.shown, refused.code, refused.sentence, row=row)
            continue
        if original.is_replaced_in(record):
            remarks.repair("undecodable_text", "bytes in it that are no UTF-8 were replaced")
        yield report.record(original.shown, options.energy.joined(record, remarks), remarks, row=row)


def _record(document: dict[str, Any], original: Original, row: int, remarks: Remarks) -> RawProcessResult:
    """The record of one run, without energy unless it has its own."""
    duration = number(document.get("duration"))
    end = _end(document["date"])
    start = None if end is None or duration is None else shifted(end, -duration)
    if start is None and end is not None and duration is not None:
        found = f"duration is {duration!r}, and there is no time so long before {document['date']}"
        raise RefusedFileError("impossible_value", found)
    completed, failed = whole(document.get("completed")), whole(document.get("failed"))
    has_failed = completed == 0
    if has_failed:
        remarks.note("run_failed", f"none of {failed or document.get('num_prompts')} requests succeeded")
    digest = hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()[:8]
    label, model = text(document.get("label")), text(document["model_id"])
    config = {name: value for name, value in document.items() if name not in _DETAILS}
    return RawProcessResult(
        experiment_id=identifier(TOOL, label or "", model or "", str(document["date"]), digest),
        backend=text(document.get("backend")),
        process_index=0,
        gpu_id=None,
        config_name=label,
        model_name=model,
        timestamps=Timestamps(start=start, end=end, duration_sec=duration),
        inference_metrics=None if has_failed else client_work(document, _latency(document)),
        energy_metrics=_energy(document),
        compute_metrics=None,
        effective_config={TOOL: config},
        origin=original.origin(TOOL, row=row),
        status="failed" if has_failed else None,
    )


def _end(date: object) -> datetime | None:
    """The local end, such as `20260816-160853`."""
    try:
        return datetime.strptime(str(date), "%Y%m%d-%H%M%S")  # noqa: DTZ007 - the file has no zone
    except ValueError:
        return None


def _latency(document: dict[str, Any]) -> LatencyMeasurements | None:
    return latency(document.get("ttfts"), document.get("itls"), whole(document.get("completed")))


def _energy(document: dict[str, Any]) -> EnergyMetrics:
    """Energy that the server counted, where a version writes it; else null."""
    joules = number(document.get("gpu_energy_j"))
    if joules is None:
        return EnergyMetrics(total_energy_j=None, duration_sec=None)
    return EnergyMetrics(
        total_energy_j=joules,
        duration_sec=number(document.get("gpu_energy_duration_s")),
        gpu_energy_j=joules,
        gpu_power_w=number(document.get("gpu_avg_power_w")),
        total_scope="device",
        gpu_scope="device",
    )


FORMAT = Format(
    name=TOOL,
    looks_for="JSON objects with date, model_id, tokenizer_id, num_prompts and request_rate",
    recognises=lambda original: set(original.first_fields) >= _FIELDS,
    read=_read,
)

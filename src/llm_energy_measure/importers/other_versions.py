"""Import results of other versions of this format: records of schema 1.x, and `result.json` of llenergymeasure.

A record of schema 1.x is imported if it has the fields of schema 2.0.0; unknown fields are kept. The file `result.json`
has the totals of an experiment, and no raw results. Its energy is the energy of the GPUs. The schemas "2.0" and "3.0"
of this file are not the schemas 2.0.0 and 3.0.0 of records.

Source: llenergymeasure after schema 2.0.0, `result.json` of the schemas "2.0" and "3.0".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import DeviceEnergy, EnergyMetrics
from llm_energy_measure.domain.schema import timestamp_problems
from llm_energy_measure.domain.unknown_fields import split_unknown
from llm_energy_measure.importers.benchmark import MAX_LEVELS, Benchmark, Document, is_within
from llm_energy_measure.importers.description import is_first_major
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.record_parts import component
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import as_number

TOOL = "older-record"

_RECORD_FIELDS = {"schema_version", "experiment_id", "process_index", "energy_metrics"}
_MODEL = re.compile(r"(.+)_[0-9]{8}_[0-9]{6}")
"""Experiment id in `result.json`: the model, the date and the time."""


def _recognises(source: ImportSource) -> bool:
    return set(source.fields) >= _RECORD_FIELDS and is_first_major(source)


def _read(sources: list[ImportSource], _options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield the record of one process."""
    [source] = sources
    document = source.json()
    version = str(document["schema_version"])
    known, unknown = split_unknown({**document, "schema_version": SCHEMA_VERSION, "origin": None}, RawProcessResult)
    unknown |= split_unknown({"origin": document.get("origin")}, RawProcessResult)[1]
    defaults = dict.fromkeys(("gpu_id", "config_name", "model_name", "inference_metrics", "compute_metrics"))
    try:
        record = msgspec.convert({**defaults, **known}, RawProcessResult)
    except msgspec.ValidationError as error:
        found = f"it has schema {version}, but not the fields of {SCHEMA_VERSION}: {error}"
        raise RefusedInputError("missing_field", found) from error
    if problems := timestamp_problems(record):
        raise RefusedInputError("impossible_value", "; ".join(problems))
    if not is_within(document, MAX_LEVELS):
        raise RefusedInputError("impossible_value", f"it is nested more than {MAX_LEVELS} levels deep")
    notes = Notes()
    notes.repair("other_layout", f"the record has schema {version}, and its fields are those of {SCHEMA_VERSION}")
    origin = source.origin("llm-energy-measure", version)
    record = msgspec.structs.replace(record, origin=origin, unknown_fields=unknown or msgspec.UNSET)
    yield report.record(source.path, record, notes)


OLDER_RECORD = Format(
    name=TOOL,
    looks_for="a raw result with a schema_version of 1.x",
    recognises=_recognises,
    read=_read,
    covers="as recorded",
    unknown="nothing",
)


def _result_documents(source: ImportSource) -> Iterator[Document | RefusedInputError]:
    """Yield the document with the field `model` from the experiment id. A missing `engine` is copied from `backend`."""
    document = source.json()
    match = _MODEL.fullmatch(str(document.get("experiment_id")))
    yield {"model": match[1] if match else None, **document, "engine": document.get("engine", document.get("backend"))}


def _result_energy(document: Document, _notes: Notes) -> EnergyMetrics | None:
    """Return the energy of the GPUs; None if the total is 0 or missing. The file states no provenance of the energy."""
    total_j = as_number(document.get("total_energy_j")) or None
    if total_j is None:
        return None
    stated = document.get("energy_per_device_j")
    devices = [DeviceEnergy(energy_j=as_number(value)) for value in stated] if isinstance(stated, list) else None
    parts: dict[str, Any] = {**component("total", total_j, "device"), **component("gpu", total_j, "device")}
    return EnergyMetrics(**parts, duration_sec=as_number(document.get("total_inference_time_sec")), devices=devices)


RESULT_JSON = Benchmark(
    name="llenergymeasure",
    looks_for="result.json with schema_version, experiment_id and measurement_config_hash",
    covers="device: the GPUs, measured or integrated",
    unknown="host, which GPUs; tokens, if the file has no energy per token",
    needs=frozenset(("schema_version", "experiment_id", "measurement_config_hash")),
    mapping=(
        "model_name=model",
        "backend=engine",
        "start=start_time",
        "end=end_time",
        "total_tokens=total_tokens",
        "output_tokens=total_energy_j/avg_energy_per_token_j",  # the tool divides by the output tokens
        "inference_time_sec=total_inference_time_sec",
        "tokens_per_second=avg_tokens_per_second",
    ),
    dropped=frozenset(("process_results",)),
    documents=_result_documents,
    energy=_result_energy,
)

"""List all formats, find formats by name, and build the error for a file of unknown format."""

from __future__ import annotations

from collections.abc import Sequence

from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers import (
    codecarbon,
    energibridge,
    legacy,
    ml_energy,
    optimum_benchmark,
    perun,
    power_log,
    run_table,
    table,
    zeus,
)
from llm_energy_measure.importers.aiperf import AIPERF
from llm_energy_measure.importers.benchmark_formats import (
    INFERENCEX,
    SGLANG,
    TENSORRT_LLM,
    TOKEN_POWER_BENCH,
    VLLM,
    VLLM_LATENCY,
    VLLM_THROUGHPUT,
)
from llm_energy_measure.importers.description import describe, json_error_line
from llm_energy_measure.importers.format import Format
from llm_energy_measure.importers.other_versions import OLDER_RECORD, RESULT_JSON
from llm_energy_measure.importers.source_file import ImportSource

FORMATS: tuple[Format, ...] = (
    legacy.FORMAT,
    OLDER_RECORD,
    RESULT_JSON.format(),
    codecarbon.FORMAT,
    optimum_benchmark.FORMAT,
    ml_energy.FORMAT,
    TENSORRT_LLM.format(),
    VLLM.format(),
    VLLM_THROUGHPUT.format(),
    VLLM_LATENCY.format(),
    SGLANG.format(),
    AIPERF.format(),
    INFERENCEX.format(),
    TOKEN_POWER_BENCH.format(),
    perun.FORMAT,
    zeus.FORMAT,
    run_table.FORMAT,
    energibridge.FORMAT,
    power_log.FORMAT,
    table.FORMAT,
)
"""All formats, in the order in which they are tried."""


def format_names() -> list[str]:
    """Return the names of all formats, in the order in which they are tried."""
    return [form.name for form in FORMATS]


def formats_named(name: str) -> tuple[Format, ...]:
    """Return the format with this name, or all formats for `auto`.

    Raises:
        ImportFormatError: There is no format with this name.
    """
    found = tuple(form for form in FORMATS if name in (form.name, "auto"))
    if not found:
        advice = f"use one of auto, {', '.join(format_names())}"
        error = ImportFormatError("cannot import", f"unknown format {name!r}", advice)
        error.tool = name
        raise error
    return found


def unknown_format(source: ImportSource, formats: Sequence[Format]) -> ImportFormatError:
    """Return the error for a file that no format recognises: what it contains, and which formats were tried."""
    found = f"found {describe(source)}"
    if not source.is_our_own and len(formats) == 1:
        found += f"; {formats[0].name} needs {formats[0].looks_for}"
    elif not source.is_our_own:
        names = (f"{form.name} (needs --map)" if form.needs_mapping else form.name for form in formats)
        found += f"; it has none of the formats {', '.join(names)}"
    advice = "pass --map FIELD=EXPRESSION to import a table with other columns, or write an importer for the format"
    error = ImportFormatError(f"cannot import {source.path}", found, advice)
    error.file, error.line = source.path, json_error_line(source)
    error.tool = formats[0].name if len(formats) == 1 else None
    return error

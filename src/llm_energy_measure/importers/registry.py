"""The formats by name, and which of them a file is of: told from its content, never from its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ImportFormatError
from llm_energy_measure.importers import (
    codecarbon,
    legacy,
    ml_energy,
    optimum_benchmark,
    perun,
    table,
    vllm,
    zeus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_energy_measure.importers.bounded import Original
    from llm_energy_measure.importers.format import Format

FORMATS: tuple[Format, ...] = (
    legacy.FORMAT,
    codecarbon.FORMAT,
    optimum_benchmark.FORMAT,
    ml_energy.FORMAT,
    vllm.FORMAT,
    perun.FORMAT,
    zeus.FORMAT,
    table.FORMAT,
)
"""All formats, in the order in which they are tried."""


def format_names() -> list[str]:
    """Names of all formats, in the order in which they are tried."""
    return [form.name for form in FORMATS]


def formats_named(name: str) -> tuple[Format, ...]:
    """The format of that name; all of them for `auto`.

    Raises:
        ImportFormatError: There is none.
    """
    found = tuple(form for form in FORMATS if name in (form.name, "auto"))
    if not found:
        problem = f"there is no format {name!r}"
        error = ImportFormatError("cannot import", problem, f"choose one of auto, {', '.join(format_names())}")
        error.tool = name
        raise error
    return found


def recognise(original: Original, among: Iterable[Format]) -> Format | None:
    """The format of a file, or None if no one knows it."""
    return next((form for form in among if form.recognises(original)), None)


def unknown(original: Original, among: Sequence[Format]) -> ImportFormatError:
    """What was found in a file that no format recognises, and what was looked for."""
    found = f"found {original.found()}"
    if not original.is_our_own:
        found += "; looked for " + "; ".join(f"{form.name}: {form.looks_for}" for form in among)
    advice = "a table of other columns needs a mapping of them, anything else an importer of its own"
    error = ImportFormatError(f"cannot import {original.shown}", found, advice)
    error.file, error.line = original.path, original.torn_at
    error.tool = among[0].name if len(among) == 1 else None
    return error

"""The formats by name, and which of them a file is of: told from its content, never from its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ConfigurationError
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
    from collections.abc import Iterable

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
        ConfigurationError: There is none.
    """
    found = tuple(form for form in FORMATS if name in (form.name, "auto"))
    if not found:
        problem = f"there is no format {name!r}"
        raise ConfigurationError("cannot import", problem, f"choose one of auto, {', '.join(format_names())}")
    return found


def recognise(original: Original, among: Iterable[Format]) -> Format | None:
    """The format of a file, or None if no one knows it."""
    return next((form for form in among if form.recognises(original)), None)


def unknown(original: Original, among: Iterable[Format]) -> str:
    """What was looked for in a file and what was found, in a sentence."""
    wanted = "; ".join(f"{form.name}: {form.looks_for}" for form in among)
    return f"found {original.found()}; looked for {wanted}"

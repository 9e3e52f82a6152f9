"""The text of statistics over repeats: cells, notes, and the table for documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llm_energy_measure.analysis.energies import CORRECTED, CORRECTED_NOTE, EnergyKind
from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.analysis.repeats import RepeatGroup, Repeats
from llm_energy_measure.domain import formatting

if TYPE_CHECKING:
    from llm_energy_measure.analysis.documents import Document

_MAX_LEFT_OUT = 10

# These facts are too long for a note. The JSON output has them.
_LONG_FACTS = frozenset({"libraries", "method"})
_INTERVAL = "±: half of the t-based 95 % interval of the mean"


def scales(repeats: Repeats, unit: str | None = None) -> dict[str, tuple[float, str]]:
    """Return divisor and unit of each metric, so that a column has one unit. `unit` is the unit of energies."""
    return {
        metric: formatting.scale(
            [mean for group in repeats.groups if (mean := group.statistics[metric].mean) is not None], own, unit
        )
        for metric, own in repeats.units.items()
    }


def means(group: RepeatGroup, scale_of: dict[str, tuple[float, str]]) -> Iterator[str]:
    """Yield a cell for each metric: sign of a corrected energy, mean, interval, and n if some runs have no value."""
    for metric, found in group.statistics.items():
        text = formatting.mean_with_interval(found.mean, found.half_width, scale_of[metric][0])
        is_corrected = bool(group.corrected) and METRICS[metric].uses_energy and found.mean is not None
        count = f" (n={found.n})" if 0 < found.n < len(group.experiment_ids) else ""
        yield f"{CORRECTED if is_corrected else ''} {text}{count}".lstrip()


def notes(repeats: Repeats, kind: EnergyKind, *, with_cv: bool = False) -> Iterator[str]:
    """Yield notes: what the signs mean, the facts that all runs share, the ignored keys, and the runs left out."""
    if repeats.groups:
        yield _INTERVAL + ("; CV: standard deviation divided by mean" if with_cv else "")
    if kind == "plain":
        yield "energies are plain sums over processes"
    elif any(group.corrected for group in repeats.groups):
        yield f"{CORRECTED_NOTE}; --energy plain shows the plain sums"
    if repeats.common and repeats.groups:
        shown = (f"{name}={value}" for name, value in repeats.common.items() if name not in _LONG_FACTS)
        yield f"all runs: {', '.join(shown)}"
    if repeats.ignored:
        yield f"ignored keys that vary: {', '.join(repeats.ignored)}; --split-by KEY separates the runs by one"
    lines = list(left_out(repeats))
    yield from lines[:_MAX_LEFT_OUT]
    if len(lines) > _MAX_LEFT_OUT:
        yield f"left out: {len(lines) - _MAX_LEFT_OUT:,} more; --format json lists all"


def left_out(repeats: Repeats) -> Iterator[str]:
    """Yield a line for each run left out, with its reason."""
    for name, reason in repeats.left_out.items():
        yield f"left out: {name}: {reason}"


def document(repeats: Repeats, kind: EnergyKind, unit: str | None = None) -> Document:
    """Return the table for a document: one column for each key that separates the groups, and one for each metric."""
    # Other formats do not need this import.
    from llm_energy_measure.analysis.documents import Document

    scale_of = scales(repeats, unit)
    keys = repeats.separating
    figures = [f"{METRICS[metric].label} [{scale_of[metric][1]}]" for metric in repeats.units]
    headers = [*((key, "left") for key in keys.values()), *((title, "right") for title in ("n", *figures))]
    rows = [
        [
            *(formatting.config_value(group.differs[key]) for key in keys),
            str(len(group.experiment_ids)),
            *means(group, scale_of),
        ]
        for group in repeats.groups
    ]
    return Document(headers, rows, list(notes(repeats, kind)))

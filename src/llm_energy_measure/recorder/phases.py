"""Phases of a run: energy, time and tokens while each phase is open."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from msgspec import Struct, field

from llm_energy_measure.domain.metrics import Phase
from llm_energy_measure.recorder.sampler import ComponentEnergies
from llm_energy_measure.recorder.token_counter import TokenCounts

_OUTSIDE_INFERENCE = frozenset({"load", "warmup"})
"""Phases whose time is not inference time, unless tokens are counted in them."""

WARMUP = "warmup"
"""Phase whose requests are left out of the latencies."""


class Totals(NamedTuple):
    """Energies and tokens since the start of the run, at one instant of the monotonic clock in seconds."""

    instant: float
    energies: ComponentEnergies
    counts: TokenCounts


class PhaseTotals(Struct):
    """Totals of one phase over all its occurrences.

    Attributes:
        name: Name of the phase.
        depth: How many blocks of this phase are open now.
        entered: Totals of the run when the phase was last opened; None if it is closed.
        occurrences: How often the phase was entered.
        duration_sec: Time in the phase, in seconds.
        energies: Energy of each component, in joules; None if it is unknown for any occurrence.
        counts: Tokens.
        spans: Start and end of each occurrence on the monotonic clock, in seconds; only of `load` and `warmup`.
    """

    name: str
    depth: int = 0
    entered: Totals | None = None
    occurrences: int = 0
    duration_sec: float = 0.0
    energies: dict[str, float | None] = field(default_factory=dict)
    counts: TokenCounts = TokenCounts()
    spans: tuple[tuple[float, float], ...] = ()

    def closed_at(self, now: Totals) -> PhaseTotals:
        """Return the totals of this phase up to now. For an open phase, this is a copy that ends now."""
        if self.entered is None:
            return self
        closed = copy.copy(self)
        closed.entered = None
        closed.duration_sec += now.instant - self.entered.instant
        closed.counts = self.counts.plus_difference(now.counts, self.entered.counts)
        closed.energies = {}
        for component in ComponentEnergies.__struct_fields__:
            before, after = getattr(self.entered.energies, component), getattr(now.energies, component)
            earlier = self.energies.get(component, 0.0)
            is_known = None not in (before, after, earlier)
            closed.energies[component] = earlier + after - before if is_known else None
        if self.name in _OUTSIDE_INFERENCE:
            closed.spans = (*self.spans, (self.entered.instant, now.instant))
        return closed


class Phases:
    """The phases of one run.

    A phase is a span of time. All energy and all tokens of the process count in each phase that is open. Phases with
    different names may overlap. If a phase is entered again while it is open, for example by another thread, the phase
    stays open until the last block ends.

    Args:
        read_totals: Returns the totals of the run up to now.
    """

    def __init__(self, read_totals: Callable[[], Totals]) -> None:
        self._read_totals = read_totals
        self._lock = threading.RLock()
        self._phases: dict[str, PhaseTotals] = {}

    @contextmanager
    def open(self, name: str) -> Iterator[None]:
        """Return a context manager. The phase is open inside its block."""
        with self._lock:
            phase = self._phases.setdefault(name, PhaseTotals(name))
            phase.occurrences += 1
            phase.depth += 1
            if phase.entered is None:
                phase.entered = self._read_totals()
        try:
            yield
        finally:
            with self._lock:
                phase = self._phases[name]
                phase.depth -= 1
                if phase.depth == 0:
                    self._phases[name] = phase.closed_at(self._read_totals())

    def disable_in_child(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold the old lock."""
        self._lock = threading.RLock()

    def is_open(self, name: str) -> bool:
        """Return True while the phase is open."""
        phase = self._phases.get(name)
        return phase is not None and phase.entered is not None

    def totals(self, now: Totals) -> list[PhaseTotals]:
        """Return the totals of each phase up to now, in the order in which they were first entered."""
        with self._lock:
            return [phase.closed_at(now) for phase in self._phases.values()]


def outside_inference_sec(phases: list[PhaseTotals]) -> float:
    """Return the time in the phases `load` and `warmup` that have no tokens, in seconds. Overlaps count once."""
    total_sec, covered_to = 0.0, -math.inf
    for start, end in sorted(span for phase in phases if not sum(phase.counts) for span in phase.spans):
        total_sec += max(0.0, end - max(start, covered_to))
        covered_to = max(covered_to, end)
    return total_sec


def phase_records(phases: list[PhaseTotals], run: TokenCounts) -> list[Phase] | None:
    """Return the phases as a record contains them; None if there are none.

    Args:
        phases: The totals of each phase.
        run: Tokens of the whole run. If `run.output` is at least `run.streamed`, each phase uses its `output`, else its
            `streamed`. If the run has no tokens, the tokens of its phases are unknown.
    """
    return [
        Phase(
            name=phase.name,
            duration_sec=phase.duration_sec,
            occurrences=phase.occurrences,
            total_energy_j=phase.energies.get("total"),
            gpu_energy_j=phase.energies.get("gpu"),
            cpu_energy_j=phase.energies.get("cpu"),
            ram_energy_j=phase.energies.get("ram"),
            input_tokens=phase.counts.input if sum(run) else None,
            output_tokens=phase.counts.generated(run) if sum(run) else None,
        )
        for phase in phases
    ] or None

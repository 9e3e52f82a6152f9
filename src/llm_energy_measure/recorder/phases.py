"""Parts of a run: the energy, the time and the tokens between entering a phase and leaving it."""

from __future__ import annotations

import copy
import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from llm_energy_measure.domain.metrics import Phase
from llm_energy_measure.recorder.sampler import Energies
from llm_energy_measure.recorder.tally import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNPRODUCTIVE = frozenset({"load", "warmup"})
"""Phases that are no inference as long as no token is counted in them."""

WARMUP = "warmup"
"""Phase whose requests are left out of the latencies."""


class Reading(NamedTuple):
    """Everything that adds up during a run, at one instant of a monotonic clock."""

    instant: float
    energies: Energies
    counts: Counts


class Part:
    """One phase, over all the times it was entered.

    Attributes:
        occurrences: How often that was.
        duration_sec: Time in it, in seconds.
        energies: Energy of each component, in joules; None where it is unknown for any of those times.
        counts: Tokens.
        spans: From when to when it was entered, on the monotonic clock, in seconds; of `load` and `warmup` alone.
    """

    def __init__(self, name: str) -> None:
        """Begin with nothing."""
        self.name = name
        self.depth = 0
        self.entered: Reading | None = None
        self.occurrences = 0
        self.duration_sec = 0.0
        self.energies: dict[str, float | None] = {}
        self.counts = Counts()
        self.spans: tuple[tuple[float, float], ...] = ()

    def until(self, now: Reading) -> Part:
        """This phase as it is, up to an instant, if it is open."""
        if self.entered is None:
            return self
        ended = copy.copy(self)
        ended.entered = None
        ended.duration_sec += now.instant - self.entered.instant
        ended.counts = self.counts.plus(now.counts.less(self.entered.counts))
        ended.energies = {}
        for component in Energies.__struct_fields__:
            before, after = getattr(self.entered.energies, component), getattr(now.energies, component)
            earlier = self.energies.get(component, 0.0)
            is_known = None not in (before, after, earlier)
            ended.energies[component] = earlier + after - before if is_known else None
        if self.name in UNPRODUCTIVE:
            ended.spans = (*self.spans, (self.entered.instant, now.instant))
        return ended


class Phases:
    """The phases of one run.

    A phase is a span of time: to it belongs what the whole process used and counted while it was open. Phases of
    different names may overlap; one that is entered again while it is open, by another thread, say, goes on.

    Args:
        read: Reads everything that adds up, now.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        """Begin without phases."""
        self._read = read
        self._lock = threading.RLock()
        self._parts: dict[str, Part] = {}

    @contextmanager
    def open(self, name: str) -> Iterator[None]:
        """A block that belongs to the phase of that name."""
        with self._lock:
            part = self._parts.setdefault(name, Part(name))
            part.occurrences += 1
            part.depth += 1
            if part.entered is None:
                part.entered = self._read()
        try:
            yield
        finally:
            with self._lock:
                part = self._parts[name]
                part.depth -= 1
                if part.depth == 0:
                    self._parts[name] = part.until(self._read())

    def forget(self) -> None:
        """In a forked child: wait for no lock that a thread of the parent held."""
        self._lock = threading.RLock()

    def is_open(self, name: str) -> bool:
        """True while the phase of that name is open."""
        part = self._parts.get(name)
        return part is not None and part.entered is not None

    def parts(self, now: Reading) -> dict[str, Part]:
        """The phases up to now, by name, in the order in which they were first entered."""
        with self._lock:
            return {name: part.until(now) for name, part in self._parts.items()}


def unproductive_sec(parts: dict[str, Part]) -> float:
    """Time in phases that are no inference, in seconds; where they overlap, once."""
    total_sec, covered_to = 0.0, -math.inf
    for start, end in sorted(span for part in parts.values() if not sum(part.counts) for span in part.spans):
        total_sec += max(0.0, end - max(start, covered_to))
        covered_to = max(covered_to, end)
    return total_sec


def phase_records(parts: dict[str, Part], whole: Counts) -> list[Phase] | None:
    """The phases as a record has them; None if there were none.

    Args:
        parts: The phases, by name.
        whole: The tokens of the whole run. Where none were generated by count, those that requests saw stand for them;
            where there are none at all, nobody counted, and the phases' are unknown.
    """
    return [
        Phase(
            name=name,
            duration_sec=part.duration_sec,
            occurrences=part.occurrences,
            total_energy_j=part.energies.get("total"),
            gpu_energy_j=part.energies.get("gpu"),
            cpu_energy_j=part.energies.get("cpu"),
            ram_energy_j=part.energies.get("ram"),
            input_tokens=part.counts.input if sum(whole) else None,
            output_tokens=part.counts.generated(whole) if sum(whole) else None,
        )
        for name, part in parts.items()
    ] or None

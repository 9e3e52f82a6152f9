"""The physical world of a simulated experiment: sources of power, and the energy that sensors cover once.

A source is the smallest part of a machine whose energy a sensor can cover: what one process draws on one board, the
idle power of a board, a CPU, the memory. Sources are disjoint, so the energy of a set of sources is a plain sum.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

Span = tuple[float, float]
"""Start and end in seconds after the experiment's start."""

_STEPS = 24
"""Number of steps of a varying power over the whole experiment."""


class Power:
    """Power over time: constant within each step, zero outside all steps.

    Args:
        edges: Times at which the power changes, in seconds, ascending.
        watts: Power between each edge and the next one.
    """

    __slots__ = ("_edges", "_energies", "_watts")

    def __init__(self, edges: Sequence[float], watts: Sequence[float]) -> None:
        self._edges = list(edges)
        self._watts = list(watts)
        self._energies = [0.0]
        for (start, end), level in zip(pairwise(self._edges), self._watts, strict=True):
            self._energies.append(self._energies[-1] + (end - start) * level)

    def _until(self, time: float) -> float:
        if time <= self._edges[0]:
            return 0.0
        if time >= self._edges[-1]:
            return self._energies[-1]
        step = bisect_right(self._edges, time) - 1
        return self._energies[step] + (time - self._edges[step]) * self._watts[step]

    def energy_j(self, span: Span) -> float:
        """Energy within a span, in joules."""
        return self._until(span[1]) - self._until(span[0])

    @property
    def greatest_w(self) -> float:
        """Greatest power, in watts."""
        return max(self._watts)


def constant_power(span: Span, watts: float) -> Power:
    """One power over the whole span."""
    return Power(span, [watts])


def varying_power(
    rng: Random, span: Span, active: Iterable[Span], *, level_w: float, ripple: float, ceiling_w: float
) -> Power:
    """A power that varies around a level while its process runs, and is zero at other times.

    Args:
        rng: Source of the variation.
        span: The whole experiment.
        active: When the process runs.
        level_w: Mean power of the running process, in watts.
        ripple: Greatest relative deviation of a step from the level.
        ceiling_w: Power that no step exceeds, in watts.
    """
    runs = merged(active)
    step = (span[1] - span[0]) / _STEPS
    edges = sorted({span[0] + step * index for index in range(_STEPS + 1)} | {edge for run in runs for edge in run})
    watts = []
    for start, end in pairwise(edges):
        middle = (start + end) / 2
        is_active = any(run_start <= middle < run_end for run_start, run_end in runs)
        deviation = 1 + ripple * rng.uniform(-1, 1)
        watts.append(min(level_w * deviation, ceiling_w) if is_active else 0.0)
    return Power(edges, watts)


@dataclass(frozen=True, eq=False)
class Source:
    """A part of a machine with a power of its own. Sources are compared by identity.

    Attributes:
        name: What it is, for reports.
        power: Its power over time.
    """

    name: str
    power: Power


@dataclass(frozen=True, eq=False)
class Board:
    """A board, or a module with several dies.

    Attributes:
        index: Index on its host.
        uuid: Globally unique id.
        sources: Its idle power and what each process draws on it.
        share_of: The source of each process that uses the board, by rank.
    """

    index: int
    uuid: str
    sources: tuple[Source, ...]
    share_of: dict[int, Source]


@dataclass(frozen=True, eq=False)
class Host:
    """A machine.

    Attributes:
        name: Hostname.
        boot_id: Identity of its boot.
        boards: Its boards, by index.
        cpu: All of its CPUs.
        ram: Its memory.
        rest: Everything else: fans, disks, network.
        overhead: What the sensor of all its GPUs covers besides the boards.
        cpu_share_of: What each process draws on the CPUs, by rank, where the simulation divides the CPU.
    """

    name: str
    boot_id: str
    boards: tuple[Board, ...]
    cpu: tuple[Source, ...]
    ram: tuple[Source, ...]
    rest: tuple[Source, ...]
    overhead: tuple[Source, ...]
    cpu_share_of: dict[int, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Coverage:
    """What a reading covers: some sources over one window."""

    sources: tuple[Source, ...]
    window: Span

    @property
    def energy_j(self) -> float:
        """The true energy of the sources within the window, in joules."""
        return sum(source.power.energy_j(self.window) for source in self.sources)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The union of spans, as disjoint spans in order."""
    union: list[Span] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return union


def covered_energy_j(coverages: Iterable[Coverage]) -> float:
    """The true energy of all that any reading covers, each joule counted once, in joules."""
    windows: dict[Source, list[Span]] = {}
    for coverage in coverages:
        for source in coverage.sources:
            windows.setdefault(source, []).append(coverage.window)
    return sum(source.power.energy_j(span) for source, spans in windows.items() for span in merged(spans))

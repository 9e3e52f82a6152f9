"""The attributed energy of each host, the facts that determine this energy, and the facts that are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct, field

from llm_energy_measure.verification.grouping import processes_of
from llm_energy_measure.verification.hosts import Hosts
from llm_energy_measure.verification.ranges import ZERO, EnergyRange
from llm_energy_measure.verification.readings import Component, Reading

OVER_COUNT = 0.98
"""If the greatest possible energy is below this fraction of the plain sum, some energy is counted twice."""


class DoubleCount(Struct, frozen=True, kw_only=True):
    """Readings that are proven to contain the same joules.

    Attributes:
        code: Code of the finding.
        processes: Processes that read the same joules.
        plain_j: Sum of the readings, in joules.
        kept: Energy of the readings, with each joule counted once.
        names: Names of the GPUs, as far as known.
        limit_w: Greatest power that the boards can draw, in watts; None if the proof uses no power.
        found_w: Power that the readings imply together, in watts.
    """

    code: str
    processes: tuple[int, ...]
    plain_j: float
    kept: EnergyRange
    names: tuple[str, ...] = ()
    limit_w: float | None = None
    found_w: float | None = None


class HostEnergy(Struct, kw_only=True):
    """The energy of one host, the facts that determine this energy, and the facts that are missing.

    Attributes:
        total: Energy of the host.
        components: Energy of each component of the host that a process read.
        double_counts: Readings that contain the same joules.
        contradictions: Contradictions between readings: a sentence and the processes of each.
        open_scopes: Components that several processes read with an unknown scope.
        open_parts: Processes that read parts of boards, if no record identifies the boards.
        mixed_names: Processes that name their GPUs in different ways: by UUID, and by index only.
        open_windows: Processes whose windows don't show how much energy their readings have in common.
        near_limit: Power of the readings and limit of the boards, in watts. None unless the power is above the limit
            and sensor error can explain the excess.
        excessive_shares: Processes whose shares are more than their board can draw, with the power, the limit, and
            whether only an index identifies the board.
        module_j: Energy of CPUs and memory that the sensor of a module may have counted too, in joules.
        module_processes: Processes that read CPUs, memory or the module.
    """

    total: EnergyRange = ZERO
    components: dict[Component, EnergyRange] = field(default_factory=dict)
    double_counts: list[DoubleCount] = field(default_factory=list)
    contradictions: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    open_scopes: set[Component] = field(default_factory=set)
    open_parts: set[int] = field(default_factory=set)
    mixed_names: set[int] = field(default_factory=set)
    open_windows: set[int] = field(default_factory=set)
    near_limit: tuple[float, float] | None = None
    excessive_shares: list[tuple[tuple[int, ...], float, float, bool]] = field(default_factory=list)
    module_j: float = 0.0
    module_processes: set[int] = field(default_factory=set)

    def note_double(
        self,
        code: str,
        readings: Sequence[Reading],
        kept: EnergyRange,
        *,
        limit_w: float | None = None,
        found_w: float | None = None,
    ) -> None:
        """Add a `DoubleCount`, if `kept` proves that the readings contain the same joules."""
        plain_j = math.fsum(reading.energy_j for reading in readings)
        if kept.high_j < OVER_COUNT * plain_j:
            self.double_counts.append(
                DoubleCount(
                    code=code,
                    processes=processes_of(readings),
                    plain_j=plain_j,
                    kept=kept,
                    names=tuple(dict.fromkeys(str(reading.gpu) for reading in readings if reading.gpu is not None)),
                    limit_w=limit_w,
                    found_w=found_w,
                )
            )


class Explained(Struct, frozen=True):
    """The energy of an experiment under one division into hosts.

    Attributes:
        hosts: The division into hosts.
        total: Energy of the experiment.
        components: Energy of each component that was read.
        by_host: The energy of each host; None for hosts whose readings share no joule.
    """

    hosts: Hosts
    total: EnergyRange
    components: dict[Component, EnergyRange]
    by_host: list[HostEnergy | None]

    @property
    def is_possible(self) -> bool:
        """True if no readings of one host contradict each other."""
        return not any(host is not None and host.contradictions for host in self.by_host)

"""Attribution: how much energy an experiment used, if each joule is counted once.

1. Each process has readings: one for each GPU sensor, and one for each other component (`readings.py`).
2. The processes are divided into hosts. If the records don't show the hosts, several divisions are possible
   (`hosts.py`).
3. For each division and host, the readings have explanations: the hardware that they can cover. The explanations
   follow from the scopes, the identity of GPUs, the windows, and the power that the boards can draw
   (`explanations.py`, `overlap.py`).
4. The bounds are the least and the greatest energy of the explanations that no fact contradicts. A single energy is
   given if one explanation remains, or if all explanations agree.

The attributed energy is at most the plain sum. Attribution does not change the plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain

from msgspec import Struct, structs

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.experiment import AttributionStatus, RawProcessResult
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.verification.attribution_findings import Case, findings_of
from llm_energy_measure.verification.explanations import energies_alone, energy_of_host
from llm_energy_measure.verification.host_energy import OVER_COUNT, Explained, HostEnergy
from llm_energy_measure.verification.hosts import MAX_TRIED, Division, Hosts, division_of
from llm_energy_measure.verification.power import HostBoards, boards_of_host
from llm_energy_measure.verification.processes import Process, module_of, processes_of
from llm_energy_measure.verification.ranges import EnergyRange, added, either, exactly
from llm_energy_measure.verification.readings import COMPONENTS, Component, Reading, readings_of, separate_energies

__all__ = ["RULE", "Assumptions", "Attribution", "attribute", "attribution_of"]

RULE = "explanations@1"
"""Name and version of the attribution rule. Another version may give another energy."""

EXACT_WIDTH = 0.01
"""Greatest width of the bounds of an exact energy, as a fraction of the upper bound."""

LEAST_UNPROVEN = 0.9
"""If no over-count is proven, an energy below this fraction of the plain sum is undetermined."""

# Differences below this fraction of the plain sum are rounding errors.
_ROUNDING = 1e-9
# An energy with only these reasons can have the status `exact`; see `_status`.
_EXACT_BASIS = frozenset({"mean_power", "mean_of_readings"})


class Attribution(Struct, frozen=True, kw_only=True):
    """The energy of an experiment with each joule counted once.

    Attributes:
        plain_j: Plain sum over processes, in joules; None if no process knows its energy.
        energy_j: Attributed energy, in joules; None if it is undetermined or unknown.
        bounds_j: Least and greatest energy that the records admit, in joules; never above the plain sum.
        status: `exact`, `estimated` or `undetermined`.
        basis: Reasons of an estimate, in alphabetical order. If the energy is undetermined, `assumed` or no reason.
        factor: Plain sum divided by attributed energy, at least 1; None if this energy is 0 or undetermined.
        gpu_j: Energy of the GPUs within the attributed energy, in joules; None if it is unknown or undetermined.
        cpu_j: Like `gpu_j`, for the CPUs.
        ram_j: Like `gpu_j`, for the memory.
        findings: Findings about power and attribution.
    """

    plain_j: float | None = None
    energy_j: float | None = None
    bounds_j: tuple[float, float] | None = None
    status: AttributionStatus
    basis: list[str]
    factor: float | None = None
    gpu_j: float | None = None
    cpu_j: float | None = None
    ram_j: float | None = None
    findings: list[Finding]


def attribute(records: Sequence[RawProcessResult], assume: Assumptions | None = None) -> Attribution:
    """Return the energy of an experiment with each joule counted once.

    Args:
        records: Results of the processes of the experiment, sorted by process index. No index is repeated.
        assume: Facts that the user states.
    """
    return attribution_of(processes_of(records), assume)


def attribution_of(processes: Sequence[Process], assume: Assumptions | None = None) -> Attribution:
    """Return the energy of an experiment with each joule counted once; see `attribute`."""
    assume = assume or Assumptions()
    division = division_of(processes, assume.hosts, one_host=assume.boards is not None)
    read = cache(lambda position: readings_of(processes[position], assume.gpu_scope))
    boards = cache(
        lambda positions: boards_of_host([processes[position] for position in positions], assume.boards, assume.board)
    )
    explained = _explained(processes, division, read, boards)
    totals = [energy.total_energy_j for process in processes if (energy := process.energy).total_energy_j is not None]
    plain_j = math.fsum(totals) if totals else None
    total = either([one.total for one in explained])
    likely = max(explained, key=lambda one: one.total.high_j)
    hosts = [host for host in likely.by_host if host is not None]
    findings = findings_of(Case(processes, division, explained, total, likely, hosts, plain_j, assume, read, boards))
    if plain_j is None:
        return Attribution(status="undetermined", basis=[], findings=findings)
    total = _within(total, plain_j)
    status, basis = _status(total, division, assume, knows_windows=all(p.knows_window for p in processes if _counts(p)))
    gpu_j, cpu_j, ram_j = (_component(explained, name) for name in COMPONENTS)
    return Attribution(
        plain_j=plain_j,
        energy_j=total.point_j,
        bounds_j=(total.low_j, total.high_j),
        status=status,
        basis=basis,
        factor=_factor(plain_j, total.point_j),
        gpu_j=gpu_j,
        cpu_j=cpu_j,
        ram_j=ram_j,
        findings=findings,
    )


def _explained(
    processes: Sequence[Process],
    division: Division,
    read: Callable[[int], list[Reading]],
    boards: Callable[[tuple[int, ...]], HostBoards],
) -> list[Explained]:
    """Return the divisions that determine the bounds, with their energies.

    These are the tried divisions of the processes into hosts that the readings allow. If the readings contradict every
    tried division, all tried divisions are returned.
    """

    def explain(hosts: Hosts) -> Explained:
        if len(hosts) == len(processes) and (alone := _energies_alone(processes, hosts, read)) is not None:
            components, total = alone
            return Explained(hosts, total, components, [None] * len(hosts))
        by_host: list[HostEnergy | None] = []
        totals: list[EnergyRange] = []
        parts_of_hosts: dict[Component, list[EnergyRange]] = {}
        for positions in hosts:
            own = [processes[position] for position in positions]
            module = module_of(own)
            if module is None and (apart := _energies_apart(own, positions, read)) is not None:
                by_host.append(None)
                parts, total = apart
            else:
                found = energy_of_host(
                    [reading for position in positions for reading in read(position)],
                    partial(boards, positions),
                    has_module=module is not None,
                )
                by_host.append(found)
                parts, total = found.components, found.total
            totals.append(total)
            for component, part in parts.items():
                parts_of_hosts.setdefault(component, []).append(part)
        components = {name: added(parts) for name, parts in parts_of_hosts.items()}
        return Explained(hosts, added(totals), components, by_host)

    if division.is_known:
        return [explain(division.coarsest)]
    outer = [explain(division.coarsest), explain(division.finest)]
    least = [explain(_least_division(division, explain))] if len(division.known) > 1 else []
    # If the coarsest and the finest division are possible, `least` and `outer` give the bounds, so no other division is
    # tried.
    if all(one.is_possible for one in outer):
        return [*least, *outer]
    explained = [outer[0], *least, *(explain(hosts) for hosts in division.between), outer[1]]
    possible = [one for one in explained if one.is_possible]
    if possible == outer[1:] and (fewest := _fewest_hosts(division.finest, explain)) != division.finest:
        # A division that was not tried can have less energy than the finest division, but not less than the coarsest.
        merged = explain(fewest)
        possible.insert(0, structs.replace(merged, total=EnergyRange(outer[0].total.low_j, merged.total.high_j, None)))
    return possible or explained


def _energies_alone(
    processes: Sequence[Process], hosts: Hosts, read: Callable[[int], list[Reading]]
) -> tuple[dict[Component, EnergyRange], EnergyRange] | None:
    """Return components and total of processes that are each alone on their host.

    None if a GPU sensor may include a CPU, or if `energies_alone` returns None.
    """
    return None if module_of(processes) is not None else energies_alone([read(position) for (position,) in hosts])


def _energies_apart(
    own: Sequence[Process], positions: Sequence[int], read: Callable[[int], list[Reading]]
) -> tuple[dict[Component, EnergyRange], EnergyRange] | None:
    """Return components and total of a host whose readings can't contain the same joule; None for other hosts."""
    if len(own) == 1:
        return energies_alone([read(positions[0])])
    apart = separate_energies(own)
    if apart is None:
        return None
    parts = {component: exactly(math.fsum(energies)) for component, energies in apart.items()}
    return parts, exactly(math.fsum(chain.from_iterable(apart.values())))


def _least_division(division: Division, explain: Callable[[Hosts], Explained]) -> Hosts:
    """Return the division into hosts with the least energy that this function finds.

    Each group of processes whose host is unknown joins the known host to which the group adds the least energy. A group
    becomes a host of its own if this adds less energy.
    """
    hosts = list(division.known)
    for group in division.floating:
        found = [(explain((group,)).total.low_j, len(hosts), group)]
        for place, own in enumerate(hosts[:MAX_TRIED]):
            merged = explain((joined := tuple(sorted((*own, *group))),))
            if merged.is_possible:
                found.append((merged.total.low_j - explain((own,)).total.low_j, place, joined))
        _, place, joined = min(found)
        hosts[place : place + 1] = [joined]
    return tuple(hosts)


def _fewest_hosts(finest: Hosts, explain: Callable[[Hosts], Explained]) -> Hosts:
    """Return a division into few hosts, made from `finest`, the division into the most hosts.

    Each group of `finest` joins the first of the last `MAX_TRIED` hosts for which the readings of both are possible. If
    there is no such host, the group becomes a new host.
    """
    hosts: list[tuple[int, ...]] = []
    for group in finest:
        for place, own in enumerate(hosts[-MAX_TRIED:], start=max(0, len(hosts) - MAX_TRIED)):
            if explain((merged := tuple(sorted((*own, *group))),)).is_possible:
                hosts[place] = merged
                break
        else:
            hosts.append(group)
    return tuple(hosts)


def _within(total: EnergyRange, plain_j: float) -> EnergyRange:
    """Return the range limited to the plain sum, without rounding errors.

    If no over-count is proven and `point_j` is below `LEAST_UNPROVEN` times the plain sum, `point_j` becomes None.
    """

    def rounded(energy_j: float) -> float:
        return plain_j if energy_j > plain_j * (1 - _ROUNDING) else max(0.0, energy_j)

    low, high = rounded(total.low_j), rounded(total.high_j)
    point = None if total.point_j is None else min(max(rounded(total.point_j), low), high)
    if point is not None and high >= OVER_COUNT * plain_j and point < LEAST_UNPROVEN * plain_j:
        point = None  # no over-count is proven, so the plain sum may be right
    return EnergyRange(low, high, point, total.basis)


def _counts(process: Process) -> bool:
    return bool(process.energy.total_energy_j)


def _status(
    total: EnergyRange, division: Division, assume: Assumptions, *, knows_windows: bool
) -> tuple[AttributionStatus, list[str]]:
    """Return the status of the energy, and the reasons of an estimate."""
    basis = total.basis | ({division.basis} if division.basis is not None else set())
    if assume.boards is not None or assume.board is not None:
        basis |= {"assumed"}
    if total.point_j is None:  # `assumed` stays, because the bounds may depend on facts that the user states
        return "undetermined", ["assumed"] if "assumed" in basis or assume.gpu_scope is not None else []
    width = (total.high_j - total.low_j) / total.high_j if total.high_j else 0.0
    is_recorded = total.basis <= _EXACT_BASIS and division.basis != "assumed"
    if is_recorded and knows_windows and width <= EXACT_WIDTH:
        return "exact", []
    return "estimated", sorted(basis if knows_windows else basis | {"unknown_window"})


def _component(explained: Sequence[Explained], component: Component) -> float | None:
    """Return the energy of a component, in joules; None if it is unknown or undetermined."""
    ranges = [one.components[component] for one in explained if component in one.components]
    return either(ranges).point_j if len(ranges) == len(explained) else None


def _factor(plain_j: float, energy_j: float | None) -> float | None:
    """Return the plain sum divided by the attributed energy, at least 1; None if this energy is 0 or unknown."""
    factor = None if energy_j is None else ratio(plain_j, energy_j)
    if factor is None:
        return None
    # Twelve digits hide the rounding error of a mean, so k equal readings have exactly the factor k.
    return max(1.0, float(f"{factor:.12g}"))

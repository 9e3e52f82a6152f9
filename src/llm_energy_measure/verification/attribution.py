"""Attribution: for each joule, whose reading counts it.

Each process's energy is taken apart into readings: one a component (GPUs one by one, CPU, RAM, and what of the total is
none of these). A reading is of one sensor. Readings of one sensor that overlap in time are the same joules, so of each
sensor those count that don't overlap and come to the most:

- scope `device`: one sensor a GPU of a host, or a module whose parts share one;
- scope `host`: one sensor a component of a host, which contains what its devices and processes read;
- scope `process`: one sensor a process; they are summed;
- unknown scope: physics decides (see `power.py`). If a host's processes imply more power than its boards can draw,
  each of them measured the host, and the mean of their readings counts. Else a GPU that several of them name counts
  once, and everything else is summed, which the lower bound does not trust.

On modules whose GPU sensor may see the CPU too, both count, and the lower bound is without what would be in both.

The plain sum is never touched; what is taken from it is what was counted again, so that the attributed total can't
exceed it.

One rule in one module, which is long for that: what takes a joule in one place must not take it in another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from msgspec import Struct, field

from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.verification.codes import failed, listed, not_checked, passed
from llm_energy_measure.verification.codes import joules as in_joules
from llm_energy_measure.verification.power import (
    HostPower,
    check_power,
    power_of_host,
)
from llm_energy_measure.verification.processes import Process, by_host, module_of, processes_of, read_elsewhere
from llm_energy_measure.verification.readings import (
    COMPONENTS,
    Component,
    Energies,
    Reading,
    dropped_of,
    energies_apart,
    energies_of,
    lies_within,
    overlap,
    possible_more,
    readings_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.domain.experiment import RawProcessResult

RULE = "scope_then_physics@1"
"""Name and version of the rule; another version may attribute otherwise."""

# What a module has besides its GPUs.
_ON_A_MODULE = ("cpu", "ram")

Hosts = Mapping[str | None, Sequence[Process]]
BySensor = dict[tuple[str, object], list[Reading]]
# By code: the readings that are of the same joules, and what the plain sum has of them too much.
Counted = dict[str, list[tuple[Sequence[Reading], float]]]


class Share(Struct):
    """What one host contributes, and what of its readings was counted again.

    Attributes:
        again: Readings or parts of readings that the plain sum has too much, in joules, by component.
        low_j: How much less than attributed it can be, in joules.
        high_j: How much more than attributed it can be, in joules.
        by_physics_j: What of `again` physics took, in joules, by the first process of each group.
        findings: What was found on the way.
        open_scopes: Components of several processes of which nobody knows what the sensors saw.
        open_parts: Processes that measured parts of boards, of which nobody knows whether they are the same.
        module: Board whose GPU sensor may see the CPU of its module, where there is one.
        besides_j: Joules that count besides those of a GPU whose sensor may see them too.
        besides: Processes that read them, or such a GPU.
    """

    again: list[tuple[Component, float]] = field(default_factory=list)
    low_j: float = 0.0
    high_j: float = 0.0
    by_physics_j: dict[int, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    open_scopes: set[str] = field(default_factory=set)
    open_parts: list[int] = field(default_factory=list)
    module: str | None = None
    besides_j: float = 0.0
    besides: set[int] = field(default_factory=set)


class Attribution(Struct, frozen=True, kw_only=True):
    """An experiment's energy with every joule counted once.

    Attributes:
        plain_j: Plain sum over processes, in joules; None if no process knows its energy.
        energy_j: The attributed energy, in joules; never above the plain sum.
        bounds_j: Least and greatest energy that the evidence allows, in joules.
        factor: Plain sum over attributed energy, at least 1; None if that can't be formed.
        gpu_j: Of it the GPUs, in joules; None if no process knows it.
        cpu_j: Of it the CPUs, in joules.
        ram_j: Of it the memory, in joules.
        findings: What was found about power and attribution.
    """

    plain_j: float | None
    energy_j: float | None
    bounds_j: tuple[float, float] | None
    factor: float | None
    gpu_j: float | None
    cpu_j: float | None
    ram_j: float | None
    findings: list[Finding]


def attribute(records: Sequence[RawProcessResult]) -> Attribution:
    """The energy of an experiment with every joule counted once, and what was found on the way.

    Args:
        records: Its results, by process index, each index once.
    """
    return attribution_of(by_host(processes_of(records)))


def attribution_of(hosts: Hosts) -> Attribution:
    """As `attribute`, of processes by host."""
    powers = [power_of_host(host, own) for host, own in hosts.items()]
    processes = list(chain.from_iterable(hosts.values()))
    any_module = module_of(processes) is not None
    # Of hosts whose readings are apart there is nothing to share.
    shares: list[Share] = []
    by_physics: dict[tuple[str | None, int], float] = {}
    energies: Energies = {"gpu": [], "cpu": [], "ram": [], "rest": []}
    for power in powers:
        module = module_of(power.processes) if any_module else None
        apart = energies_apart(power.processes) if module is None and not power.over_counted else None
        if apart is None:
            readings = [reading for process in power.processes for reading in readings_of(process)]
            shares.append(share := _share(power.host, readings, power))
            by_physics |= {(power.host, process): again_j for process, again_j in share.by_physics_j.items()}
            if module is not None:
                _doubt_module(share, module, readings, power)
            apart = energies_of(readings)
        for component, own in apart.items():
            energies[component] += own
    findings = [*check_power(powers, by_physics), *_attribution_findings(hosts, processes, shares)]
    totals = [energy_j for process in processes if (energy_j := process.energy.total_energy_j) is not None]
    if not totals:
        return Attribution(
            plain_j=None,
            energy_j=None,
            bounds_j=None,
            factor=None,
            gpu_j=None,
            cpu_j=None,
            ram_j=None,
            findings=findings,
        )
    plain = math.fsum(totals)
    for share in shares:
        for component, joules in share.again:
            energies[component].append(-joules)
            totals.append(-joules)
    energy = max(0.0, math.fsum(totals))
    low = max(0.0, energy - math.fsum([share.low_j for share in shares]))
    high = min(plain, energy + math.fsum([share.high_j for share in shares]))
    gpu, cpu, ram = [max(0.0, math.fsum(energies[name])) if energies[name] else None for name in COMPONENTS]
    return Attribution(
        plain_j=plain,
        energy_j=energy,
        bounds_j=(low, max(high, energy)),
        factor=_factor(plain, energy),
        gpu_j=gpu,
        cpu_j=cpu,
        ram_j=ram,
        findings=findings,
    )


def _factor(plain_j: float, energy_j: float) -> float | None:
    """How often the plain sum counts the attributed energy; None where that is 0, or next to it."""
    factor = ratio(plain_j, energy_j)
    if factor is None:
        return None
    if factor <= 1:
        return 1.0
    # To twelve digits: k processes make k, and not what the roundings of a mean leave of it.
    return float(f"{factor:.12g}")


def _share(host: str | None, readings: Sequence[Reading], power: HostPower) -> Share:
    """What the readings of one host come to."""
    share = Share()
    counted: Counted = {}
    by_sensor, wholes, left = _sorted_out(readings)
    if by_sensor or wholes:
        left = _left_of_hosts(share, by_sensor, wholes, left, counted)
    unscoped: list[Reading] = []
    for reading in left:
        if reading.scope == "device" and reading.sensor is not None:
            by_sensor.setdefault(("device", reading.sensor), []).append(reading)
        elif reading.scope != "process":
            unscoped.append(reading)
    for group in power.over_counted:
        unscoped = _take_mean(share, unscoped, group)
    unscoped = _sort_in_named_gpus(by_sensor, unscoped)
    _doubt(share, unscoped)
    for (kind, _), same in by_sensor.items():
        if len(same) > 1 and (dropped := dropped_of(same)):
            share.again += _by_component(dropped)
            share.high_j += possible_more(same, dropped)
            code = "attribution.host_counted" if kind == "host" else _code_of_gpu(same)
            counted.setdefault(code, []).append((same, math.fsum(reading.energy_j for reading in dropped)))
    _doubt_parts(share, by_sensor, unscoped)
    share.findings += [_counted_again(code, host, groups) for code, groups in counted.items()]
    return share


def _left_of_hosts(
    share: Share, by_sensor: BySensor, wholes: list[Reading], left: list[Reading], counted: Counted
) -> list[Reading]:
    """The readings that no reading of the whole host contains; those of the host are in `by_sensor` after it."""
    for (_, component), same in by_sensor.items():
        parts = [reading for reading in left if reading.component == component]
        same[:], gone = _take_contained(share, same, parts, counted)
        left = [reading for reading in left if id(reading) not in gone]
    parts = [*(reading for same in by_sensor.values() for reading in same), *left]
    wholes, gone = _take_contained(share, wholes, parts, counted)
    left = [reading for reading in left if id(reading) not in gone]
    for same in by_sensor.values():
        same[:] = [reading for reading in same if id(reading) not in gone]
    by_sensor["host", "whole"] = wholes
    return left


def _sorted_out(readings: Sequence[Reading]) -> tuple[BySensor, list[Reading], list[Reading]]:
    """Readings of a host's components, by component; those of whole hosts in one figure; and the others."""
    if "host" not in [reading.scope for reading in readings]:
        return {}, [], list(readings)
    of_process = Counter(reading.process for reading in readings)
    by_sensor: BySensor = {}
    wholes: list[Reading] = []
    others: list[Reading] = []
    for reading in readings:
        if reading.scope != "host":
            others.append(reading)
        elif reading.component == "rest" and of_process[reading.process] == 1:
            wholes.append(reading)
        else:
            by_sensor.setdefault(("host", reading.component), []).append(reading)
    return by_sensor, wholes, others


def _take_contained(
    share: Share, hosts: Sequence[Reading], parts: Sequence[Reading], counted: Counted
) -> tuple[list[Reading], set[int]]:
    """Count no joule of a part that a reading of its host contains: the host's readings that count, and what is gone.

    Where the parts come to more than the host did at their time, the sensors contradict each other, and they count.
    """
    left, gone = list(hosts), set[int]()
    for kept, inside in _clusters(_counting(hosts), parts):
        of_parts = [reading for same in _by_source(inside).values() for reading in _counting(same)]
        host_j = math.fsum(reading.energy_j for reading in kept)
        if math.fsum(reading.energy_j for reading in of_parts) > host_j:
            again = [reading for reading in left if any(overlap(reading, host) for host in kept)]
            left = [reading for reading in left if not any(overlap(reading, host) for host in kept)]
        else:
            again = inside
            gone.update(id(reading) for reading in inside)
            share.high_j += math.fsum(
                reading.energy_j for reading in of_parts if not any(lies_within(reading, host) for host in kept)
            )
        share.again += _by_component(again)
        energy_j = math.fsum(reading.energy_j for reading in again)
        counted.setdefault("attribution.host_counted", []).append(([*kept, *inside], energy_j))
    return left, gone


def _clusters(hosts: Sequence[Reading], parts: Sequence[Reading]) -> Iterator[tuple[list[Reading], list[Reading]]]:
    """Readings of a host that share parts, and the parts that overlap with them; a host's without parts is left out."""
    clusters: list[tuple[list[Reading], list[Reading]]] = [([host], []) for host in hosts]
    for part in parts:
        apart = []
        joined: tuple[list[Reading], list[Reading]] = [], [part]
        for cluster in clusters:
            if any(overlap(part, host) for host in cluster[0]):
                joined = [*joined[0], *cluster[0]], [*cluster[1], *joined[1]]
            else:
                apart.append(cluster)
        clusters = [*apart, joined] if joined[0] else apart
    return (cluster for cluster in clusters if cluster[1])


def _by_source(readings: Sequence[Reading]) -> dict[object, list[Reading]]:
    """Readings by what they are of: a component of the host, a GPU's sensor, or a process's own share."""
    groups: dict[object, list[Reading]] = {}
    for reading in readings:
        if reading.scope == "host":
            key: object = ("host", reading.component)
        elif reading.sensor is None or reading.scope == "process":
            key = ("process", reading.process, reading.component)
        else:
            key = ("sensor", reading.sensor)
        groups.setdefault(key, []).append(reading)
    return groups


def _counting(same: Sequence[Reading]) -> list[Reading]:
    """Of the readings of one sensor those that count."""
    if len(same) < 2:
        return list(same)
    dropped = {id(reading) for reading in dropped_of(same)}
    return [reading for reading in same if id(reading) not in dropped]


def _by_component(readings: Sequence[Reading]) -> list[tuple[Component, float]]:
    return [(reading.component, reading.energy_j) for reading in readings]


def _take_mean(share: Share, unscoped: Sequence[Reading], group: Sequence[Process]) -> list[Reading]:
    """Count the mean of the readings of processes that each measured the whole host; the others are returned."""
    sums = {process.index: 0.0 for process in group}
    by_component: dict[Component, dict[int, float]] = {}
    for reading in unscoped:
        if reading.process in sums:
            sums[reading.process] += reading.energy_j
            of_process = by_component.setdefault(reading.component, {})
            of_process[reading.process] = of_process.get(reading.process, 0.0) + reading.energy_j
    mean, again = 0.0, []
    for component, of_process in by_component.items():
        energy_j = math.fsum(of_process.values())
        part = energy_j / len(of_process)
        mean += part
        again.append((component, energy_j - part))
    share.again += again
    share.by_physics_j[group[0].index] = math.fsum(energy_j for _, energy_j in again)
    share.low_j += max(0.0, mean - min(sums.values()))
    share.high_j += max(0.0, max(sums.values()) - mean)
    return [reading for reading in unscoped if reading.process not in sums]


def _sort_in_named_gpus(
    by_sensor: dict[tuple[str, object], list[Reading]], unscoped: Sequence[Reading]
) -> list[Reading]:
    """Count a GPU that several processes name once: no sensor tells them apart. The other readings are returned."""
    named: dict[object, list[Reading]] = {}
    for reading in unscoped:
        if reading.component == "gpu" and reading.sensor is not None:
            named.setdefault(reading.sensor, []).append(reading)
    repeated = {sensor for sensor, same in named.items() if len(same) > 1 or ("device", sensor) in by_sensor}
    for sensor in sorted(repeated, key=str):
        by_sensor.setdefault(("device", sensor), []).extend(named[sensor])
    return [reading for reading in unscoped if reading.component != "gpu" or reading.sensor not in repeated]


def _doubt(share: Share, unscoped: Sequence[Reading]) -> None:
    """Widen the bounds by what would be counted again if sensors of unknown scope had seen the whole host."""
    by_component: dict[str, list[Reading]] = {}
    for reading in unscoped:
        by_component.setdefault(reading.component, []).append(reading)
    for component, same in by_component.items():
        if len({reading.process for reading in same}) > 1:
            share.open_scopes.add(component)
            joules = [reading.energy_j for reading in same]
            share.low_j += math.fsum(joules) - min(joules)


def _doubt_parts(share: Share, by_sensor: BySensor, unscoped: Sequence[Reading]) -> None:
    """Widen the bounds by what parts of boards that nothing names have, if they are parts of one."""
    if all(reading.knows_sensor for readings in (unscoped, *by_sensor.values()) for reading in readings):
        return
    of_gpus = [_counting(same) for (kind, _), same in by_sensor.items() if kind == "device"]
    kept = [reading for same in of_gpus for reading in same]
    unknown = [reading for reading in (*kept, *unscoped) if not reading.knows_sensor]
    if unknown and len({reading.sensor for reading in (*kept, *unscoped) if reading.is_shared}) > 1:
        share.open_parts += sorted({reading.process for reading in unknown})
        joules = [reading.energy_j for reading in kept if not reading.knows_sensor]
        share.low_j += math.fsum(joules) - max(joules, default=0.0)


def _doubt_module(share: Share, module: str, readings: Sequence[Reading], power: HostPower) -> None:
    """Widen the bounds by what the sensors of modules may have seen with the GPUs: the bounds span both cases."""
    share.module = module
    besides = [reading for reading in readings if reading.component in _ON_A_MODULE]
    if not besides:
        return
    gpus = [reading for reading in readings if reading.component == "gpu"]
    besides = [reading for reading in besides if any(overlap(reading, gpu) for gpu in gpus)]
    seen = {id(reading) for reading in besides}
    without = [reading for reading in readings if id(reading) not in seen]
    other = _share(power.host, without, power)
    energy_j, other_j = _counted_j(readings, share), _counted_j(without, other)
    taken = [joules for component, joules in share.again if component == "gpu"]
    gpu_j = max(0.0, math.fsum([*(reading.energy_j for reading in gpus), *(-joules for joules in taken)]))
    # A module can't contain more than its sensor read.
    share.besides_j = min(max(0.0, energy_j - other_j), gpu_j)
    if share.besides_j:
        share.besides = {reading.process for reading in (*besides, *gpus)}
        least_j = max(other_j - other.low_j, energy_j - share.low_j - gpu_j)
        share.low_j = max(share.low_j, energy_j - least_j)


def _counted_j(readings: Sequence[Reading], share: Share) -> float:
    return math.fsum([*(reading.energy_j for reading in readings), *(-joules for _, joules in share.again)])


def _code_of_gpu(same: Sequence[Reading]) -> str:
    """Whether readings of one sensor are of one GPU, or of several that share it."""
    if any(reading.is_shared for reading in same) and len({reading.gpu for reading in same}) > 1:
        return "attribution.shared_sensor"
    return "attribution.repeated_gpu"


def _counted_again(code: str, host: str | None, groups: Sequence[tuple[Sequence[Reading], float]]) -> Finding:
    """The finding that readings of one host are the same joules."""
    where = f" of host {host}" if host is not None else ""
    processes = sorted({reading.process for same, _ in groups for reading in same})
    effect = math.fsum(joules for _, joules in groups)
    if code == "attribution.host_counted":
        whole = "the whole host" if host is None else f"the whole host {host}"
        message = f"processes {listed(processes)} measured {whole}, or parts of it"
    elif code == "attribution.shared_sensor":
        message = (
            f"processes {listed(processes)} measured parts{where} that share the sensor of {groups[0][0][0].sensor}"
        )
    else:
        names = ", ".join(dict.fromkeys(str(same[0].gpu) for same, _ in groups))
        message = f"GPU {names} appears in multiple processes{where}"
    return failed(
        code,
        f"{message}; the plain sum counts {in_joules(effect)} of it more than once",
        expected=1.0,
        found=float(max(len({reading.process for reading in same}) for same, _ in groups)),
        effect_j=effect,
        processes=processes,
    )


def _attribution_findings(hosts: Hosts, processes: Sequence[Process], shares: Sequence[Share]) -> Iterator[Finding]:
    """The findings of this family, one a code and host that failed, one a code otherwise."""
    open_parts: list[int] = []
    open_scopes: set[str] = set()
    codes: set[str] = set()
    for share in shares:
        yield from share.findings
        codes.update(finding.code for finding in share.findings)
        open_parts += share.open_parts
        open_scopes |= share.open_scopes
    gpus = [gpu.name for process in processes for gpu in process.gpus]
    if "attribution.repeated_gpu" not in codes:
        reason = _unidentified(hosts, processes, gpus)
        yield not_checked("attribution.repeated_gpu", reason) if reason else passed("attribution.repeated_gpu")
    if "attribution.shared_sensor" not in codes:
        yield _parts_apart(open_parts)
    if "attribution.host_counted" not in codes:
        yield passed("attribution.host_counted")
    yield _two_hosts(hosts, processes, gpus)
    yield _module_sensor(shares)
    code = "attribution.scope_unknown"
    if open_scopes:
        what = ", ".join("what is no component" if name == "rest" else name.upper() for name in sorted(open_scopes))
        yield not_checked(code, f"no process says what the sensors of {what} saw; they are summed")
    else:
        yield passed(code)


def _parts_apart(processes: Sequence[int]) -> Finding:
    code = "attribution.shared_sensor"
    if not processes:
        return passed(code)
    reason = f"nothing names the boards that the parts of process {listed(sorted(processes))} are of: they can be one"
    return not_checked(code, reason, processes=processes)


def _unidentified(hosts: Hosts, processes: Sequence[Process], gpus: Sequence[str | int | None]) -> str:
    """What keeps GPUs, which are given by name, from being told apart, if anything does."""
    if len(hosts) > 1 and None in hosts:
        return "some processes name their host and some don't"
    if None in gpus:
        unnamed = [process for process in processes for gpu in process.gpus if gpu.name is None]
        for process in unnamed:
            if process.gpu_scope not in ("host", "process"):
                peers = [peer.record for peer in hosts[process.host]]
                if not read_elsewhere(process.record, peers):
                    return f"the GPU of process {process.index} is unknown"
    kinds = set(map(type, gpus)) - {type(None)}
    return "some GPUs are known by UUID and some by index only" if len(kinds) > 1 else ""


def _two_hosts(hosts: Hosts, processes: Sequence[Process], gpus: Sequence[str | int | None]) -> Finding:
    """One GPU or one boot under two names: containers have names of their own, and see the sensors of their host."""
    code = "attribution.two_names_one_host"
    if len(hosts) == 1:
        return passed(code)
    boots = {(process.host, clock.boot_id) for process in processes if (clock := process.record.clock) is not None}
    if len(set(gpus)) == len(gpus) and len({boot_id for _, boot_id in boots}) == len(boots):
        return passed(code)  # no name appears twice
    seen: dict[tuple[str, str], str | None] = {}
    for host, of_host in hosts.items():
        for process in of_host:
            facts = [("GPU", gpu.name) for gpu in process.gpus if isinstance(gpu.name, str)]
            clock = process.record.clock
            if clock is not None and clock.boot_id:
                facts.append(("boot", clock.boot_id))
            for what, name in facts:
                other = seen.setdefault((what, name), host)
                if other != host:
                    message = f"{what} {name} appears on host {other} and on host {host}: one host has two names"
                    index = process.record.process_index
                    return failed(code, message, expected=other, found=host, processes=[index])
    return passed(code)


def _module_sensor(shares: Sequence[Share]) -> Finding:
    code = "attribution.module_sensor"
    open_ones = [share for share in shares if share.besides_j]
    if not open_ones:
        return passed(code)
    effect = math.fsum(share.besides_j for share in open_ones)
    return not_checked(
        code,
        f"nothing says whether the GPU energy is that of the GPU or of the whole module of {open_ones[0].module}",
        f"if it is the module's, {in_joules(effect)} of CPU and memory are in it that are counted besides",
        effect_j=effect,
        processes=set().union(*(share.besides for share in open_ones)),
    )

"""Findings about power and attribution: energy that is counted twice, and facts that the records lack."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct, structs

from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.metrics import Scope
from llm_energy_measure.verification.codes import failed, joules, listed, not_checked, passed, watts
from llm_energy_measure.verification.host_energy import OVER_COUNT, DoubleCount, Explained, HostEnergy
from llm_energy_measure.verification.hosts import Division
from llm_energy_measure.verification.power import SENSOR_ERROR, HostBoards, check_process_power
from llm_energy_measure.verification.processes import Process, boot_of, comparable, module_of
from llm_energy_measure.verification.ranges import EnergyRange, added
from llm_energy_measure.verification.readings import Reading

_SCOPE_MEANING: dict[Scope, str] = {
    "device": "each process read only the GPU that it names (if a process read more GPUs, the energy is too high)",
    "host": "each process read all GPUs of its host",
    "process": "each process read its own share",
}
_TWO = 2


class Case(Struct, frozen=True):
    """The attribution of one experiment, from which the findings follow.

    Attributes:
        processes: Processes of the experiment.
        division: The possible divisions into hosts.
        explained: The divisions that the records admit, each with its energies.
        total: Range of the attributed energy.
        likely: The division with the greatest upper bound. If the plain sum is above this bound, the plain sum is above
            the upper bounds of all divisions.
        hosts: The hosts of `likely` whose readings can contain the same joules.
        plain_j: Plain sum, in joules; None if no process knows its energy.
        assume: Facts that the user states.
        read: Returns the readings of the process at a position.
        boards: Returns the stated boards of the host, from the positions of the processes on this host.
    """

    processes: Sequence[Process]
    division: Division
    explained: list[Explained]
    total: EnergyRange
    likely: Explained
    hosts: list[HostEnergy]
    plain_j: float | None
    assume: Assumptions
    read: Callable[[int], list[Reading]]
    boards: Callable[[tuple[int, ...]], HostBoards]

    def where(self, processes: Iterable[int]) -> str:
        """Return ` on host NAME` if the processes have one known host, else an empty text."""
        wanted = set(processes)
        names = {process.record.host for process in self.processes if process.index in wanted}
        name = next(iter(names)) if len(names) == 1 else None
        return f" on host {name}" if name is not None else ""


def findings_of(case: Case) -> list[Finding]:
    """Return the findings of the families `energy` and `attribution`.

    Each code has at least one finding, except `attribution.concurrent_experiments`.
    """
    doubles = _proven(case)
    found = [_double_count(case, double) for double in doubles]
    codes = {double.code for double in doubles}
    if "energy.over_counted" not in codes:
        found.append(_over_counted(case))
    found += _process_power(case)
    if "attribution.repeated_gpu" not in codes:
        found.append(_mixed_names(case))
    if "attribution.host_counted" not in codes:
        found.append(passed("attribution.host_counted"))
    if "attribution.shared_sensor" not in codes:
        found.append(_open_parts(case))
    found += [_one_uuid_two_machines(case), _module_sensor(case), _contradictory(case)]
    found += [_scope_unknown(case), _hosts_unknown(case), _window_unknown(case), _assumed(case)]
    return found


def _proven(case: Case) -> list[DoubleCount]:
    """Return the double counts that exist in every division into hosts, one for each host and code."""
    if case.plain_j is None:
        return []
    keys: Counter[tuple[str, tuple[int, ...]]] = Counter()
    if len(case.explained) > 1 and case.total.high_j >= OVER_COUNT * case.plain_j:
        for one in case.explained:
            keys.update(
                {(double.code, double.processes) for host in one.by_host if host for double in host.double_counts}
            )
    proven: list[DoubleCount] = []
    for host in case.hosts:
        by_code: dict[str, list[DoubleCount]] = {}
        for double in host.double_counts:
            if not keys or keys[double.code, double.processes] == len(case.explained):
                by_code.setdefault(double.code, []).append(double)
        proven += [_merged(own) for own in by_code.values()]
    return proven


def _merged(doubles: Sequence[DoubleCount]) -> DoubleCount:
    if len(doubles) == 1:
        return doubles[0]
    return structs.replace(
        doubles[0],
        processes=tuple(sorted({index for double in doubles for index in double.processes})),
        plain_j=math.fsum(double.plain_j for double in doubles),
        kept=added(double.kept for double in doubles),
        names=tuple(dict.fromkeys(name for double in doubles for name in double.names)),
    )


def _double_count(case: Case, double: DoubleCount) -> Finding:
    """Return the finding that readings contain the same joules."""
    kept_j = double.kept.high_j if double.kept.point_j is None else double.kept.point_j
    effect_j = double.plain_j - kept_j
    least = "at least " if double.kept.point_j is None else ""
    excess = f"the plain sum counts {least}{joules(effect_j)} more than once"
    where, number = case.where(double.processes), len(double.processes)
    expected: float | None = 1.0
    found: float | None = float(number)
    if double.code == "energy.over_counted":
        expected, found = double.limit_w, double.found_w
        each = ""
        if "power" in double.kept.basis:
            each = (
                "; each reading alone implies more power than all boards except the smallest can draw, "
                "so every process read the whole host"
            )
        message = (
            f"{number} processes{where} imply {watts(double.found_w)} of GPU power together, and the boards of the "
            f"host can draw {watts(double.limit_w)}{each}"
        )
        excess = f"the plain sum counts {least}{joules(effect_j)} more than once"
    elif double.code == "attribution.host_counted":
        message = f"processes {listed(double.processes)}{where} read the whole host, or parts of it, at the same time"
    elif double.code == "attribution.shared_sensor":
        message = f"processes {listed(double.processes)}{where} read parts of one board that share its sensor"
    else:
        message = f"GPU {', '.join(double.names)} appears in multiple processes{where}"
    return failed(
        double.code,
        f"{message}; {excess}",
        expected=expected,
        found=found,
        effect_j=effect_j,
        processes=double.processes,
    )


def _over_counted(case: Case) -> Finding:
    code = "energy.over_counted"
    near = [host.near_limit for host in case.hosts if host.near_limit is not None]
    if near:
        found_w, limit_w = max(near, key=lambda pair: pair[0] / pair[1])
        message = (
            f"the processes of a host imply {watts(found_w)} of GPU power together, and its boards can draw "
            f"{watts(limit_w)}"
        )
        return not_checked(code, SENSOR_ERROR, message, expected=limit_w, found=found_w)
    if not any("gpu" in host.open_scopes for host in case.hosts):
        return passed(code)
    for positions in case.likely.hosts:
        if len(positions) >= _TWO and (boards := case.boards(positions)).total_w is None:
            return not_checked(code, boards.why_not)
    unknown = [process.index for process in case.processes if process.gpu_w is not None and process.window_sec is None]
    return not_checked(code, f"the energy window of process {listed(unknown)} is unknown") if unknown else passed(code)


def _process_power(case: Case) -> Iterator[Finding]:
    shares = [share for host in case.hosts for share in host.excessive_shares]
    for processes, found_w, limit_w, is_by_index in shares:
        message = (
            f"{len(processes)} processes{case.where(processes)} count {watts(found_w)} of GPU power as their shares of "
            f"one board, and the board can draw {watts(limit_w)}"
        )
        if is_by_index:
            message += "; with CUDA_VISIBLE_DEVICES, several boards can have this index. Record the UUID of each GPU"
        yield failed(
            "energy.exceeds_devices",
            message,
            severity="warning" if is_by_index else None,
            expected=limit_w,
            found=found_w,
            processes=processes,
        )
    if shares:
        return
    readers: list[tuple[Process, Scope | None, HostBoards | None]] = []
    for positions in case.likely.hosts:
        boards: HostBoards | None = None
        for position in positions:
            process = case.processes[position]
            if not process.energy.gpu_energy_j:
                continue
            scope = process.gpu_scope
            if scope is None and process.energy.total_energy_j:
                scope = case.read(position)[0].scope
            if scope in ("host", None) and boards is None:
                boards = case.boards(positions)
            readers.append((process, scope, boards))
    yield from check_process_power(readers)


def _mixed_names(case: Case) -> Finding:
    code = "attribution.repeated_gpu"
    processes = sorted({index for host in case.hosts for index in host.mixed_names})
    if not processes:
        return passed(code)
    reason = "some GPUs of a host are known by UUID and others by index only; a UUID and an index can mean the same GPU"
    return not_checked(code, reason, processes=processes)


def _open_parts(case: Case) -> Finding:
    code = "attribution.shared_sensor"
    processes = sorted({index for host in case.hosts for index in host.open_parts})
    if not processes:
        return passed(code)
    found = f"processes {listed(processes)} read parts of boards, and no record names the boards"
    reason = f"{found}: all parts can belong to one board"
    return not_checked(code, reason, processes=processes)


def _one_uuid_two_machines(case: Case) -> Finding:
    """Check that no GPU UUID appears on two machines at the same time.

    The boot id identifies a machine, because containers of one machine can have different hostnames.
    """
    code = "attribution.two_names_one_host"
    if len({boot_of(process.record) for process in case.processes}) <= 1:
        return passed(code)
    seen: dict[str, Process] = {}
    for process in case.processes:
        for gpu in process.gpus:
            if not isinstance(gpu.name, str):
                continue
            other = seen.setdefault(gpu.name, process)
            boots = boot_of(other.record), boot_of(process.record)
            if None not in boots and boots[0] != boots[1] and _ran_at_one_time(other, process):
                names = other.record.host, process.record.host
                message = (
                    f"GPU {gpu.name} appears on host {names[0]} (boot {boots[0]}) and, at the same time, on host "
                    f"{names[1]} (boot {boots[1]})"
                )
                return failed(code, message, expected=names[0], found=names[1], processes=[process.index])
    return passed(code)


def _ran_at_one_time(one: Process, other: Process) -> bool:
    if one.run is None or other.run is None or not comparable([one.run, other.run]):
        return False
    return one.run[0] < other.run[1] and other.run[0] < one.run[1]


def _module_sensor(case: Case) -> Finding:
    code = "attribution.module_sensor"
    hosts = [host for host in case.hosts if host.module_j]
    if not hosts:
        return passed(code)
    effect_j = math.fsum(host.module_j for host in hosts)
    return not_checked(
        code,
        f"no record shows if the GPU energy covers only the GPU or the whole module of {module_of(case.processes)}",
        f"if the GPU energy covers the module, up to {joules(effect_j)} of CPU and memory energy are counted twice",
        effect_j=effect_j,
        processes=set().union(*(host.module_processes for host in hosts)),
    )


def _contradictory(case: Case) -> Finding:
    code = "attribution.contradictory"
    found = [problem for host in case.hosts for problem in host.contradictions]
    if not found or case.plain_j is None:
        return passed(code)
    message, processes = found[0]
    return failed(code, f"{message} (processes {listed(processes)})", processes=processes)


def _scope_unknown(case: Case) -> Finding:
    """Return the finding about unknown scopes: the explanations that remain, and the facts that would decide."""
    code = "attribution.scope_unknown"
    components = sorted(
        {component for one in case.explained for host in one.by_host if host for component in host.open_scopes}
    )
    if not components or case.plain_j is None:
        return passed(code)
    names = " and ".join(
        "energy outside the known components" if name == "rest" else f"{name.upper()} energy" for name in components
    )
    reason = f"several processes do not record the scope of their {names}"
    total = case.total
    if total.point_j is not None:
        return not_checked(code, reason, processes=_readers(case))
    explanations = ["each process read its own hardware"] if total.high_j >= OVER_COUNT * case.plain_j else []
    explanations += ["some processes read the same hardware", "all processes of a host read the same hardware"]
    return not_checked(
        code,
        reason,
        f"the energy is between {joules(total.low_j)} and {joules(total.high_j)}, because these explanations remain: "
        f"{'; '.join(explanations)}. Record the scope of the sensor and the host, or state the scope: "
        "--assume gpu-scope=device (or host, or process)",
        effect_j=case.plain_j - total.low_j,
        processes=_readers(case),
    )


def _readers(case: Case) -> list[int]:
    return [process.index for process in case.processes if process.energy.total_energy_j]


def _hosts_unknown(case: Case) -> Finding:
    code = "attribution.hosts_unknown"
    if len(case.explained) == 1 or all(one.total == case.explained[0].total for one in case.explained):
        return passed(code)
    numbers = sorted({len(one.hosts) for one in case.explained})
    reason = "the records don't show on how many hosts the processes ran"
    return not_checked(
        code,
        reason,
        f"the readings fit {numbers[0]} to {numbers[-1]} hosts. Record host, boot id or local rank, or state the "
        f"number of hosts: --assume hosts={numbers[0]}",
        processes=_readers(case),
    )


def _window_unknown(case: Case) -> Finding:
    code = "attribution.window_unknown"
    processes = sorted({index for host in case.hosts for index in host.open_windows})
    if not processes:
        return passed(code)
    reason = f"processes {listed(processes)} read one sensor over windows that are unknown or overlap in part"
    return not_checked(code, reason, processes=processes)


def _assumed(case: Case) -> Finding:
    code = "attribution.assumed"
    assume = case.assume
    stated = []
    if assume.gpu_scope is not None:
        stated.append(f"gpu-scope={assume.gpu_scope}: {_SCOPE_MEANING[assume.gpu_scope]}")
    if assume.hosts is not None:
        used = "the processes ran on that number of hosts, in blocks of consecutive ranks"
        known = "not used, because the records show the hosts"
        stated.append(f"hosts={assume.hosts}: {used if case.division.basis == 'assumed' else known}")
    if assume.boards is not None:
        stated.append(f"boards={assume.boards}: each host has that number of boards")
    if assume.board is not None:
        stated.append(f"board={assume.board}: the name of the boards")
    if not stated:
        return passed(code)
    return not_checked(code, "the user states facts that the records don't contain", "; ".join(stated))

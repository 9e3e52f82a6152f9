"""Divisions of the processes into hosts. If the records do not show the hosts, several divisions are possible.

Processes are on one host if they have the same boot id, GPU UUID, hostname (unless the boot ids differ) or node of the
launcher. Local ranks are used only if no process has a boot id, a hostname or a node. Processes without these facts may
have run on any number of hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from msgspec import Struct

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.verification.processes import Process, boot_of

Hosts = tuple[tuple[int, ...], ...]
"""A division of the processes into hosts: for each host, the positions of its processes in the list of processes."""

_TWO = 2
MAX_TRIED = 16
"""Greatest number of hosts that are tried one by one for processes whose host is unknown."""


class Division(Struct, frozen=True, kw_only=True):
    """The possible divisions of processes into hosts.

    Attributes:
        coarsest: The division into the fewest hosts that the records admit.
        finest: The division into the most hosts; equal to `coarsest` if the hosts are known.
        between: The other divisions that are considered.
        known: The known hosts with their processes, if the hosts of only some processes are known.
        floating: Groups of processes whose host is unknown, if other hosts are known. Each group is on one host.
        basis: Reason of the only division: `one_host`, `local_rank` or `assumed`. None if the host of each process is
            known, or if several divisions are possible.
    """

    coarsest: Hosts
    finest: Hosts
    between: tuple[Hosts, ...] = ()
    known: Hosts = ()
    floating: Hosts = ()
    basis: str | None = None

    @property
    def is_known(self) -> bool:
        """True if one division remains."""
        return self.coarsest == self.finest


def division_of(processes: Sequence[Process], assumed: int | None = None, *, one_host: bool = False) -> Division:
    """Return the possible divisions of processes into hosts.

    Args:
        processes: Processes, by process index.
        assumed: Number of hosts that the user states, for processes whose host is unknown.
        one_host: Whether processes of unknown host ran on one host. Used if the user states the boards of the host.
    """
    records = [process.record for process in processes]
    if len(records) == 1:
        return Division(coarsest=((0,),), finest=((0,),))
    groups, named = _joined(records)
    if all(named):
        return _certain(groups)
    if not any(named):
        if (by_rank := _by_local_rank(records, groups)) is not None:
            return by_rank
        if assumed is not None or one_host:
            hosts = _blocks(_ranks(records), _world_size(records), assumed or 1)
            return Division(coarsest=hosts, finest=hosts, basis="assumed")
        return _open(_ranks(records), _world_size(records), tuple(groups))
    return _mixed(groups, named)


def _certain(groups: Sequence[tuple[int, ...]]) -> Division:
    hosts = tuple(groups)
    return Division(coarsest=hosts, finest=hosts)


def _joined(records: Sequence[RawProcessResult]) -> tuple[list[tuple[int, ...]], list[bool]]:
    """Return groups of processes that share a host, and whether the host of each group is known.

    Only facts of one kind show that hosts differ. A group with only a boot id, for example, can be on the same host as
    a group with only a hostname.
    """
    names = {record.host for record in records}
    boots = {boot_of(record) for record in records}
    if None not in names and len(boots) == 1 and (len(names) == 1 or None in boots):
        # Fast path for most experiments: each process has a hostname, and no boot id joins or separates hosts.
        by_name: dict[str | None, list[int]] = {}
        for position, record in enumerate(records):
            by_name.setdefault(record.host, []).append(position)
        if len(by_name) == 1 or not _shares_uuid(records):
            return [tuple(own) for own in by_name.values()], [True] * len(by_name)
    if names == boots == {None} and not any(any(_facts(record, set())) for record in records):
        return [(position,) for position in range(len(records))], [False] * len(records)
    several = _names_of_several_boots(records)
    parents = list(range(len(records)))

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = parents[parents[position]]
            position = parents[position]
        return position

    first: dict[tuple[str, str], int] = {}
    kinds: list[set[str]] = [set() for _ in records]
    for position, record in enumerate(records):
        for fact in _facts(record, several):
            parents[root(position)] = root(first.setdefault(fact, position))
            kinds[position].add(fact[0])
    groups: dict[int, list[int]] = {}
    for position in range(len(records)):
        groups.setdefault(root(position), []).append(position)
    kinds_of_groups = [set().union(*(kinds[position] for position in own)) for own in groups.values()]
    numbers = Counter(kind for own in kinds_of_groups for kind in own if kind != "uuid")
    kind = max(sorted(numbers), key=lambda kind: numbers[kind], default=None)
    return [tuple(own) for own in groups.values()], [kind in own for own in kinds_of_groups]


def _facts(record: RawProcessResult, several: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the facts that identify the host of a process. Processes with an equal fact are on one host."""
    boot = boot_of(record)
    if boot is not None:
        yield "boot", boot
    if record.host is not None and record.host not in several:
        yield "host", record.host
    if record.launcher is not None and record.launcher.node:
        yield "node", f"{record.launcher.job_id} {record.launcher.node}"
    for uuid in _uuids(record):
        yield "uuid", uuid


def _names_of_several_boots(records: Sequence[RawProcessResult]) -> set[str]:
    """Return the hostnames that occur with two or more boot ids. Several machines can have this name."""
    boots: dict[str, set[str]] = {}
    for record in records:
        boot = boot_of(record)
        if record.host is not None and boot is not None:
            boots.setdefault(record.host, set()).add(boot)
    return {name for name, own in boots.items() if len(own) > 1}


def _shares_uuid(records: Sequence[RawProcessResult]) -> bool:
    """Return True if two processes name one GPU by its UUID."""
    uuids = [uuid for record in records for uuid in dict.fromkeys(_uuids(record))]
    return len(set(uuids)) < len(uuids)


def _uuids(record: RawProcessResult) -> Iterator[str]:
    if record.gpu_uuid:
        yield record.gpu_uuid
    for device in record.energy_metrics.devices or ():
        if device.gpu_uuid:
            yield device.gpu_uuid


def _by_local_rank(records: Sequence[RawProcessResult], groups: Sequence[tuple[int, ...]]) -> Division | None:
    """Return the division by local ranks, which are distinct on each host; None if a process has no local rank."""
    ranks = [record.launcher.local_rank if record.launcher is not None else None for record in records]
    local = [rank for rank in ranks if rank is not None]
    if len(local) < len(ranks):
        return None
    layouts = list(dict.fromkeys(_coarser(hosts, groups) for hosts in _layouts(records, local)))
    if len(layouts) == 1:
        [hosts] = layouts
        return Division(coarsest=hosts, finest=hosts, basis="one_host" if len(hosts) == 1 else "local_rank")
    # Several layouts are possible, or none is. In both cases, processes with equal local ranks are on different hosts.
    fewest = _coarser(_distinct_ranks(local), groups)
    return Division(coarsest=fewest, finest=tuple(groups), between=tuple(layouts))


def _layouts(records: Sequence[RawProcessResult], local: Sequence[int]) -> Iterator[Hosts]:
    """Yield the divisions for which a launcher assigns these local ranks."""
    size = _world_size(records)
    if len(set(local)) == len(local) and size == len(records):
        yield (tuple(range(len(records))),)
        return
    by_first: dict[int, list[int]] = {}
    for position, (record, rank) in enumerate(zip(records, local, strict=True)):
        by_first.setdefault(record.process_index - rank, []).append(position)
    # Block distribution: each host has consecutive ranks, so the ranks of two hosts do not interleave.
    ends = sorted((first, max(records[at].process_index for at in own)) for first, own in by_first.items())
    if all(end < start for (_, end), (start, _) in pairwise(ends)):
        yield tuple(tuple(own) for own in by_first.values())
    # Ranks assigned to the hosts in turn (SLURM: --distribution=cyclic).
    for number in range(_TWO, size + 1):
        if size % number == 0 and all(
            record.process_index // number == rank for record, rank in zip(records, local, strict=True)
        ):
            yield _in_turn(_ranks(records), number)


def _in_turn(ranks: Sequence[int], number: int) -> Hosts:
    """Return a division of ranks into this number of hosts, assigned in turn (cyclic distribution)."""
    turns: dict[int, list[int]] = {}
    for position, rank in enumerate(ranks):
        turns.setdefault(rank % number, []).append(position)
    return tuple(tuple(own) for own in turns.values())


def _distinct_ranks(local: Sequence[int]) -> Hosts:
    """Return the division into the fewest hosts on which each local rank is distinct."""
    hosts: list[list[int]] = []
    seen: dict[int, int] = {}
    for position, rank in enumerate(local):
        place = seen.get(rank, 0)
        seen[rank] = place + 1
        if place == len(hosts):
            hosts.append([])
        hosts[place].append(position)
    return tuple(tuple(own) for own in hosts)


def _coarser(hosts: Hosts, groups: Sequence[tuple[int, ...]]) -> Hosts:
    """Return the division after joining hosts, so that each group of processes is on one host."""
    host_of = {position: number for number, own in enumerate(hosts) for position in own}
    for group in groups:
        joined = {host_of[position] for position in group}
        host_of = {position: min(joined) if number in joined else number for position, number in host_of.items()}
    together: dict[int, list[int]] = {}
    for position in sorted(host_of):
        together.setdefault(host_of[position], []).append(position)
    return tuple(tuple(own) for own in together.values())


@lru_cache(maxsize=16)
def _open(ranks: tuple[int, ...], size: int, groups: Hosts) -> Division:
    """Return the possible divisions if no record shows the hosts.

    Each number of hosts that divides the number of ranks gives two divisions: ranks in blocks, and ranks in turn.

    The experiments of a sweep have equal ranks; the cache saves 12 % of the time of attribution.
    """
    one: Hosts = (tuple(range(len(ranks))),)
    between: list[Hosts] = []
    for hosts in range(_TWO, size):
        if size % hosts == 0:
            between += [_blocks(ranks, size, hosts), _in_turn(ranks, hosts)]
    possible = [division for division in dict.fromkeys(between) if _keeps_together(division, groups)]
    return Division(coarsest=one, finest=groups, between=tuple(possible))


def _keeps_together(hosts: Hosts, groups: Sequence[tuple[int, ...]]) -> bool:
    host_of = {position: number for number, own in enumerate(hosts) for position in own}
    return all(len({host_of[position] for position in group}) == 1 for group in groups)


def _world_size(records: Sequence[RawProcessResult]) -> int:
    """Return the number of ranks: the greatest of world sizes, number of records, and highest index plus one.

    If the highest index is at least twice the number of records, the indices do not count.
    """
    number = len(records)
    highest = max(record.process_index for record in records)
    return max(number, highest + 1 if highest < _TWO * number else 0, *(record.world_size or 0 for record in records))


def _blocks(ranks: Sequence[int], size: int, number: int) -> Hosts:
    """Return a division of ranks into this number of hosts of equal size, each with consecutive ranks."""
    blocks: dict[int, list[int]] = {}
    for position, rank in enumerate(ranks):
        blocks.setdefault(rank * number // size, []).append(position)
    return tuple(tuple(own) for own in blocks.values())


def _ranks(records: Sequence[RawProcessResult]) -> tuple[int, ...]:
    """Return the rank of each process: its index if all indices are below the number of ranks, else its position."""
    ranks = tuple([record.process_index for record in records])
    return ranks if max(ranks) < _world_size(records) else tuple(range(len(records)))


def _mixed(groups: Sequence[tuple[int, ...]], named: Sequence[bool]) -> Division:
    """Return the divisions if some hosts are known. Other processes may be on any known host, or on other hosts."""
    known = tuple(group for group, is_known in zip(groups, named, strict=True) if is_known)
    floating = tuple(group for group, is_known in zip(groups, named, strict=True) if not is_known)
    others = tuple(position for group in floating for position in group)
    divisions: list[Hosts] = [
        (*known[:place], (*known[place], *others), *known[place + 1 :]) for place in range(min(len(known), MAX_TRIED))
    ]
    if len(others) > 1:
        divisions.append((*known, others))
    finest = tuple(groups)
    between = tuple(division for division in divisions[1:] if division != finest)
    return Division(coarsest=divisions[0], finest=finest, between=between, known=known, floating=floating)

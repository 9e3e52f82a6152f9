"""Simulated experiments: a plan becomes a world, the world is read by sensors, and some evidence is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.truth.plan import CPU_MODEL_W, HostReading, Plan, Windows
from tests.truth.records import Rank, Reading, record_of, without_facts
from tests.truth.world import (
    Board,
    Coverage,
    Host,
    Source,
    Span,
    constant_power,
    covered_energy_j,
    varying_power,
)

if TYPE_CHECKING:
    from random import Random

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import Scope


@dataclass(frozen=True)
class Experiment:
    """A simulated experiment.

    Attributes:
        records: What the processes recorded.
        truth_j: Energy of what the sensors covered within the union of their windows, each joule once.
        noiseless_plain_j: Sum over all readings, had they no noise.
        plain_j: Sum over all recorded readings.
        readers: Number of processes with a reading.
        meta: Facts for the report of a failure.
    """

    records: list[RawProcessResult]
    truth_j: float
    noiseless_plain_j: float
    plain_j: float
    readers: int
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def is_honest(self) -> bool:
        """Whether the readings count each joule once; noise changes no coverage, so it is left out here."""
        return abs(self.noiseless_plain_j - self.truth_j) <= 0.01 * self.truth_j


def simulate(plan: Plan, rng: Random) -> Experiment:
    """Run one experiment of a class."""
    windows = _windows(plan, rng)
    horizon = (min(start for start, _ in windows) - 20, max(end for _, end in windows) + 20)
    hosts = [_host(plan, rng, index, windows, horizon) for index in range(plan.hosts)]
    ranks = [_rank(plan, rng, index, hosts[plan.place_of(index)[0]], window) for index, window in enumerate(windows)]
    kept = sorted(rng.sample(ranks, len(ranks) - plan.missing), key=lambda rank: rank.index)
    readings = [reading for rank in kept for reading in rank.readings]
    covers = [cover for reading in readings for cover in reading.covers]
    records = [record_of(plan, rng, rank, len(ranks)) for rank in kept]
    return Experiment(
        records=[without_facts(record, rng, plan.evidence.lost_facts) for record in records],
        truth_j=covered_energy_j(covers),
        noiseless_plain_j=sum(cover.energy_j for cover in covers),
        plain_j=sum(reading.energy_j for reading in readings),
        readers=sum(bool(rank.readings) for rank in kept),
        meta={
            "windows": [tuple(round(edge, 1) for edge in rank.window) for rank in kept],
            "readings_j": [round(sum(reading.energy_j for reading in rank.readings)) for rank in kept],
        },
    )


def _windows(plan: Plan, rng: Random) -> list[Span]:
    """The energy window of each rank."""
    count = plan.hosts * plan.ranks_per_host
    length = rng.uniform(*plan.seconds)
    serial_step = length + rng.uniform(1, 30)
    starts = {"staggered": rng.uniform(0.08, 0.3) * length, "serial": serial_step, "touching": 0.99 * length}
    if plan.windows in starts:
        step = starts[plan.windows]
        return [(step * index, step * index + length) for index in range(count)]
    if plan.windows == "waves":
        starts_of_waves = (0.0, serial_step)
        return [(start := starts_of_waves[2 * index // count], start + length) for index in range(count)]
    windows = [_window(plan.windows, rng, length) for _ in range(count)]
    if plan.windows == "nested":
        windows[rng.randrange(count)] = (0.0, length)
    return windows


def _window(kind: Windows, rng: Random, length: float) -> Span:
    """The window of one rank that is independent of the other ranks."""
    jitter = 0.002 * length
    start, end = rng.uniform(-jitter, jitter), length + rng.uniform(-jitter, jitter)
    match kind:
        case "slightly_staggered":
            start = rng.uniform(0, 0.04) * length
            end = start + length
        case "partial":
            start = rng.uniform(0, 0.6) * length
            end = start + rng.uniform(0.5, 1) * length
        case "nested":
            start, end = rng.uniform(0.02, 0.3) * length, rng.uniform(0.6, 0.98) * length
        case "same_start":
            end = rng.uniform(0.65, 1) * length
    return start, end


def _host(plan: Plan, rng: Random, index: int, windows: list[Span], horizon: Span) -> Host:
    locals_of = {rank: plan.place_of(rank)[1] for rank in range(len(windows)) if plan.place_of(rank)[0] == index}
    ranks = tuple(locals_of)
    load = rng.uniform(*plan.load)
    boards = []
    for board in range(plan.boards):
        users = {rank: windows[rank] for rank in ranks if plan.drives(locals_of[rank], board)}
        boards.append(_board(plan, rng, host=index, index=board, users=users, horizon=horizon, load=load))
    cpu_share_of: dict[int, Source] = {}
    cpu: tuple[Source, ...]
    if plan.cpu == "constant":
        cpu = (Source(f"cpu of host {index}", constant_power(horizon, CPU_MODEL_W)),)
    else:
        level = rng.uniform(60, 200)
        cpu_share_of = {
            rank: Source(
                f"cpu share of rank {rank}",
                varying_power(
                    rng,
                    horizon,
                    [windows[rank]],
                    level_w=level * rng.uniform(0.6, 1.4) / len(ranks),
                    ripple=plan.ripple,
                    ceiling_w=1e3,
                ),
            )
            for rank in ranks
        }
        idle = Source(f"idle cpu of host {index}", constant_power(horizon, rng.uniform(20, 80)))
        cpu = (idle, *cpu_share_of.values())
    ram = (Source(f"ram of host {index}", constant_power(horizon, rng.uniform(10, 40))),)
    name = f"node-{rng.randrange(10**6)}-{index}"
    rest = (Source(f"rest of host {index}", constant_power(horizon, rng.uniform(50, 150))),)
    overhead_w = plan.overhead * plan.boards * plan.model.limit_w
    overhead = (Source(f"gpu overhead of host {index}", constant_power(horizon, overhead_w)),)
    boot_id = f"boot-{rng.getrandbits(64):016x}"
    return Host(name, boot_id, tuple(boards), cpu, ram, rest, overhead, cpu_share_of)


def _board(
    plan: Plan, rng: Random, *, host: int, index: int, users: dict[int, Span], horizon: Span, load: float
) -> Board:
    limit = plan.model.limit_w
    exact = plan.board_w[host * plan.boards + index] if plan.board_w else None
    idle_w = 0.0 if exact is not None else rng.uniform(0.06, 0.12) * limit
    level = exact if exact is not None else min(limit, limit * load * (1 + plan.spread * rng.uniform(-1, 1)))
    ripple = 0.0 if exact is not None else plan.ripple
    ceiling = max(limit, level)
    shares = [1.0 if exact is not None else rng.uniform(0.7, 1.3) for _ in users]
    share_of = {}
    for (rank, window), share in zip(users.items(), shares, strict=True):
        part = share / sum(shares)
        power = varying_power(
            rng,
            horizon,
            [window],
            level_w=max(level - idle_w, 0.02 * limit) * part,
            ripple=ripple,
            ceiling_w=(ceiling - idle_w) * part,
        )
        share_of[rank] = Source(f"gpu {index} of host {host}, rank {rank}", power)
    idle = Source(f"idle gpu {index} of host {host}", constant_power(horizon, idle_w))
    uuid = f"GPU-{rng.getrandbits(128):032x}"
    return Board(index, uuid, (idle, *share_of.values()), share_of)


def _rank(plan: Plan, rng: Random, index: int, host: Host, window: Span) -> Rank:
    local = plan.place_of(index)[1]
    board = host.boards[plan.board_of(local)]
    first = local // plan.group * plan.group
    visible = host.boards[first : first + plan.group]
    if plan.gpu == "driven":
        visible = host.boards[board.index : board.index + plan.driven]
    listed, scope = _gpu_coverage(plan, local, host, board, visible)

    def measured(scope: Scope, *parts: tuple[Source, ...]) -> Reading:
        covers = tuple(Coverage(sources, window) for sources in parts)
        # A host has one sensor of a component; devices have one each.
        count = 1 if scope == "host" else len(covers)
        gains = [max(0.0, 1 + plan.noise * rng.gauss()) for _ in range(count)]
        energies = tuple(cover.energy_j * gains[min(part, count - 1)] for part, cover in enumerate(covers))
        return Reading(scope, covers, energies)

    gpu = None
    if scope == "process":
        gpu = measured(scope, (board.share_of[index],))
    elif scope is not None:
        more = host.overhead if scope == "host" else host.cpu if plan.model.has_cpu else ()
        parts = [(*seen.sources, *(more if position == 0 else ())) for position, seen in enumerate(listed)]
        gpu = measured(scope, *parts)
    if scope == "process" or scope is None:
        listed = (board,)

    def of_host(kind: HostReading, whole: tuple[Source, ...]) -> Reading | None:
        if kind == "none" or (kind == "rank0" and local):
            return None
        if kind == "share":
            return measured("process", (host.cpu_share_of[index],))
        if kind == "constant":
            covers = (Coverage(whole, window),)
            return Reading("host", covers, (covers[0].energy_j,))
        return measured("host", whole)

    before, after = (rng.uniform(0, 4), rng.uniform(0, 1)) if plan.evidence.window != "field" else (25.0, 2.0)
    is_exact = plan.evidence.window in ("run", "short")
    run = window if is_exact else (window[0] - before, window[1] + after)
    cpu, ram, rest = of_host(plan.cpu, host.cpu), of_host(plan.ram, host.ram), of_host(plan.rest, host.rest)
    return Rank(index, local, host, board, window, run, listed, gpu, cpu, ram, rest)


def _gpu_coverage(
    plan: Plan, local: int, host: Host, board: Board, visible: tuple[Board, ...]
) -> tuple[tuple[Board, ...], Scope | None]:
    """The boards that a rank reads, and the scope of the reading; None if the rank reads none."""
    reads_all = plan.gpu == "host" or (plan.gpu in ("rank0", "mixed") and local == 0)
    if plan.gpu == "none" or (plan.gpu == "rank0" and local):
        return (), None
    if reads_all:
        return host.boards, "host"
    return (visible if plan.gpu in ("visible", "driven") else (board,)), "process" if plan.gpu == "share" else "device"

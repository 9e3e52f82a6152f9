"""The records that simulated processes write, with the evidence that a plan wants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import structs

from llm_energy_measure.domain.experiment import ClockEvidence, ImportOrigin, Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import (
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Scope,
    SensorReading,
    Timestamps,
)

if TYPE_CHECKING:
    from random import Random

    from tests.truth.plan import Evidence, Plan
    from tests.truth.world import Board, Coverage, Host, Span

START = datetime(2026, 1, 16, 19, 39, 58, tzinfo=UTC)


@dataclass(frozen=True)
class Reading:
    """What one process measured of one component.

    Attributes:
        scope: Scope of its sensor.
        covers: What each of its parts covers, one part for each board where boards are read one by one.
        energies_j: What the sensor reports of each part, in joules, with noise.
    """

    scope: Scope
    covers: tuple[Coverage, ...]
    energies_j: tuple[float, ...]

    @property
    def energy_j(self) -> float:
        return sum(self.energies_j)


@dataclass(frozen=True)
class Rank:
    """One process: where and when it runs, and what it measured."""

    index: int
    local: int
    host: Host
    board: Board
    window: Span
    run: Span
    listed: tuple[Board, ...]
    gpu: Reading | None
    cpu: Reading | None
    ram: Reading | None
    rest: Reading | None

    @property
    def readings(self) -> list[Reading]:
        return [reading for reading in (self.gpu, self.cpu, self.ram, self.rest) if reading is not None]


def record_of(plan: Plan, rng: Random, rank: Rank, world_size: int) -> RawProcessResult:
    """The record of a rank: what its process measured, and the evidence of the plan."""
    evidence = plan.evidence
    index = _gpu_id(plan, rank)
    names = {"bare": plan.model.name, "all": f"{plan.boards} x {plan.model.name}", "one": f"1 x {plan.model.name}"}
    length = rank.window[1] - rank.window[0]
    inference_sec = length * rng.uniform(0.97, 1.0)
    tokens = 40 * max(1, round(length))
    uuid = _uuid(plan, rank) if evidence.uuid else None
    host_name = f"pod-{rank.host.name}-{rank.index}" if evidence.containers else rank.host.name
    return RawProcessResult(
        experiment_id="simulated",
        backend="pytorch",
        process_index=rank.index,
        gpu_id=index,
        gpu_name=names.get(evidence.boards),
        config_name="simulated",
        model_name="example/model",
        timestamps=_stamps(evidence, rank.run),
        inference_metrics=InferenceMetrics(
            total_tokens=2 * tokens,
            input_tokens=tokens,
            output_tokens=tokens,
            inference_time_sec=inference_sec,
            tokens_per_second=2 * tokens / inference_sec,
        ),
        energy_metrics=_energy(plan, rank),
        compute_metrics=None,
        world_size=world_size if evidence.host or plan.missing else None,
        host=host_name if evidence.host else None,
        gpu_is_mig=True if plan.mig else None,
        gpu_mig_profile="3g.20gb" if plan.mig else None,
        gpu_uuid=uuid,
        gpu_power_limit_w=float(plan.model.limit_w) if evidence.limit else None,
        clock=ClockEvidence(boot_id=rank.host.boot_id) if evidence.boot else None,
        launcher=Launcher(local_rank=rank.local) if evidence.local_rank else None,
        origin=ImportOrigin(tool=evidence.tool) if evidence.tool else None,
    )


def without_facts(record: RawProcessResult, rng: Random, share: float) -> RawProcessResult:
    """Return a record in which each fact is missing with this probability. Energies and lists of devices stay."""
    facts = ("host", "clock", "launcher", "gpu_uuid", "gpu_power_limit_w", "world_size")
    lost: dict[str, Any] = {name: None for name in facts if rng.random() < share}
    energy: dict[str, Any] = {}
    for name in ("gpu", "cpu", "ram"):
        if rng.random() < share:  # a measured CPU energy has the scope `host`, so a share must lose both facts
            energy |= {f"{name}_scope": None, f"{name}_provenance": None}
    if rng.random() < share:
        energy["window"] = None
    if rng.random() < share:
        energy["duration_sec"] = 0.0
    return structs.replace(record, energy_metrics=structs.replace(record.energy_metrics, **energy), **lost)


def _gpu_id(plan: Plan, rank: Rank) -> int | None:
    if plan.evidence.index != "real":
        return 0 if plan.evidence.index == "zero" else None
    return rank.board.index * plan.model.dies + _part(plan, rank) % plan.model.dies


def _uuid(plan: Plan, rank: Rank) -> str:
    if plan.mig:
        return f"MIG-{rank.board.uuid}/{_part(plan, rank) + 1}/0"
    return rank.board.uuid if plan.model.dies == 1 else f"{rank.board.uuid}-{_part(plan, rank) % plan.model.dies}"


def _part(plan: Plan, rank: Rank) -> int:
    """Position of the rank among those of its board."""
    return rank.local % max(1, plan.ranks_per_host // plan.boards)


def _stamps(evidence: Evidence, span: Span) -> Timestamps:
    start = START.replace(tzinfo=None) if evidence.naive else START
    if evidence.window == "length":
        return Timestamps(start=start, end=None, duration_sec=None)
    return Timestamps(
        start=start + timedelta(seconds=span[0]),
        end=start + timedelta(seconds=span[1]),
        duration_sec=span[1] - span[0],
    )


def _energy(plan: Plan, rank: Rank) -> EnergyMetrics:
    evidence = plan.evidence
    length = rank.window[1] - rank.window[0]
    durations = {"full": length, "duration": length, "run": length, "short": 0.4 * length, "field": 0.0}
    durations["length"] = length
    if not rank.readings:
        claimed = SensorReading(source="nvml", component="gpu", scope="host", problems=["claimed"])
        return EnergyMetrics(
            total_energy_j=0.0 if evidence.zero else None,
            duration_sec=durations[evidence.window],
            window=_stamps(evidence, rank.window) if evidence.window == "full" else None,
            sensors=[claimed] if evidence.sensors else None,
        )
    total = sum(reading.energy_j for reading in rank.readings)
    fields: dict[str, Any] = {}
    for name, reading, kind in (("gpu", rank.gpu, ""), ("cpu", rank.cpu, plan.cpu), ("ram", rank.ram, plan.ram)):
        if reading is None or evidence.only_total:
            continue
        fields[f"{name}_energy_j"] = reading.energy_j
        if name != "ram":
            fields[f"{name}_power_w"] = reading.energy_j / length
        if evidence.scope or (evidence.cpu_scope and name != "gpu"):
            fields[f"{name}_scope"] = reading.scope
            fields[f"{name}_provenance"] = "modelled" if kind == "constant" else "measured"
    scopes = {reading.scope for reading in rank.readings}
    if evidence.scope and len(scopes) == 1:
        fields["total_scope"] = scopes.pop()
    return EnergyMetrics(
        total_energy_j=total,
        duration_sec=durations[evidence.window],
        window=_stamps(evidence, rank.window) if evidence.window == "full" else None,
        devices=_devices(plan, rank),
        **fields,
    )


def _devices(plan: Plan, rank: Rank) -> list[DeviceEnergy] | None:
    evidence = plan.evidence
    if evidence.devices == "no" or rank.gpu is None:
        return None
    energies: tuple[float | None, ...] = rank.gpu.energies_j
    if evidence.devices == "listed":
        energies = (None,) * len(rank.listed)
    return [
        DeviceEnergy(
            gpu_id=board.index if evidence.index == "real" else None,
            gpu_uuid=board.uuid if evidence.uuid else None,
            gpu_name=plan.model.name,
            gpu_power_limit_w=float(plan.model.limit_w) if evidence.limit else None,
            energy_j=energy,
        )
        for board, energy in zip(rank.listed, energies, strict=True)
    ]

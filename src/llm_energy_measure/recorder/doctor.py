"""Which sensors work here, which do not and why, and what each of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from llm_energy_measure.domain.metrics import Component, Provenance, Scope
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.recorder.sampler import Sampler
from llm_energy_measure.recorder.sources import AUTOMATIC, close_source, get_source, open_source, source_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_energy_measure.recorder.clock import Clock
    from llm_energy_measure.recorder.sources import Sensor, Setting, Source


class SensorCheck(Struct, frozen=True, kw_only=True):
    """What one sensor reads.

    Attributes:
        instance: Which of the source's sensors.
        component: What it measures.
        scope: What it sees.
        provenance: Where its figure comes from.
        power_w: Mean power over the sample, in watts; None if it could not be read.
        problem: What went wrong while it was read.
    """

    instance: str
    component: Component
    scope: Scope
    provenance: Provenance
    power_w: float | None = None
    problem: str | None = None


class SourceCheck(Struct, frozen=True, kw_only=True):
    """Whether a source works here.

    Attributes:
        source: Its name.
        works: Whether it can be read.
        is_automatic: Whether it is tried where nobody names a source.
        sensors: What its sensors read.
        problem: Why it can't be read.
        advice: What to do about it.
    """

    source: str
    works: bool
    is_automatic: bool
    sensors: list[SensorCheck] = field(default_factory=list)
    problem: str | None = None
    advice: str | None = None


def examine_sources(
    setting: Setting, clock: Clock, *, sample_sec: float = 0.5, sources: Sequence[str | Source] | None = None
) -> list[SourceCheck]:
    """Try every source, one after the other.

    Args:
        setting: What they may have to know.
        clock: Waits between the readings.
        sample_sec: Time over which each is read, in seconds.
        sources: Which; by default all, ours and those that other packages add.
    """
    return [_examine(source, setting, clock, sample_sec) for source in (source_names() if sources is None else sources)]


def _examine(wanted: str | Source, setting: Setting, clock: Clock, sample_sec: float) -> SourceCheck:
    name = wanted if isinstance(wanted, str) else wanted.name
    try:
        source = get_source(wanted) if isinstance(wanted, str) else wanted
    except LLMEnergyMeasureError as refused:
        return _refused(name, refused)
    try:
        sensors = open_source(source, setting)
        return SourceCheck(
            source=name, works=True, is_automatic=name in AUTOMATIC, sensors=_sample(sensors, clock, sample_sec)
        )
    except LLMEnergyMeasureError as refused:
        return _refused(name, refused)
    finally:
        close_source(source)


def _refused(name: str, refused: LLMEnergyMeasureError) -> SourceCheck:
    return SourceCheck(
        source=name, works=False, is_automatic=name in AUTOMATIC, problem=refused.found, advice=refused.advice
    )


def _sample(sensors: Sequence[Sensor], clock: Clock, sample_sec: float) -> list[SensorCheck]:
    sampler = Sampler(sensors, clock, interval_sec=None)
    sampler.begin()
    start = clock.monotonic()
    clock.sleep(sample_sec)
    sampler.end()
    took_sec, failures = clock.monotonic() - start, sampler.failures()
    return [
        SensorCheck(
            instance=sensor.instance,
            component=sensor.component,
            scope=sensor.scope,
            provenance=sensor.provenance,
            power_w=None if reading.energy_j is None else reading.energy_j / took_sec,
            problem=failures.get(f"{sensor.source} {sensor.instance}"),
        )
        for sensor, reading in zip(sensors, sampler.readings(), strict=True)
    ]

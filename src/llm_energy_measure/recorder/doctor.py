"""Find out which energy sources work on this machine, what their sensors read, and why other sources fail."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from llm_energy_measure.domain.metrics import Component, Provenance, Scope
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.recorder.clock import Clock
from llm_energy_measure.recorder.sampler import sample_for
from llm_energy_measure.recorder.sources import (
    DEFAULT_SOURCES,
    Sensor,
    Settings,
    Source,
    close_source,
    get_source,
    open_source,
    source_names,
)


class SensorCheck(Struct, frozen=True, kw_only=True):
    """The reading of one sensor.

    Attributes:
        instance: Name of the sensor within its source.
        component: Component that the sensor measures.
        scope: What the reading covers.
        provenance: How the source obtains the figure.
        power_w: Mean power over the sample, in watts; None if the sensor cannot be read.
        problem: Why the sensor cannot be read.
    """

    instance: str
    component: Component
    scope: Scope
    provenance: Provenance
    power_w: float | None = None
    problem: str | None = None


class SourceCheck(Struct, frozen=True, kw_only=True):
    """Whether an energy source works on this machine.

    Attributes:
        source: Name of the source.
        works: Whether the source has at least one sensor.
        is_automatic: Whether `record` tries the source if the user selects no source.
        sensors: The reading of each sensor.
        problem: Why the source does not work.
        advice: What to do about the problem.
    """

    source: str
    works: bool
    is_automatic: bool
    sensors: list[SensorCheck] = field(default_factory=list)
    problem: str | None = None
    advice: str | None = None


def examine_sources(
    settings: Settings, clock: Clock, *, sample_sec: float = 0.5, sources: Sequence[str | Source] | None = None
) -> list[SourceCheck]:
    """Open all sources, one after the other, and return whether each source works.

    Args:
        settings: Facts that the sources may need.
        clock: Clock of the readings and of the waits.
        sample_sec: How long to measure with each source, in seconds.
        sources: Names or objects of the sources. [default: the built-in ones and those of entry points]
    """
    wanted = source_names() if sources is None else sources
    return [_examine(name_or_source, settings, clock, sample_sec) for name_or_source in wanted]


def _examine(wanted: str | Source, settings: Settings, clock: Clock, sample_sec: float) -> SourceCheck:
    name = wanted if isinstance(wanted, str) else wanted.name
    is_automatic = name in DEFAULT_SOURCES
    try:
        source = get_source(wanted) if isinstance(wanted, str) else wanted
        try:
            sensors = _sample(open_source(source, settings), clock, sample_sec)
        finally:
            close_source(source)
    except LLMEnergyMeasureError as error:
        return SourceCheck(
            source=name, works=False, is_automatic=is_automatic, problem=error.found, advice=error.advice
        )
    return SourceCheck(source=name, works=True, is_automatic=is_automatic, sensors=sensors)


def _sample(sensors: Sequence[Sensor], clock: Clock, sample_sec: float) -> list[SensorCheck]:
    sampler, took_sec = sample_for(sample_sec, sensors, clock, interval_sec=None)
    failures = sampler.failures()
    return [
        SensorCheck(
            instance=sensor.instance,
            component=sensor.component,
            scope=sensor.scope,
            provenance=sensor.provenance,
            power_w=None if reading.energy_j is None else reading.energy_j / took_sec,
            problem=failures.get(sensor.label),
        )
        for sensor, reading in zip(sensors, sampler.readings(), strict=True)
    ]

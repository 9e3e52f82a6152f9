"""Modelled CPU energy: CPU seconds of the process times a stated power per core."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.sources import Sensor, Settings

W_PER_CORE_ENV = "LLM_ENERGY_MEASURE_W_PER_CORE"
"""Environment variable with the power of one busy core, in watts. An argument overrides it."""


class CpuModel:
    """CPU time of this process (all its threads, not its children) times the stated power of one busy core.

    Two processes never share a CPU second, so no joule counts twice. The model includes no energy of waiting, of the
    memory, or of the idle machine. There is no default power, because the power per core differs by a factor of ten
    between processors.

    Args:
        w_per_core: Power of one busy core, in watts; by default the value of the recording or of
            `LLM_ENERGY_MEASURE_W_PER_CORE`.
        cpu_seconds: Returns CPU seconds since a fixed instant.
        is_cheap: Whether `cpu_seconds` can be called ten times per second.
    """

    name = "cpu_model"

    def __init__(
        self,
        w_per_core: float | None = None,
        *,
        cpu_seconds: Callable[[], float] = time.process_time,
        is_cheap: bool = True,
    ) -> None:
        self.w_per_core = w_per_core
        self.cpu_seconds = cpu_seconds
        self.is_cheap = is_cheap

    def open(self, settings: Settings) -> list[Sensor]:
        """Return one sensor.

        Raises:
            RecorderError: No power per core is stated.
            ConfigurationError: The stated power is not a number above 0. The run must not start with a wrong value.
        """
        doing = "cannot model the energy of the CPU"
        candidates = self.w_per_core, settings.w_per_core, settings.environ.get(W_PER_CORE_ENV) or None
        stated: float | str | None = next((value for value in candidates if value is not None), None)
        if stated is None:
            advice = f"state the power of one busy core in W: w_per_core, --w-per-core or {W_PER_CORE_ENV}"
            raise RecorderError(doing, "the power per core is not stated", advice)
        try:
            watts = float(stated)
        except ValueError:
            watts = math.nan
        if not 0 < watts < math.inf:
            raise ConfigurationError(doing, f"the power per core is {stated!r}", "state a number of watts above 0")
        return [
            Sensor(
                source=self.name,
                instance=f"{watts:g} W per core",
                component="cpu",
                scope="process",
                provenance="modelled",
                read=lambda: self.cpu_seconds() * watts,
                is_cheap=self.is_cheap,
            )
        ]

    def close(self) -> None:
        """Do nothing: this source keeps no resource open."""

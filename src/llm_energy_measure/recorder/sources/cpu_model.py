"""A model, no measurement: CPU seconds of the process times a stated power of one core."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_energy_measure.recorder.sources import Setting

W_PER_CORE_ENV = "LLM_ENERGY_MEASURE_W_PER_CORE"
"""Environment variable that states the watts of one busy core where no argument does."""


class CpuModel:
    """CPU time of this process (all its threads, not its children) times watts that somebody stated.

    Processes share no CPU second, so they share no joule; waiting costs nothing, and memory and the idle machine are
    left out. There is no default power: cores differ by a factor of ten.

    Args:
        w_per_core: Watts of one busy core; by default what the recording, or `LLM_ENERGY_MEASURE_W_PER_CORE`, states.
        cpu_seconds: CPU seconds since some instant.
        is_cheap: Whether they can be had ten times a second.
    """

    name = "cpu_model"

    def __init__(
        self,
        w_per_core: float | None = None,
        *,
        cpu_seconds: Callable[[], float] = time.process_time,
        is_cheap: bool = True,
    ) -> None:
        """Remember the watts; nothing is read."""
        self.w_per_core = w_per_core
        self.cpu_seconds = cpu_seconds
        self.is_cheap = is_cheap

    def open(self, setting: Setting) -> list[Sensor]:
        """One sensor.

        Raises:
            RecorderError: Nobody stated the watts.
            ConfigurationError: What was stated is no power. The run must not begin: who states one wants it.
        """
        doing = "cannot model the energy of the CPU"
        all_stated = self.w_per_core, setting.w_per_core, setting.environ.get(W_PER_CORE_ENV) or None
        stated: float | str | None = next((one for one in all_stated if one is not None), None)
        if stated is None:
            advice = f"state the power of one busy core in W: w_per_core, --w-per-core or {W_PER_CORE_ENV}"
            raise RecorderError(doing, "nobody stated the watts of a core", advice)
        try:
            watts = float(stated)
        except ValueError:
            watts = math.nan
        if not 0 < watts < math.inf:
            raise ConfigurationError(doing, f"{stated!r} was stated as the watts of a core", "state a number above 0")

        def read() -> float:
            return self.cpu_seconds() * watts

        return [
            Sensor(
                source=self.name,
                instance=f"{watts:g} W per core",
                component="cpu",
                scope="process",
                provenance="modelled",
                read=read,
                is_cheap=self.is_cheap,
            )
        ]

    def close(self) -> None:
        """Nothing is held."""

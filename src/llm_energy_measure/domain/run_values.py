"""The values of a run from which `RawProcessResult.of` builds a record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from llm_energy_measure.domain.metrics import EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.domain.units import ratio
from llm_energy_measure.exceptions import ConfigurationError


class RunValues(Struct, frozen=True, kw_only=True):
    """Arguments of `RawProcessResult.of`. `components_j` has the energies of components, in joules, by field name."""

    start: datetime | str | float | None
    end: datetime | str | float | None
    duration_sec: float | None
    energy_j: float | None
    components_j: dict[str, float | None]
    input_tokens: int | None
    output_tokens: int | None
    inference_time_sec: float | None

    def require_complete(self, experiment_id: str, fields: Mapping[str, Any], known: Collection[str]) -> None:
        """Raise one `ConfigurationError` that names all missing values, or all unknown names in `fields`."""
        missing = {
            "start and end, or duration_sec": self.duration_sec is None and (self.start is None or self.end is None),
            "energy_j, or the energy of a component": {self.energy_j, *self.components_j.values()} == {None},
            "input_tokens": self.input_tokens is None and self.output_tokens is not None,
            "output_tokens": self.output_tokens is None and self.input_tokens is not None,
        }
        doing = f"cannot make a record of {experiment_id!r}"
        if found := [name for name, is_missing in missing.items() if is_missing]:
            advice = "pass all of these; if a value is unknown, use RawProcessResult(...), not RawProcessResult.of(...)"
            raise ConfigurationError(doing, f"missing: {'; '.join(found)}", advice)
        if unknown := sorted(fields.keys() - set(known)):
            raise ConfigurationError(doing, f"no field {', '.join(unknown)}", f"the fields are {', '.join(known)}")

    def parts(self) -> dict[str, Any]:
        """Return values of the record by field name; unknown values are None."""
        times = Timestamps(start=None, end=None, duration_sec=self.duration_sec)
        if self.start is not None and self.end is not None:
            times = Timestamps.from_times(self.start, self.end)
            times = times if self.duration_sec is None else times.replace(duration_sec=self.duration_sec)
        energy: dict[str, Any] = {"total_energy_j": self.energy_j, **self.components_j}
        return {
            **dict.fromkeys(("gpu_id", "config_name", "model_name", "compute_metrics")),
            "timestamps": times,
            "inference_metrics": self._inference(times.duration_sec),
            "energy_metrics": EnergyMetrics(duration_sec=times.duration_sec, **energy),
        }

    def _inference(self, duration_sec: float | None) -> InferenceMetrics | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        time_sec = duration_sec if self.inference_time_sec is None else self.inference_time_sec
        total = self.input_tokens + self.output_tokens
        return InferenceMetrics(
            total_tokens=total,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            inference_time_sec=time_sec,
            tokens_per_second=ratio(total, time_sec),
        )

"""Folders of this project's own older results, from before the format had a version ("1.x").

An experiment is a folder, or the files of one whose names begin alike. It has up to eight kinds of JSON file: setup,
variables, architecture, inference and compute metrics (once each, written by the main process), energy of each process,
and the original's own total. Energy stands in kWh and in J, and both have to agree. `gpu_power` is one instantaneous
sample: energy is never made from it.

Source: the result folders of LLM-efficiency-experimental-data-analysis-MSc-thesis.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.metrics import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    Timestamps,
)
from llm_energy_measure.domain.units import kwh_to_j
from llm_energy_measure.importers.cells import boards, identifier, number, text, whole
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import parsed
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks
from llm_energy_measure.importers.work import work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.importers.bounded import Original

TOOL = "llm-energy-measure 1.x"

# What each kind of file is known by: fields that it has and no other kind.
_KINDS: dict[str, set[str]] = {
    "process": {"local_process_index", "energy_results"},
    "setup": {"experiment_id", "date_time", "model"},
    "variables": {"config_name", "number_input_prompts"},
    "architecture": {"total_params", "architecture"},
    "inference": {"raw_inference_metrics"},
    "compute": {"flops", "compute_utilisation"},
    "total": {"local_process_results", "global_experiment_results"},
}
_NAMES = {
    "1_experiment_setup": "setup",
    "2_experiment_variables": "variables",
    "3_model_architecture": "architecture",
    "4_inference_metrics": "inference",
    "5_compute_metrics": "compute",
    "6_local_energy_results_process_[0-9]+": "process",
    "7_global_energy_results": "total",
    "8_text_output": "output",
}
_TOLERANCE = 1e-9
_MODELLED_CPU_W = 112.5
"""CPU power of every file of the collection: half of a 225 W board power, a constant and no reading."""


def _kind(original: Original) -> str | None:
    """What kind of file it is; an empty one is told by its name."""
    fields = set(original.fields)
    kind = next((kind for kind, wanted in _KINDS.items() if wanted <= fields), None)
    if kind is None and not original.data:
        kind = next((kind for name, kind in _NAMES.items() if re.search(rf"_{name}\.json$", original.path.name)), None)
    return kind


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each process whose energy can be read."""
    del options
    folder = _Folder(originals, report)
    experiment_id = _experiment(originals)
    seen: set[int] = set()
    total_j = 0.0
    good: list[tuple[Original, int, dict[str, Any]]] = []
    for original in folder.processes:
        try:
            index, energy = _energy_of(original)
        except RefusedFileError as refused:
            report.refuse(original.shown, refused.code, refused.sentence)
            continue
        if index in seen:
            report.refuse(original.shown, "duplicate", f"another file says what process {index} measured")
            continue
        seen.add(index)
        total_j += energy["total_energy_joules"]
        good.append((original, index, energy))
    if not folder.processes:
        sentence = f"no file in {originals[0].path.parent} says what a process measured"
        report.refuse(originals[0].shown, "no_measurement", sentence)
    told = folder.remarks_on_total(total_j)
    for original, index, energy in sorted(good, key=lambda found: found[1]):
        remarks = Remarks()
        for code, sentence in [*_remarks_on(energy), *told, *folder.problems]:
            remarks.note(code, sentence)
        told, folder.problems = [], []  # said once an experiment
        yield report.record(original.shown, folder.record(experiment_id, original, index, energy), remarks)


def _experiment(originals: list[Original]) -> str:
    """The folder's name, and that of the files where it is another: a folder can hold several experiments."""
    folder = originals[0].path.resolve().parent.name
    name = next((name for original in originals if (name := FORMAT.measurement_of(original.path.name))), "")
    return identifier(folder or "legacy", "" if folder.endswith(name) else name)


def _energy_of(original: Original) -> tuple[int, dict[str, Any]]:
    """Process index and energy of a process's file, once both units agree."""
    if not original.data.strip():
        raise RefusedFileError("empty_file", "it is empty (0 bytes): what its process measured is lost")
    document = original.json()
    index, energy = document["local_process_index"], document["energy_results"]
    if type(index) is not int or not 0 <= index < MAX_PROCESSES or not isinstance(energy, dict):
        raise RefusedFileError("missing_field", f"local_process_index is {index!r}, energy_results {type(energy)}")
    kwh, joules = number(energy.get("total_energy_kwh")), number(energy.get("total_energy_joules"))
    if joules is None:
        found = f"total_energy_joules is {energy.get('total_energy_joules')!r}"
        raise RefusedFileError("missing_field", found)
    if kwh is None or not math.isclose(kwh_to_j(kwh), joules, rel_tol=_TOLERANCE):
        found = f"total_energy_joules is {joules!r} and total_energy_kwh {energy.get('total_energy_kwh')!r}"
        raise RefusedFileError("energy_disagrees", found)
    return index, energy


def _remarks_on(energy: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [number(energy.get(f"{name}_energy")) for name in ("cpu", "gpu", "ram")]
    known = [part for part in parts if part is not None]
    if len(known) == len(parts) and not math.isclose(sum(known), energy["total_energy_kwh"], rel_tol=_TOLERANCE):
        return [("components_disagree", f"cpu, gpu and ram energy sum to {sum(known)!r} kWh")]
    return []


class _Folder:
    """The files of one experiment, by kind."""

    def __init__(self, originals: list[Original], report: LossReport) -> None:
        """Sort and parse the files; what can't be parsed is told, and taken for absent."""
        first: dict[str, str] = {}
        self.processes = [original for original in originals if _kind(original) == "process"]
        self.documents: dict[str, dict[str, Any]] = {}
        self.problems: list[tuple[str, str]] = []
        for original in originals:
            kind = _kind(original)
            if kind is None or kind == "process":
                continue
            if not original.data:
                self.problems.append(("part_unreadable", f"{original.path.name} is empty (0 bytes)"))
                continue
            if first.setdefault(kind, original.path.name) != original.path.name:
                report.refuse(original.shown, "duplicate", f"{first[kind]} is taken for what both of them say")
                continue
            try:
                self.documents[kind] = parsed(original.data, original.path.name)
            except RefusedFileError as refused:
                self.problems.append(("part_unreadable", refused.sentence))

    def remarks_on_total(self, total_j: float) -> list[tuple[str, str]]:
        """Whether the original's own total is the sum of its processes."""
        own = number(_dict(self.documents.get("total"), "global_experiment_results").get("total_energy_joules"))
        if own is None or math.isclose(own, total_j, rel_tol=_TOLERANCE):
            return []
        return [("own_aggregate_differs", f"the original's own total is {own!r} J, its processes sum to {total_j!r} J")]

    def record(self, experiment_id: str, original: Original, index: int, energy: dict[str, Any]) -> RawProcessResult:
        """The record of one process."""
        setup, variables = self.documents.get("setup", {}), self.documents.get("variables", {})
        number_of_boards, board = boards(text(setup.get("gpu_model")))
        accelerate = _dict(variables, "accelerate_config")
        size = whole(accelerate.get("num_processes"))
        return RawProcessResult(
            experiment_id=experiment_id,
            backend=text(variables.get("backend")),
            process_index=index,
            gpu_id=None,
            gpu_name=board,
            config_name=text(variables.get("config_name")),
            model_name=text(setup.get("model")),
            timestamps=Timestamps(start=_start(setup.get("date_time")), end=None, duration_sec=None),
            inference_metrics=self._inference() if index == 0 else None,
            energy_metrics=_energy(energy, number_of_boards, board),
            compute_metrics=self._compute() if index == 0 else None,
            effective_config=variables | self._rest(energy),
            world_size=size if size and size <= MAX_PROCESSES else None,
            origin=original.origin(TOOL),
        )

    def _inference(self) -> InferenceMetrics | None:
        """The work of the main process."""
        document = self.documents.get("inference")
        raw, performance = _dict(document, "raw_inference_metrics"), _dict(document, "inference_performance")
        return work(
            whole(raw.get("total_input_tokens")),
            whole(raw.get("total_generated_tokens")),
            inference_time_sec=number(performance.get("total_inference_time_sec")),
            tokens_per_second=number(performance.get("throughput_tokens_per_sec")),
        )

    def _compute(self) -> ComputeMetrics | None:
        """The computation of the main process."""
        document = self.documents.get("compute")
        if document is None:
            return None
        peak = number(_dict(document, "memory").get("gpu_max_memory_allocated_bytes"))
        precision = text(self.documents.get("variables", {}).get("fp_precision"))
        return ComputeMetrics(
            flops_total=number(document.get("flops")),
            peak_memory_mb=None if peak is None else peak / 2**20,
            compute_precision=None if precision is None else precision.removeprefix("torch."),
        )

    def _rest(self, energy: dict[str, Any]) -> dict[str, Any]:
        """What no field of a record holds, as it stood."""
        kinds = ("setup", "architecture", "inference", "compute")
        rest: dict[str, Any] = {kind: self.documents[kind] for kind in kinds if kind in self.documents}
        return {"legacy": {**rest, "energy_results": energy}}


def _energy(energy: dict[str, Any], number_of_boards: int | None, board: str | None) -> EnergyMetrics:
    """Energy of one process. What its sensors saw is not said: that it was the whole node is for a check to find."""
    joules = {name: _joules(energy.get(f"{name}_energy")) for name in ("cpu", "gpu", "ram")}
    is_constant = energy.get("cpu_power") == _MODELLED_CPU_W
    cpu_j = joules["cpu"]
    return EnergyMetrics(
        total_energy_j=energy["total_energy_joules"],
        duration_sec=cpu_j / _MODELLED_CPU_W if is_constant and cpu_j else None,
        gpu_energy_j=joules["gpu"],
        cpu_energy_j=cpu_j,
        ram_energy_j=joules["ram"],
        gpu_power_w=number(energy.get("gpu_power")),
        cpu_power_w=number(energy.get("cpu_power")),
        emissions_kg_co2=number(energy.get("final_emissions")),
        cpu_provenance="modelled" if is_constant else None,
        ram_provenance=None if joules["ram"] is None else "modelled",
        devices=[DeviceEnergy(gpu_name=board)] * number_of_boards if number_of_boards else None,
    )


def _joules(energy_kwh: object) -> float | None:
    kwh = number(energy_kwh)
    return None if kwh is None else kwh_to_j(kwh)


def _start(stamp: object) -> datetime | None:
    """The zone-less local start, such as `April 11, 2025 at 01:24:25 PM`."""
    try:
        return datetime.strptime(str(stamp), "%B %d, %Y at %I:%M:%S %p")  # noqa: DTZ007 - the file has no zone
    except ValueError:
        return None


def _dict(document: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """An object inside an object, or an empty one."""
    inner = (document or {}).get(name)
    return inner if isinstance(inner, dict) else {}


FORMAT = Format(
    name="legacy",
    looks_for="a folder with JSON that has local_process_index and energy_results",
    recognises=lambda original: _kind(original) is not None,
    read=_read,
    is_folder=True,
    part_names=rf"(.+?)_(?:{'|'.join(_NAMES)})\.json",
)

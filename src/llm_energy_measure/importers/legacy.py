"""Import result folders that this project wrote before its format had a version ("1.x").

An experiment is a folder, or the files of a folder whose names have the same prefix. The main process wrote one file
each for setup, variables, architecture, inference metrics and compute metrics. Other files have the energy of each
process, the total that the tool computed, and the text output. Energy is stored in kWh and in J, and both values must
agree. `gpu_power` is one instantaneous sample, so no energy is computed from it.

Source: the result folders of LLM-efficiency-experimental-data-analysis-MSc-thesis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from llm_energy_measure.constants import MAX_PROCESSES
from llm_energy_measure.domain.experiment import Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Timestamps
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import as_object, parse_json
from llm_energy_measure.importers.record_parts import imported_record, inference_metrics, unmeasured_devices
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import (
    as_integer,
    as_joules,
    as_number,
    as_text,
    identifier,
    parse_boards,
    parse_local_time,
)

TOOL = "llm-energy-measure 1.x"
"""Tool in the origin of all records. The verification uses this name to find out what the tool measured.

The files state no version.
"""

_KINDS: dict[str, tuple[str, set[str]]] = {
    "process": ("6_local_energy_results_process_[0-9]+", {"local_process_index", "energy_results"}),
    "setup": ("1_experiment_setup", {"experiment_id", "date_time", "model"}),
    "variables": ("2_experiment_variables", {"config_name", "number_input_prompts"}),
    "architecture": ("3_model_architecture", {"total_params", "architecture"}),
    "inference": ("4_inference_metrics", {"raw_inference_metrics"}),
    "compute": ("5_compute_metrics", {"flops", "compute_utilisation"}),
    "total": ("7_global_energy_results", {"local_process_results", "global_experiment_results"}),
    "output": ("8_text_output", set()),
}
"""File name and identifying fields of each kind of file. A file of text output is recognised only if it is empty."""
_TOLERANCE = 1e-9
_MODELLED_CPU_W = 112.5
"""CPU power in watts in all these files: a constant, half of a rated power of 225 W, and not a measurement."""


def _kind(source: ImportSource) -> str | None:
    """Return the kind of a file from its fields, or from its name if it is empty."""
    for kind, (name, wanted) in _KINDS.items():
        is_named = source.size == 0 and re.search(rf"_{name}\.json$", source.path.name)
        if is_named or (wanted and wanted <= set(source.fields)):
            return kind
    return None


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each process whose energy can be read."""
    del options
    folder = _Folder(sources, report)
    processes: dict[int, tuple[ImportSource, dict[str, Any]]] = {}
    for source in folder.processes:
        with report.refusing(source.path):
            index, energy = _energy_of(source)
            if index in processes:
                found = f"{processes[index][0].path.name} contains process {index} too, and is imported"
                raise RefusedInputError("duplicate", f"{found}; remove one of the two files")
            processes[index] = source, energy
    if not folder.processes:
        found = f"no file in {sources[0].path.parent} contains the energy of a process"
        report.refuse(sources[0].path, "no_measurement", f"{found}; import the folder with the process files")
    total_j = sum(energy["total_energy_joules"] for _, energy in processes.values())
    of_experiment = [*folder.notes_on_total(total_j), *folder.problems]
    experiment_id = _experiment_id(sources)
    for index, (source, energy) in sorted(processes.items()):
        notes = Notes()
        for code, message in [*_notes_on_components(energy), *of_experiment]:
            notes.add(code, message)
        of_experiment = []  # the first record of the experiment has these notes
        yield report.record(source.path, folder.record(experiment_id, source, index, energy), notes)


def _experiment_id(sources: list[ImportSource]) -> str:
    """Return the folder name, followed by the prefix of the file names unless the folder name ends with this prefix."""
    folder = sources[0].path.resolve().parent.name
    name = next((name for source in sources if (name := FORMAT.measurement_of(source.path.name))), "")
    return identifier(folder or "legacy", "" if folder.endswith(name) else name)


def _energy_of(source: ImportSource) -> tuple[int, dict[str, Any]]:
    """Return the index and energy of a process; refuse a file in which energies in kWh and in J differ."""
    if not source.data.strip():
        raise RefusedInputError("empty_file", "the file is empty (0 bytes): the energy of its process is lost")
    document = source.json()
    index, energy = document["local_process_index"], document["energy_results"]
    if type(index) is not int or not 0 <= index < MAX_PROCESSES:
        raise RefusedInputError("missing_field", f"local_process_index is {index!r}, not 0 to {MAX_PROCESSES - 1}")
    if not isinstance(energy, dict):
        raise RefusedInputError("missing_field", "energy_results is not an object")
    joules, of_kwh = as_number(energy.get("total_energy_joules")), as_joules(energy.get("total_energy_kwh"))
    found = f"total_energy_joules is {energy.get('total_energy_joules')!r}"
    if joules is None:
        raise RefusedInputError("missing_field", f"{found}, which is not a number of at least 0")
    if of_kwh is None or not math.isclose(of_kwh, joules, rel_tol=_TOLERANCE):
        found += f", but total_energy_kwh is {energy.get('total_energy_kwh')!r}"
        raise RefusedInputError("energy_disagrees", f"{found}, which is another energy; correct the wrong value")
    return index, energy


def _notes_on_components(energy: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [as_number(energy.get(f"{name}_energy")) for name in ("cpu", "gpu", "ram")]
    known = [part for part in parts if part is not None]
    total_kwh = energy["total_energy_kwh"]
    if len(known) < len(parts) or math.isclose(sum(known), total_kwh, rel_tol=_TOLERANCE):
        return []
    return [("components_disagree", f"CPU, GPU and RAM sum to {sum(known)!r} kWh, but the total is {total_kwh!r} kWh")]


class _Folder:
    """The files of one experiment by kind. `documents` lacks files that cannot be parsed; `problems` explains why."""

    def __init__(self, sources: list[ImportSource], report: ImportReport) -> None:
        self.processes = [source for source in sources if _kind(source) == "process"]
        self.documents: dict[str, dict[str, Any]] = {}
        self.problems: list[tuple[str, str]] = []  # code and message for each file that cannot be parsed
        first: dict[str, str] = {}
        for source in sources:
            kind, name = _kind(source), source.path.name
            if kind is None or kind == "process":
                continue
            if not source.data:
                self.problems.append(("part_unreadable", f"{name} is empty (0 bytes), so its values are null"))
            elif first.setdefault(kind, name) != name:
                found = f"{first[kind]} has the same kind of values and is imported; remove one of the two files"
                report.refuse(source.path, "duplicate", found)
            else:
                try:
                    self.documents[kind] = parse_json(source.data, name)
                except RefusedInputError as error:
                    self.problems.append(("part_unreadable", f"{error.message}; until then its values are null"))

    def _part(self, kind: str, *names: str) -> dict[str, Any]:
        """Return the content of a kind of file, or an object inside it; empty if it is missing."""
        document = self.documents.get(kind, {})
        for name in names:
            document = as_object(document.get(name))
        return document

    def notes_on_total(self, total_j: float) -> list[tuple[str, str]]:
        """Return a note if the total that the tool computed is not the sum over the processes."""
        own_j = as_number(self._part("total", "global_experiment_results").get("total_energy_joules"))
        if own_j is None or math.isclose(own_j, total_j, rel_tol=_TOLERANCE):
            return []
        found = f"the tool's own total is {own_j!r} J, but the imported processes sum to {total_j!r} J"
        return [("own_aggregate_differs", found)]

    def record(self, experiment_id: str, source: ImportSource, index: int, energy: dict[str, Any]) -> RawProcessResult:
        """Return the record of one process; only the main process has inference and compute metrics."""
        setup, variables = self._part("setup"), self._part("variables")
        boards, board = parse_boards(as_text(setup.get("gpu_model")))
        world_size = as_integer(self._part("variables", "accelerate_config").get("num_processes"))
        kinds = [kind for kind in ("setup", "architecture", "inference", "compute") if kind in self.documents]
        # The configuration keeps the values that no field of a record can store.
        legacy: dict[str, Any] = {kind: self.documents[kind] for kind in kinds} | {"energy_results": energy}
        return imported_record(
            experiment_id,
            backend=as_text(variables.get("backend")),
            process_index=index,
            gpu_name=board,
            config_name=as_text(variables.get("config_name")),
            model_name=as_text(setup.get("model")),
            # `date_time` is a local time without a zone, such as `April 11, 2025 at 01:24:25 PM`.
            timestamps=Timestamps(
                start=parse_local_time(setup.get("date_time"), "%B %d, %Y at %I:%M:%S %p"), end=None, duration_sec=None
            ),
            inference_metrics=self._inference() if index == 0 else None,
            energy_metrics=_energy(energy, boards, board),
            compute_metrics=self._compute() if index == 0 else None,
            effective_config=variables | {"legacy": legacy},
            world_size=world_size if world_size and world_size <= MAX_PROCESSES else None,
            launcher=Launcher(local_rank=index),  # `local_process_index` counts the processes of one host
            origin=source.origin(TOOL),
        )

    def _inference(self) -> InferenceMetrics | None:
        raw = self._part("inference", "raw_inference_metrics")
        performance = self._part("inference", "inference_performance")
        return inference_metrics(
            as_integer(raw.get("total_input_tokens")),
            as_integer(raw.get("total_generated_tokens")),
            inference_time_sec=as_number(performance.get("total_inference_time_sec")),
            tokens_per_second=as_number(performance.get("throughput_tokens_per_sec")),
        )

    def _compute(self) -> ComputeMetrics | None:
        if "compute" not in self.documents:
            return None
        peak_bytes = as_number(self._part("compute", "memory").get("gpu_max_memory_allocated_bytes"))
        precision = as_text(self._part("variables").get("fp_precision"))
        return ComputeMetrics(
            flops_total=as_number(self._part("compute").get("flops")),
            peak_memory_mb=None if peak_bytes is None else peak_bytes / 2**20,
            compute_precision=None if precision is None else precision.removeprefix("torch."),
        )


def _energy(energy: dict[str, Any], boards: int | None, board: str | None) -> EnergyMetrics:
    """Return the energy of one process. The scope is None, because the files do not state what the sensors cover."""
    cpu_j, ram_j = as_joules(energy.get("cpu_energy")), as_joules(energy.get("ram_energy"))
    is_constant = energy.get("cpu_power") == _MODELLED_CPU_W
    return EnergyMetrics(
        total_energy_j=energy["total_energy_joules"],
        duration_sec=cpu_j / _MODELLED_CPU_W if is_constant and cpu_j else None,
        gpu_energy_j=as_joules(energy.get("gpu_energy")),
        cpu_energy_j=cpu_j,
        ram_energy_j=ram_j,
        gpu_power_w=as_number(energy.get("gpu_power")),
        cpu_power_w=as_number(energy.get("cpu_power")),
        emissions_kg_co2=as_number(energy.get("final_emissions")),
        cpu_provenance="modelled" if is_constant else None,
        ram_provenance=None if ram_j is None else "modelled",
        devices=unmeasured_devices(board, boards),
    )


FORMAT = Format(
    name="legacy",
    looks_for="a folder with JSON that has local_process_index and energy_results",
    recognises=lambda source: _kind(source) is not None,
    read=_read,
    is_folder=True,
    part_names=rf"(.+?)_(?:{'|'.join(name for name, _ in _KINDS.values())})\.json",
    covers="unknown: the files do not state whether each process measured the whole host",
    unknown="host, GPU of a process, end of the run, metrics of processes other than 0",
)

"""Runs of optimum-benchmark: a report, its configuration, and CodeCarbon's figures of each task, in one folder.

Each phase is an experiment of its own. The report's energy is a mean over the local ranks, each of which saw the
machine: the scope is the host, and the record stands for all ranks. `generate` is prefill and decode together and is
never added to them; where there is no decode, it is what generate has more than prefill. Times are those of
CodeCarbon's files; decode has none of its own.

Source: optimum-benchmark, `benchmark_report.json`, `benchmark_config.json` and `<task>_codecarbon.json`.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

from llm_energy_measure.domain.experiment import Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, DeviceEnergy, EnergyMetrics, Timestamps
from llm_energy_measure.domain.units import JOULES_PER_KWH, kwh_to_j
from llm_energy_measure.importers.cells import boards, identifier, number, shifted, text, time_in, whole
from llm_energy_measure.importers.codecarbon import is_constant
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import RefusedFileError
from llm_energy_measure.importers.loss import LossReport, Remarks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_energy_measure.importers.bounded import Original

TOOL = "optimum-benchmark"

_TARGETS = frozenset(
    [
        "load_dataset",
        "preprocess_dataset",
        "load_model",
        "prefill",
        "decode",
        "per_token",
        "forward",
        "call",
        "train",
        "generate",
        "warmup",
    ]
)
_MEASURES = {"memory", "latency", "throughput", "energy", "efficiency"}
_CONFIG = {"scenario", "launcher", "environment", "backend"}
_CARBON = {"timestamp", "duration", "energy_consumed", "codecarbon_version", "run_id"}
_OWN_NAMES = ("benchmark_report.json", "benchmark_config.json", "benchmark.json")
_TASK = re.compile(r"(.+)_codecarbon\.json")
_TOLERANCE = 1e-9
_MIB_PER_MB = 1e6 / 2**20


def _kind(original: Original) -> str | None:
    """What kind of file it is."""
    fields = set(original.fields)
    if fields >= _CONFIG:
        return "config"
    if fields >= _CARBON:
        return "carbon"
    if fields == {"config", "report"}:
        return "both"
    if fields and fields <= _TARGETS and all(b'"energy"' in bytes(value) for value in original.fields.values()):
        return "report"
    return None


def _turn(original: Original) -> int:
    """When it is a file's turn: what the tool writes comes in the order in which it counts, and then copies of it."""
    name = original.path.name
    return _OWN_NAMES.index(name) if name in _OWN_NAMES else len(_OWN_NAMES) + (_TASK.fullmatch(name) is None)


class _Run:
    """The files of one run, parsed."""

    def __init__(self, originals: list[Original], report: LossReport) -> None:
        """Parse each file; what can't be parsed is refused and taken for absent."""
        self.report_file: Original | None = None
        self.has_unreadable_report = False
        self.report: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.carbon: dict[str, tuple[Original, dict[str, Any]]] = {}
        for original in sorted(originals, key=_turn):
            try:
                self._take(original, original.json())
            except RefusedFileError as refused:
                report.refuse(original.shown, refused.code, refused.sentence)
                self.has_unreadable_report |= _kind(original) in ("report", "both")

    def _take(self, original: Original, document: dict[str, Any]) -> None:
        """Put a file in its place.

        Raises:
            RefusedFileError: Another one is there.
        """
        kind = _kind(original)
        if kind == "carbon":
            match = _TASK.fullmatch(original.path.name)
            task = match[1] if match else original.path.stem
            if task in self.carbon:
                raise RefusedFileError("duplicate", f"{self.carbon[task][0].path.name} says it already")
            self.carbon[task] = original, document
        elif kind == "config":
            if self.config:
                raise RefusedFileError("duplicate", "another file is the run's configuration")
            self.config = document
        else:
            if self.report_file is not None:
                raise RefusedFileError("duplicate", f"{self.report_file.path.name} says it already")
            found, config = (document["report"], document["config"]) if kind == "both" else (document, {})
            if not isinstance(found, dict) or not isinstance(config, dict):
                raise RefusedFileError("missing_field", "its report or its config is no object")
            self.report, self.report_file = found, original
            self.config = self.config or config

    @property
    def is_interrupted(self) -> bool:
        """True if the run never came to write its report."""
        return self.report_file is None and not self.has_unreadable_report

    @property
    def ranks(self) -> int | None:
        """Local ranks that the report is a mean over; None if the launcher does not say."""
        launcher = _dict(self.config, "launcher")
        return whole(launcher.get("nproc_per_node")) or (1 if launcher.get("name") in ("process", "inline") else None)

    @property
    def name(self) -> str:
        """The same for the same run, wherever its files lie."""
        runs = [text(document.get("run_id")) for _, document in self.carbon.values()]
        digest = (runs[0] or "")[:8] if runs else ""
        if not digest and self.report_file is not None:
            digest = hashlib.sha256(self.report_file.data).hexdigest()[:8]
        return identifier(TOOL, text(self.config.get("name")) or "run", digest)


def _read(originals: list[Original], options: Options, report: LossReport) -> Iterator[RawProcessResult]:
    """One record for each phase that has energy."""
    del options
    run = _Run(originals, report)
    seen = report.seen
    phases = _phases(run, report)
    if not phases and report.seen == seen:
        shown = (run.report_file or originals[0]).shown
        report.refuse(shown, "no_measurement", "no phase of the run has energy: a configuration, or a run without it")
    for phase, (file, kwh) in phases.items():
        remarks = Remarks()
        if run.report_file is None and run.has_unreadable_report:
            remarks.note("part_unreadable", "the report can't be read; this is what CodeCarbon's file has of the phase")
        if run.is_interrupted:
            remarks.repair("incomplete_run", "the run has no report: it was interrupted, and this phase was measured")
        carbon = run.carbon.get(phase, (None, {}))[1]
        own = number(carbon.get("energy_consumed"))
        if own is not None and kwh["total"] is not None and not math.isclose(own, kwh["total"], rel_tol=_TOLERANCE):
            remarks.note("own_aggregate_differs", f"CodeCarbon says {own!r} kWh and the report {kwh['total']!r}")
        try:
            record = _record(run, phase, file, kwh, carbon)
        except RefusedFileError as refused:
            report.refuse(file.shown, refused.code, f"{phase}: {refused.sentence}")
            continue
        yield report.record(file.shown, record, remarks)


_Phase = tuple["Original", dict[str, "float | None"]]
"""The file that says it, and energy in kWh, of a phase."""


def _phases(run: _Run, report: LossReport) -> dict[str, _Phase]:
    """Energy of each phase in kWh, from the report, else from CodeCarbon's files; never generate beside its parts."""
    phases: dict[str, _Phase] = {}
    if run.report_file is not None:
        for phase, measures in run.report.items():
            energy = measures.get("energy") if isinstance(measures, dict) else None
            if isinstance(energy, dict):
                is_kwh = energy.get("unit") == "kWh"
                phases[phase] = run.report_file, {name: number(energy.get(name)) if is_kwh else None for name in _PARTS}
    else:
        phases = {phase: (file, _carbon_kwh(document)) for phase, (file, document) in run.carbon.items()}
    for phase, (file, kwh) in phases.items():
        if kwh["total"] is None:
            report.refuse(file.shown, "no_measurement", f"{phase} has no total of its energy in kWh")
    return _with_decode({phase: (file, kwh) for phase, (file, kwh) in phases.items() if kwh["total"] is not None})


def _with_decode(found: dict[str, _Phase]) -> dict[str, _Phase]:
    """Prefill and decode in place of generate, which is both together, where they are known."""
    if {"prefill", "decode"} <= set(found):
        found.pop("generate", None)
    elif {"generate", "prefill"} <= set(found):
        file, whole = found.pop("generate")
        prefill = found["prefill"][1]
        decode = {
            name: None if (all_of := whole[name]) is None or (part := prefill[name]) is None else all_of - part
            for name in _PARTS
        }
        is_more = all(value is None or value >= 0 for value in decode.values())
        found["decode" if is_more else "generate"] = file, decode if is_more else whole
    return found


_PARTS = ("cpu", "ram", "gpu", "total")


def _carbon_kwh(document: dict[str, Any]) -> dict[str, float | None]:
    kwh = {name: number(document.get(f"{name}_energy")) for name in ("cpu", "ram", "gpu")}
    return {**kwh, "total": number(document.get("energy_consumed"))}


def _record(
    run: _Run, phase: str, file: Original, kwh: dict[str, float | None], carbon: dict[str, Any]
) -> RawProcessResult:
    """The record of one phase."""
    backend, environment = _dict(run.config, "backend"), _dict(run.config, "environment")
    measures = _dict(run.report, phase)
    launched_by = text(_dict(run.config, "launcher").get("name"))
    ids = str(backend.get("device_ids"))
    gpus = environment.get("gpu")
    names = [name for name in gpus if isinstance(name, str)] if isinstance(gpus, list) else []
    # One name without a list says which boards they are, and not how many.
    board = names[0] if names else text(gpus) or boards(text(carbon.get("gpu_model")))[1]
    return RawProcessResult(
        experiment_id=identifier(run.name, phase),
        backend=text(backend.get("name")),
        backend_version=text(backend.get("version")),
        process_index=0,
        gpu_id=int(ids) if ids.isdecimal() and len(ids) < 4 else None,
        gpu_name=board,
        config_name=text(run.config.get("name")),
        model_name=text(backend.get("model")),
        timestamps=_stamps(carbon),
        inference_metrics=None,
        energy_metrics=_energy(run, phase, kwh, carbon, names),
        compute_metrics=_memory(measures),
        # How many ranks the one record stands for. As a world size it would make the others missing processes.
        effective_config=run.config | {TOOL: {"phase": phase, "n_ranks": run.ranks, **measures}},
        launcher=None if launched_by is None else Launcher(name=launched_by),
        origin=file.origin(TOOL, text(environment.get("optimum_benchmark_version"))),
        status="interrupted" if run.is_interrupted else None,
        library_versions=_versions(environment, backend),
    )


def _stamps(carbon: dict[str, Any]) -> Timestamps:
    end, duration = time_in(str(carbon.get("timestamp"))), number(carbon.get("duration"))
    start = shifted(end, -duration) if end is not None and duration is not None else None
    if start is None and end is not None and duration is not None:
        found = f"duration is {duration!r}, and there is no time so long before {end.isoformat()}"
        raise RefusedFileError("impossible_value", found)
    return Timestamps(start=start, end=end, duration_sec=duration)


def _energy(
    run: _Run, phase: str, kwh: dict[str, float | None], carbon: dict[str, Any], names: list[str]
) -> EnergyMetrics:
    """Energy of one phase, of the whole host."""
    joules = {name: None if value is None else kwh_to_j(value) for name, value in kwh.items()}
    efficiency = _dict(_dict(run.report, phase), "efficiency")
    per_kwh = number(efficiency.get("value")) if efficiency.get("unit") == "tokens/kWh" else None
    duration = number(carbon.get("duration"))
    if phase == "decode" and duration is None and {"generate", "prefill"} <= set(run.carbon):
        whole, part = (number(run.carbon[name][1].get("duration")) for name in ("generate", "prefill"))
        duration = whole - part if whole is not None and part is not None and whole >= part else None
    is_modelled = is_constant(number(carbon.get("cpu_power")))
    boards_known = [DeviceEnergy(gpu_name=name) for name in names]
    return EnergyMetrics(
        total_energy_j=joules["total"],
        duration_sec=duration,
        gpu_energy_j=joules["gpu"],
        cpu_energy_j=joules["cpu"],
        ram_energy_j=joules["ram"],
        gpu_power_w=number(carbon.get("gpu_power")),
        cpu_power_w=number(carbon.get("cpu_power")),
        emissions_kg_co2=number(carbon.get("emissions")),
        energy_per_token_j=JOULES_PER_KWH / per_kwh if per_kwh else None,
        total_scope="host",
        gpu_scope=None if joules["gpu"] is None else "host",
        gpu_provenance="measured" if joules["gpu"] is not None and any("NVIDIA" in name for name in names) else None,
        cpu_scope=None if joules["cpu"] is None else "host",
        cpu_provenance="modelled" if joules["cpu"] is not None and is_modelled else None,
        ram_scope=None if joules["ram"] is None else "host",
        ram_provenance=None if joules["ram"] is None else "modelled",
        devices=boards_known or None,
    )


def _memory(measures: dict[str, Any]) -> ComputeMetrics | None:
    memory = _dict(measures, "memory")
    peak_mb = number(memory.get("max_allocated")) if memory.get("unit") == "MB" else None
    return None if peak_mb is None else ComputeMetrics(flops_total=None, peak_memory_mb=peak_mb * _MIB_PER_MB)


def _versions(environment: dict[str, Any], backend: dict[str, Any]) -> dict[str, str] | None:
    found = {
        name.removesuffix("_version"): version
        for name, value in environment.items()
        if name.endswith("_version") and (version := text(value)) is not None
    }
    if (name := text(backend.get("name"))) is not None and (version := text(backend.get("version"))) is not None:
        found[name] = version
    return found or None


def _dict(document: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside an object, or an empty one."""
    inner = document.get(name)
    return inner if isinstance(inner, dict) else {}


FORMAT = Format(
    name=TOOL,
    looks_for="a folder with JSON of phases (prefill, decode, ...) that have energy, or of CodeCarbon's fields",
    recognises=lambda original: _kind(original) is not None,
    read=_read,
    is_folder=True,
)

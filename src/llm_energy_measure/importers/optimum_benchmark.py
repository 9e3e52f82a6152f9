"""Import runs of optimum-benchmark: a folder with a report, its configuration, and CodeCarbon's values of each task.

Each phase is an experiment. The energy in the report is a mean over the local ranks, and each rank measured the whole
machine. Therefore the scope is the host, and one record represents all ranks. The phase `generate` contains `prefill`
and `decode`, so the three energies are never added. If the report has no phase `decode`, its energy is the energy of
`generate` minus the energy of `prefill`. Start and end come from CodeCarbon's files, which do not contain `decode`.

Source: optimum-benchmark, `benchmark_report.json`, `benchmark_config.json` and `<task>_codecarbon.json`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

from llm_energy_measure.domain.experiment import Launcher, RawProcessResult
from llm_energy_measure.domain.metrics import ComputeMetrics, DeviceEnergy, EnergyMetrics
from llm_energy_measure.domain.units import JOULES_PER_KWH
from llm_energy_measure.importers.codecarbon import is_constant
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import as_object
from llm_energy_measure.importers.record_parts import component, imported_record, timestamps_before
from llm_energy_measure.importers.report import ImportReport, Notes, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource
from llm_energy_measure.importers.values import (
    as_integer,
    as_joules,
    as_number,
    as_text,
    identifier,
    parse_boards,
    parse_time,
)

TOOL = "optimum-benchmark"

_PHASES = frozenset(
    (
        *("load_dataset", "preprocess_dataset", "load_model", "prefill", "decode", "per_token", "forward", "call"),
        *("train", "generate", "warmup"),
    )
)
_CONFIG = {"scenario", "launcher", "environment", "backend"}
_CODECARBON = {"timestamp", "duration", "energy_consumed", "codecarbon_version", "run_id"}
_OWN_NAMES = ("benchmark_report.json", "benchmark_config.json", "benchmark.json")
_TASK = re.compile(r"(.+)_codecarbon\.json")
_COMPONENTS = ("cpu", "ram", "gpu", "total")
_TOLERANCE = 1e-9
_MIB_PER_MB = 1e6 / 2**20

_Energies = dict[str, float | None]
"""Energy in kWh of each of `_COMPONENTS`."""


def _kind(source: ImportSource) -> str | None:
    """Return the kind of a file, from its fields."""
    fields = set(source.fields)
    if fields >= _CONFIG:
        return "config"
    if fields >= _CODECARBON:
        return "codecarbon"
    if fields == {"config", "report"}:
        return "both"
    if fields and fields <= _PHASES and all(b'"energy"' in bytes(value) for value in source.fields.values()):
        return "report"
    return None


def _precedence(source: ImportSource) -> int:
    """Return the sort key of a file: files with the tool's own names come before renamed copies."""
    name = source.path.name
    return _OWN_NAMES.index(name) if name in _OWN_NAMES else len(_OWN_NAMES) + (_TASK.fullmatch(name) is None)


class _Run:
    """The parsed files of one run. A file that cannot be parsed is refused, and the run is read without this file."""

    def __init__(self, sources: list[ImportSource], report: ImportReport) -> None:
        self.report_file: ImportSource | None = None
        self.report: dict[str, Any] = {}  # measurements by phase
        self.config: dict[str, Any] = {}
        self.codecarbon: dict[str, tuple[ImportSource, dict[str, Any]]] = {}  # by task
        for source in sorted(sources, key=_precedence):
            with report.refusing(source.path):
                self._add(source, _kind(source), source.json())
        self.is_interrupted = not any(_kind(source) in ("report", "both") for source in sources)

    def _add(self, source: ImportSource, kind: str | None, document: dict[str, Any]) -> None:
        """Add the content of one file; refuse a second file of its kind."""
        if kind == "codecarbon":
            match = _TASK.fullmatch(source.path.name)
            task = match[1] if match else source.path.stem
            if task in self.codecarbon:
                raise _duplicate(self.codecarbon[task][0].path.name)
            self.codecarbon[task] = source, document
        elif kind == "config":
            if self.config:
                raise _duplicate("another file with a configuration")
            self.config = document
        elif self.report_file is not None:
            raise _duplicate(self.report_file.path.name)
        else:
            found, config = (document["report"], document["config"]) if kind == "both" else (document, {})
            if not isinstance(found, dict) or not isinstance(config, dict):
                raise RefusedInputError("missing_field", "its field report or config is not an object")
            self.report, self.report_file = found, source
            self.config = self.config or config

    @property
    def ranks(self) -> int | None:
        """Number of local ranks that the mean in the report covers; None if the launcher does not state the number."""
        launcher = as_object(self.config.get("launcher"))
        is_single = launcher.get("name") in ("process", "inline")
        return as_integer(launcher.get("nproc_per_node")) or (1 if is_single else None)

    @property
    def name(self) -> str:
        """First part of the experiment ids of the run. It does not depend on the folder of the files."""
        runs = [as_text(document.get("run_id")) for _, document in self.codecarbon.values()]
        digest = (runs[0] or "")[:8] if runs else ""
        if not digest and self.report_file is not None:
            digest = hashlib.sha256(self.report_file.data).hexdigest()[:8]
        return identifier(TOOL, as_text(self.config.get("name")) or "run", digest)

    def duration_sec(self, phase: str) -> float | None:
        """Duration of a phase in seconds; None if it is unknown.

        CodeCarbon does not measure `decode`, so its duration is the duration of `generate` minus that of `prefill`.
        """
        own = self._codecarbon_duration(phase)
        if own is not None or phase != "decode":
            return own
        generate, prefill = self._codecarbon_duration("generate"), self._codecarbon_duration("prefill")
        return generate - prefill if generate is not None and prefill is not None and generate >= prefill else None

    def _codecarbon_duration(self, phase: str) -> float | None:
        return as_number(self.codecarbon_of(phase).get("duration"))

    def codecarbon_of(self, phase: str) -> dict[str, Any]:
        """CodeCarbon's values of a phase; empty if there are none."""
        return self.codecarbon[phase][1] if phase in self.codecarbon else {}


def _duplicate(other: str) -> RefusedInputError:
    return RefusedInputError("duplicate", f"{other} has the same values and is imported; remove one of the two files")


def _read(sources: list[ImportSource], options: Options, report: ImportReport) -> Iterator[RawProcessResult]:
    """Yield one record for each phase with energy."""
    del options
    run = _Run(sources, report)
    seen = report.seen
    phases = _phases(run, report)
    if not phases and report.seen == seen:
        path = (run.report_file or sources[0]).path
        report.refuse(path, "no_measurement", "no phase has energy; repeat the run with scenario.energy=true")
    for phase, (source, kwh) in phases.items():
        notes = Notes()
        if run.is_interrupted:
            found = "the run was interrupted before it wrote the report, but after it measured this phase"
            notes.repair("incomplete_run", found)
        elif run.report_file is None:
            notes.add("part_unreadable", "the report cannot be read; the energy comes from CodeCarbon's file")
        own = as_number(run.codecarbon_of(phase).get("energy_consumed"))
        if own is not None and kwh["total"] is not None and not math.isclose(own, kwh["total"], rel_tol=_TOLERANCE):
            found = f"CodeCarbon's energy is {own!r} kWh, but the report has {kwh['total']!r} kWh, which is imported"
            notes.add("own_aggregate_differs", found)
        with report.refusing(source.path, prefix=f"{phase}: "):
            yield report.record(source.path, _record(run, phase, source, kwh), notes)


def _phases(run: _Run, report: ImportReport) -> dict[str, tuple[ImportSource, _Energies]]:
    """Return file and energy of each phase, from the report, or from CodeCarbon's files if there is no report."""
    if run.report_file is not None:
        found = {
            phase: (run.report_file, _energies(energy, "{}", is_kwh=energy.get("unit") == "kWh"))
            for phase, measurements in run.report.items()
            if isinstance(energy := as_object(measurements).get("energy"), dict)
        }
    else:
        found = {
            phase: (source, _energies(values | {"total_energy": values.get("energy_consumed")}, "{}_energy"))
            for phase, (source, values) in run.codecarbon.items()
        }
    for phase, (source, kwh) in found.items():
        if kwh["total"] is None:
            report.refuse(source.path, "no_measurement", f"{phase} has no total energy in kWh")
    phases = {phase: (source, kwh) for phase, (source, kwh) in found.items() if kwh["total"] is not None}
    return _with_decode(phases)


def _energies(values: dict[str, Any], key: str, *, is_kwh: bool = True) -> _Energies:
    """Return the energy of each component in kWh; None if it is unknown or has another unit."""
    return {name: as_number(values.get(key.format(name))) if is_kwh else None for name in _COMPONENTS}


def _with_decode(phases: dict[str, tuple[ImportSource, _Energies]]) -> dict[str, tuple[ImportSource, _Energies]]:
    """If `prefill` is known, return the phases without `generate`, which contains `prefill` and `decode`.

    If `decode` is missing, `generate` minus `prefill` is added as `decode`. If an energy of `decode` would be negative,
    the phases are returned unchanged.
    """
    if {"prefill", "decode"} <= set(phases):
        phases.pop("generate", None)
    elif {"generate", "prefill"} <= set(phases):
        source, generate = phases.pop("generate")
        prefill = phases["prefill"][1]
        decode = {
            name: None if (whole := generate[name]) is None or (part := prefill[name]) is None else whole - part
            for name in _COMPONENTS
        }
        if all(value is None or value >= 0 for value in decode.values()):
            phases["decode"] = source, decode
        else:
            phases["generate"] = source, generate
    return phases


def _record(run: _Run, phase: str, source: ImportSource, kwh: _Energies) -> RawProcessResult:
    codecarbon = run.codecarbon_of(phase)
    backend, environment = as_object(run.config.get("backend")), as_object(run.config.get("environment"))
    measurements = as_object(run.report.get(phase))
    launcher = as_text(as_object(run.config.get("launcher")).get("name"))
    device_ids, gpus = str(backend.get("device_ids")), environment.get("gpu")
    boards = [name for name in gpus if isinstance(name, str)] if isinstance(gpus, list) else []
    # One name without a list states the model of the boards, but not their number.
    board = boards[0] if boards else as_text(gpus) or parse_boards(as_text(codecarbon.get("gpu_model")))[1]
    end, duration_sec = parse_time(str(codecarbon.get("timestamp"))), as_number(codecarbon.get("duration"))
    return imported_record(
        identifier(run.name, phase),
        backend=as_text(backend.get("name")),
        backend_version=as_text(backend.get("version")),
        gpu_id=int(device_ids) if device_ids.isdecimal() and len(device_ids) < 4 else None,  # one index, not a list
        gpu_name=board,
        config_name=as_text(run.config.get("name")),
        model_name=as_text(backend.get("model")),
        timestamps=timestamps_before(end, duration_sec),
        energy_metrics=_energy(run, phase, kwh, boards),
        compute_metrics=_memory(as_object(measurements.get("memory"))),
        # The record represents `n_ranks` ranks. It has no world size, because other ranks would count as missing.
        effective_config=run.config | {TOOL: {"phase": phase, "n_ranks": run.ranks, **measurements}},
        launcher=None if launcher is None else Launcher(name=launcher),
        origin=source.origin(TOOL, as_text(environment.get("optimum_benchmark_version"))),
        status="interrupted" if run.is_interrupted else None,
        library_versions=_versions(environment, backend),
    )


def _energy(run: _Run, phase: str, kwh: _Energies, boards: list[str]) -> EnergyMetrics:
    """Return the energy of one phase; its scope is the host."""
    codecarbon = run.codecarbon_of(phase)
    efficiency = as_object(as_object(run.report.get(phase)).get("efficiency"))
    tokens_per_kwh = as_number(efficiency.get("value")) if efficiency.get("unit") == "tokens/kWh" else None
    cpu_w = as_number(codecarbon.get("cpu_power"))
    is_nvidia = any("NVIDIA" in name for name in boards)
    return EnergyMetrics(
        **component("total", as_joules(kwh["total"]), "host"),
        **component("gpu", as_joules(kwh["gpu"]), "host", "measured" if is_nvidia else None),
        **component("cpu", as_joules(kwh["cpu"]), "host", "modelled" if is_constant(cpu_w) else None),
        **component("ram", as_joules(kwh["ram"]), "host", "modelled"),
        duration_sec=run.duration_sec(phase),
        gpu_power_w=as_number(codecarbon.get("gpu_power")),
        cpu_power_w=cpu_w,
        emissions_kg_co2=as_number(codecarbon.get("emissions")),
        energy_per_token_j=JOULES_PER_KWH / tokens_per_kwh if tokens_per_kwh else None,
        devices=[DeviceEnergy(gpu_name=name) for name in boards] or None,
    )


def _memory(memory: dict[str, Any]) -> ComputeMetrics | None:
    peak_mb = as_number(memory.get("max_allocated")) if memory.get("unit") == "MB" else None
    return None if peak_mb is None else ComputeMetrics(flops_total=None, peak_memory_mb=peak_mb * _MIB_PER_MB)


def _versions(environment: dict[str, Any], backend: dict[str, Any]) -> dict[str, str] | None:
    """Return the versions of the libraries, by name; None if no version is known."""
    found = {
        name.removesuffix("_version"): version
        for name, value in environment.items()
        if name.endswith("_version") and (version := as_text(value)) is not None
    }
    if (name := as_text(backend.get("name"))) is not None and (version := as_text(backend.get("version"))) is not None:
        found[name] = version
    return found or None


FORMAT = Format(
    name=TOOL,
    looks_for="a folder with JSON that has CodeCarbon's fields, or phases (prefill, decode, ...) with energy",
    recognises=lambda source: _kind(source) is not None,
    read=_read,
    is_folder=True,
    covers="host: the report is a mean over local ranks",
    unknown="tokens, host name, time of the decode phase",
)

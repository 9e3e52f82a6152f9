"""Prepare a recording in one process: its rank, configuration, sensors and counters. Build its raw record."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Mapping

from msgspec import UNSET, UnsetType, structs

from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.domain.experiment import Launcher, Manifest, RawProcessResult, Status, config_digest
from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder import locks, metrics
from llm_energy_measure.recorder.attempt import choose_attempt
from llm_energy_measure.recorder.bounded import call_store, call_within
from llm_energy_measure.recorder.clock import Clock, Instant
from llm_energy_measure.recorder.config import stored_config
from llm_energy_measure.recorder.engines import EngineConfig, engine_of_command
from llm_energy_measure.recorder.environment import environment_of
from llm_energy_measure.recorder.libraries import detect_backend, library_versions, peak_memory_mib
from llm_energy_measure.recorder.measurement import Measurement
from llm_energy_measure.recorder.options import Options
from llm_energy_measure.recorder.phases import Phases, Totals, outside_inference_sec, phase_records
from llm_energy_measure.recorder.ranks import ProcessRank, find_rank
from llm_energy_measure.recorder.ray_rank import with_ray_rank
from llm_energy_measure.recorder.rescue import print_line
from llm_energy_measure.recorder.running import outer_experiments
from llm_energy_measure.recorder.sources import OpenSources, Settings, open_sources
from llm_energy_measure.recorder.store_clock import StoreClock
from llm_energy_measure.recorder.token_counter import TokenCounter
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout
from llm_energy_measure.results.store.checkpoints import archive_checkpoint

# The longest wait for the facts about the machine, because some facts come from a driver, which may hang.
_PATIENCE_SEC = 2.0


class Session:
    """Prepares a recording before its energy window, and builds its raw record.

    Args:
        experiment_id: Id of the experiment.
        options: The arguments of the recording.
        repository: Where the result will be saved.
        environ: Environment variables.
        clock: The clocks of this machine.
        undo: Gets the callbacks that close the sensors and release the locks. They run at the end of the block, or if
            an error stops the preparation.

    Attributes:
        experiment_id: Id of the experiment, with the number that `attempt="suffix"` appends.
        rank: Rank of this process and number of processes.
        manifest: The manifest of the experiment, as this process states it.
        measurement: The sensors. The caller begins their energy window.
        engine: The serving engine, if it is known.
        tokens: Counts tokens and latencies.
        phases: The parts of the block.

    Raises:
        LLMEnergyMeasureError: The recording cannot start; `Recording` lists the errors.
    """

    def __init__(
        self,
        experiment_id: str,
        options: Options,
        repository: FileSystemRepository,
        *,
        environ: Mapping[str, str],
        clock: Clock,
        undo: contextlib.ExitStack,
    ) -> None:
        self._options = options
        self._clock = clock
        store = repository.store
        self.rank = find_rank(
            with_ray_rank(environ),
            process_index=options.process_index,
            world_size=options.world_size,
            attempt=options.attempt if isinstance(options.attempt, int) else None,
        )
        if isinstance(options.attempt, str):
            experiment_id, attempt = choose_attempt(store, experiment_id, options.attempt, self.rank)
            launcher = structs.replace(self.rank.launcher or Launcher(), attempt=attempt)
            self.rank = structs.replace(self.rank, launcher=launcher)
        self.experiment_id = experiment_id
        self._config = stored_config(options.config)
        self._cli_overrides = stored_config(options.cli_overrides)
        opened = _open_sources(experiment_id, options, self.rank, environ)
        undo.callback(opened.close)
        self._machine = call_within(_PATIENCE_SEC, lambda: environment_of(environ, opened.sources))
        self._end: tuple[Totals, Instant] | None = None
        self.engine: EngineConfig | None = None
        command = self._cli_overrides.get("command")
        if isinstance(command, list):
            self.engine = engine_of_command([str(word) for word in command])
        self.manifest = manifest = self._manifest()
        repository.begin_experiment(manifest, self.rank.process_index)
        self._host = options.host or platform.node() or None
        owner = locks.this_process(
            self.rank.process_index, attempt=manifest.attempt, host=self._host, boot_id=clock.boot_id()
        )
        folder = layout.folder_in(store, experiment_id)
        held = locks.Locks(store, folder, owner)
        undo.callback(lambda: call_store(store, held.release))
        held.acquire_rank()
        archive_checkpoint(store, experiment_id, self.rank.process_index)
        store_clock = StoreClock(store, layout.manifest_key(folder))
        self.measurement = Measurement(
            opened,
            held,
            store_clock,
            clock,
            interval_sec=options.interval_sec,
            idle_sec=options.idle_sec,
            wants_samples=options.samples,
        )
        undo.callback(self.measurement.close)
        if self.measurement.reads_sensors:
            opened.notes += _warn_of_outer(experiment_id, environ)
        self.tokens = TokenCounter()
        self.phases = Phases(self._totals)

    def _manifest(self) -> Manifest:
        launcher = self.rank.launcher or Launcher()
        return Manifest(
            experiment_id=self.experiment_id,
            expected_processes=self.rank.world_size,
            # Only facts that are equal in all processes, so neither the node nor the local rank.
            launcher=Launcher(name=launcher.name, job_id=launcher.job_id, step_id=launcher.step_id),
            config_digest=config_digest(self._config) if self._config else None,
            attempt=launcher.attempt or 0,
        )

    def _environment(self) -> Environment | UnsetType:
        """Return software and machine; UNSET if they could not be read."""
        engine = self.engine
        if self._machine is None or engine is None:
            return self._machine or UNSET
        return structs.replace(self._machine, engine=engine.name, engine_config=engine.settings or None)

    def _totals(self) -> Totals:
        return Totals(self._clock.monotonic(), self.measurement.sampler.energies(), self.tokens.counts)

    def end(self, *, is_urgent: bool = False) -> None:
        """End the energy window. The record then has the time, the energy and the tokens up to now.

        Args:
            is_urgent: Whether the process may be killed soon.
        """
        if self._end is None:
            end = self.measurement.end(is_urgent=is_urgent)
            self._end = self._totals()._replace(instant=end.monotonic), end

    def build(self, model: metrics.ModelDescription, status: Status, error_type: str | None) -> RawProcessResult:
        """Return the raw record up to now. With the status `partial`, the record is a checkpoint."""
        options = self._options
        totals, end = (self._totals(), Instant.now(self._clock)) if self._end is None else self._end
        phases = self.phases.totals(totals)
        inference_sec = max(0.0, end.monotonic - self.measurement.start.monotonic - outside_inference_sec(phases))
        inference = metrics.inference_metrics(totals.counts, self.tokens.latencies(), inference_sec)
        tokens = inference.total_tokens if inference is not None else None
        versions = library_versions()
        backend, backend_version = detect_backend(versions)
        return RawProcessResult(
            experiment_id=self.experiment_id,
            backend=options.backend or backend or (self.engine.name if self.engine is not None else None),
            backend_version=options.backend_version or backend_version,
            process_index=self.rank.process_index,
            config_name=str(options.config_name or self._config.get("config_name") or self.experiment_id),
            model_name=options.model_name,
            inference_metrics=inference,
            compute_metrics=metrics.compute_metrics(model, tokens, inference_sec, peak_memory_mib()),
            effective_config=self._config,
            cli_overrides=self._cli_overrides,
            config_warnings=self.tokens.warnings(),
            world_size=self.rank.world_size,
            host=self._host,
            launcher=self.rank.launcher,
            status=status,
            error_type=error_type,
            library_versions=versions or None,
            phases=phase_records(phases, totals.counts),
            recording_environment=self._environment(),
            **self.measurement.record_fields(end, tokens, is_final=status != "partial"),
        )


def _warn_of_outer(experiment_id: str, environ: Mapping[str, str]) -> list[str]:
    """Print and return a warning for each other experiment that measures this process."""
    found = [
        f"experiment {outer!r} also measures the energy of this process, so do not add both energies"
        for outer in outer_experiments(experiment_id, environ)
    ]
    for warning in found:
        print_line(f"warning: {experiment_id}: {warning}")
    return found


def _open_sources(experiment_id: str, options: Options, rank: ProcessRank, environ: Mapping[str, str]) -> OpenSources:
    """Open the energy sources. Raises `RecorderError` if energy is required and no source works."""
    settings = Settings(
        environ=environ,
        rank=rank,
        w_per_core=options.w_per_core,
        gpus=None if options.gpus is None else tuple(map(str, options.gpus)),
    )
    opened = open_sources(options.sources, settings)
    if options.require_energy and not opened.sensors:
        opened.close()
        found = "; ".join(map(str, opened.errors.values())) or "no source is selected"
        without = "to record without energy, omit --require-energy (require_energy=True)"
        advice = f"run 'llm-energy-measure doctor' and repair a source; {without}"
        raise RecorderError(f"cannot record {experiment_id!r} with energy", found, advice)
    local_rank = rank.launcher.local_rank if rank.launcher is not None else None
    if opened.sources and not opened.sensors and not local_rank:
        found = "no energy sensor works here, so the energy of this run is unknown"
        advice = (
            "run 'llm-energy-measure doctor' for the reasons, or state the power of a CPU core with --w-per-core "
            "(w_per_core); --require-energy (require_energy=True) refuses such a run"
        )
        print_line(f"warning: {experiment_id}: {found}; {advice}")
    return opened


def status_of(error: BaseException) -> tuple[Status, str | None]:
    """Return status and error type of a run that an exception ended."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "completed", None
    if isinstance(error, GeneratorExit):
        return "completed", None  # the consumer of a generator needs no more values, and closed it
    # A program that cancels tasks has imported asyncio. Other programs must not wait for this import.
    asyncio = sys.modules.get("asyncio")
    is_cancelled = asyncio is not None and isinstance(error, asyncio.CancelledError)
    is_interrupted = isinstance(error, KeyboardInterrupt) or is_cancelled
    return "interrupted" if is_interrupted else "failed", type(error).__name__

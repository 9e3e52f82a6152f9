"""`record`: a block of a script becomes one raw result, whatever happens inside.

Long, because half of it is the arguments and methods that a script calls, and the ends of a block share one state.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakSet

from llm_energy_measure.domain.experiment import Launcher, Manifest, RawProcessResult, Status, config_digest
from llm_energy_measure.exceptions import LLMEnergyMeasureError, RecorderError
from llm_energy_measure.recorder import claims, facts, records
from llm_energy_measure.recorder.arguments import (
    UNKNOWN_MODEL,
    Options,
    checked_model,
    checked_options,
    checked_phase,
    checked_status,
)
from llm_energy_measure.recorder.clock import Clock, StoreClock, SystemClock
from llm_energy_measure.recorder.facts import Instant
from llm_energy_measure.recorder.interruption import Interruption
from llm_energy_measure.recorder.meter import claimed_reading
from llm_energy_measure.recorder.phases import WARMUP, Phases, Reading, phase_records, unproductive_sec
from llm_energy_measure.recorder.place import Place, find_place
from llm_energy_measure.recorder.sampler import Sampler
from llm_energy_measure.recorder.sources import Sensor, Setting, Source, open_sources
from llm_energy_measure.recorder.tally import Request, Tally
from llm_energy_measure.recorder.ticker import Ticker
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from llm_energy_measure.domain.metrics import SensorReading

_BOOT_DIGITS = 8


def record(
    experiment_id: str,
    *,
    model_name: str = UNKNOWN_MODEL,
    config: object = None,
    config_name: str | None = None,
    cli_overrides: Mapping[str, Any] | None = None,
    backend: str | None = None,
    backend_version: str | None = None,
    results_dir: str | Path | None = None,
    repository: FileSystemRepository | None = None,
    sources: Sequence[str | Source] | None = None,
    require_energy: bool = False,
    w_per_core: float | None = None,
    gpus: Sequence[str | int] | None = None,
    idle_sec: float = 0.0,
    interval_sec: float | None = 0.1,
    checkpoint_sec: float | None = 5.0,
    process_index: int | None = None,
    world_size: int | None = None,
    attempt: int | None = None,
    host: str | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Recording:
    """A block whose energy, tokens and latencies become one raw result of this process.

    Every process of the experiment says the same; which one it is, it knows from its launcher. The result is saved when
    the block ends, also by an exception or a signal.

    Args:
        experiment_id: The experiment, the same in all its processes.
        model_name: The model.
        config: The configuration, the same in all processes: a mapping, a dataclass, a pydantic model.
        config_name: Its name; by default its own `config_name`, else the experiment's id.
        cli_overrides: What of it came from the command line.
        backend: The inference library; by default told from what is loaded.
        backend_version: Its version.
        results_dir: Where to save; by default `LLM_ENERGY_MEASURE_RESULTS_DIR`, else `results`.
        repository: Where to save, in place of `results_dir`.
        sources: Energy sources, best first, by name or as objects; `[]` to measure none here; by default what works.
        require_energy: Refuse to run where no energy can be measured.
        w_per_core: Watts of one busy core, for the source `cpu_model`.
        gpus: The GPUs of this process, by index or UUID; by default those that CUDA shows it.
        idle_sec: Time to measure idle power before the block, in seconds.
        interval_sec: Time between two readings of the sensors, in seconds; None for none between start and end.
        checkpoint_sec: Time between two checkpoints, in seconds; None for none.
        process_index: Rank of this process, from 0, where no launcher says it.
        world_size: Number of processes, where no launcher says it.
        attempt: How often the experiment was started before, where no launcher says it.
        host: Name of this machine; by default its own.
        environ: Environment variables; by default this process's.
        clock: The clocks; by default this machine's.

    Raises:
        ConfigurationError: An argument can't be. When the block is entered: rank and world size can't be, the
            configuration can't be stored, or there is no such source.
        RecorderError: When it is entered: another process has this rank; no energy, and `require_energy`.
        ResultExistsError: When it is entered: this process has a result, or another run has the id.
        StorageError: When it is entered: nothing can be written there.

    Example:
        >>> from llm_energy_measure import record
        >>> with record("demo", model_name="none", w_per_core=4.0, sources=["cpu_model"]) as run:
        ...     run.add_tokens(input=12, output=30)
        >>> run.result.inference_metrics.total_tokens, run.result.energy_metrics.total_provenance
        (42, 'modelled')
    """
    # Every argument that is an option, by its name: each stands in the signature already, and in `Options`.
    options = checked_options(experiment_id, dict(locals()))
    repository = FileSystemRepository(results_dir) if repository is None else repository
    environ = os.environ if environ is None else environ
    return Recording(experiment_id, repository, options, environ=environ, clock=clock or SystemClock())


class Recording:
    """One process's measurement while it is made; `record` makes it, `with` runs it.

    Attributes:
        experiment_id: The experiment.
        repository: Where its result is saved.
        place: Where this process stands in it; known inside the block.
        result: The record, once the block has ended; also where it could not be saved.
        path: Its file; None where it could not be saved.
    """

    def __init__(
        self,
        experiment_id: str,
        repository: FileSystemRepository,
        options: Options,
        *,
        environ: Mapping[str, str],
        clock: Clock,
    ) -> None:
        """Remember everything; nothing is read or written."""
        self.experiment_id = experiment_id
        self.place = Place(process_index=0, world_size=1)
        self.result: RawProcessResult | None = None
        self.path: Path | None = None
        self.repository = repository
        self._options = options
        self._environ = environ
        self._clock = clock
        self._model = records.ModelFacts()
        self._tally = Tally()
        self._phases = Phases(self._read)
        self._marked: tuple[Status, str | None] = ("completed", None)
        self._pid = 0
        self._is_running = False
        self._is_finished = False
        # Reentrant: a signal's handler finishes the recording in the thread that may be writing a checkpoint.
        self._lock = threading.RLock()
        self._exit = contextlib.ExitStack()
        self._interruption = Interruption(self._end_by_signal, self._checkpoint)

    def _forget(self) -> None:
        """In a forked child: read no sensor, and wait for no lock that a thread of the parent held."""
        self._lock = threading.RLock()
        for part in (self._sampler, self._phases, self._tally):
            part.forget()

    # Inside the block

    def add_tokens(self, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the words of the field
        """Count tokens.

        Args:
            input: Prompt tokens, 0 or more.
            output: Generated tokens, 0 or more.

        Raises:
            RecorderError: The block has not begun, or has ended.
        """
        if not self._is_running:
            self._refuse_outside()
        self._tally.add(input, output)

    def request(self) -> Request:
        """A block for one request; `token()` in it gives time to first token and gaps. Any number may be under way.

        Requests sent during the phase `warmup` are left out of the latencies.
        """
        if not self._is_running:
            self._refuse_outside()
        return Request(self._tally, self._clock.monotonic, is_warmup=self._phases.is_open(WARMUP))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A block whose energy, time and tokens are recorded beside the whole, as a part of it.

        Args:
            name: Such as `load`, `warmup`, `prefill` or `decode`. Time in `load` and `warmup` is no inference time,
                unless tokens are counted in it.
        """
        if not self._is_running:
            self._refuse_outside()
        return self._phases.open(checked_phase(name))

    def describe_model(
        self,
        *,
        parameters: float | None = None,
        precision: object = None,
        memory_mb: float | None = None,
        flops_total: float | None = None,
        flops_method: str | None = None,
        flops_confidence: Literal["high", "medium", "low"] | None = None,
    ) -> None:
        """Say what is known of the model and its computation; what is not given stays as it was.

        Args:
            parameters: Parameters that take part in the computation of a token: FLOPs are estimated from them.
            precision: Number format, such as `float16`, or what says it so, such as a `torch.dtype`.
            memory_mb: Memory of the model, in MiB.
            flops_total: Floating-point operations of the whole block, where the caller knows better.
            flops_method: How the caller knows.
            flops_confidence: `high`, `medium` or `low`.

        Raises:
            ConfigurationError: A value can't be; nothing of the call counts.
        """
        said = {
            "parameters": parameters,
            "precision": precision,
            "memory_mb": memory_mb,
            "flops_total": flops_total,
            "flops_method": flops_method,
            "flops_confidence": flops_confidence,
        }
        for name, value in checked_model(said).items():
            setattr(self._model, name, value)

    def mark(self, status: Status, error_type: str | None = None) -> None:
        """Say how the run ended where the end of the block doesn't: a failure that raised nothing, say.

        Args:
            status: How it ended; an exception that leaves the block says it better, and counts.
            error_type: What ended it, in a word.
        """
        self._marked = checked_status(status, error_type)

    def _refuse_outside(self) -> None:
        when = "has ended" if self._is_finished else "has not begun"
        raise RecorderError(f"cannot count for {self.experiment_id!r}", f"its block {when}", "count inside the block")

    # The ends of the block

    def __enter__(self) -> Self:
        """Find the place, open the sensors, agree with the other processes, and begin to measure."""
        if self._pid:
            raise RecorderError(
                f"cannot record {self.experiment_id!r}", "this recording was used before", "make a new one"
            )
        self._pid = os.getpid()
        options = self._options
        self.place = find_place(
            self._environ,
            process_index=options.process_index,
            world_size=options.world_size,
            attempt=options.attempt,
        )
        self._config = facts.stored_config(options.config)
        self._overrides = facts.stored_config(options.cli_overrides)
        with contextlib.ExitStack() as undo:
            self._prepare(undo)
            # Nothing stands between these two, as between reading and clock at the end: the window is the block.
            self._sampler.begin()
            self._start = Instant.now(self._clock)
            self._is_running = True
            self._sampler.keep_reading()
            self._interruption.watch()
            undo.callback(self._interruption.unwatch)
            if options.checkpoint_sec is not None:
                ticker = Ticker("checkpoint", options.checkpoint_sec, self._checkpoint)
                undo.callback(ticker.stop)
                ticker.start()
            _RUNNING.add(self)
            # From here on the end of the block undoes it.
            self._exit = undo.pop_all()
        return self

    def _prepare(self, undo: contextlib.ExitStack) -> None:
        """Everything before the window; what `undo` is given is undone at the end, or if this fails."""
        options, place = self._options, self.place
        setting = Setting(
            environ=self._environ,
            place=place,
            w_per_core=options.w_per_core,
            gpus=None if options.gpus is None else tuple(map(str, options.gpus)),
        )
        self._opened = open_sources(options.sources, setting)
        undo.callback(self._opened.close)
        if options.require_energy and not self._opened.sensors:
            found = "; ".join(str(refused) for refused in self._opened.refusals.values()) or "no source was asked for"
            advice = "mend one (llm-energy-measure doctor), or leave require_energy out: energy is null then"
            raise RecorderError(f"cannot record {self.experiment_id!r} with energy", found, advice)
        self.repository.begin_experiment(self._manifest(), place.process_index)
        self._boot_id = self._clock.boot_id()
        self._host = options.host or platform.node() or None
        attempt = (place.launcher.attempt if place.launcher else None) or 0
        me = claims.this_process(place.process_index, attempt=attempt, host=self._host, boot_id=self._boot_id)
        folder = layout.folder_name(self.experiment_id)
        held = claims.Claims(self.repository.store, folder, me)
        undo.callback(held.release)
        held.take_rank()
        self.repository.archive_checkpoint(self.experiment_id, place.process_index)
        self._sensors, self._claimed = self._share(held)
        self._store_clock = StoreClock(self.repository.store, layout.manifest_key(folder))
        self._store_time = self._store_clock.read(self._clock)
        self._idle_power_w = self._measure_idle() if options.idle_sec else None
        self._sampler = Sampler(self._sensors, self._clock, interval_sec=options.interval_sec)
        undo.callback(self._sampler.close)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what was measured; an exception goes on up."""
        if os.getpid() != self._pid:
            return  # a forked child that ran out of the block: it has no part in the measurement
        status, error_type = self._marked if error is None else _how_it_ended(error)
        if self._interruption.received is not None and (error is not None or status != "completed"):
            status, error_type = "interrupted", self._interruption.received
        try:
            self._finish(status, error_type)
        except LLMEnergyMeasureError as refused:
            if error is None:
                raise
            error.add_note(f"and what was measured could not be saved: {refused}")

    def _finish(self, status: Status, error_type: str | None) -> None:
        """End the window and save, once, whatever signal comes meanwhile."""
        with self._interruption.hold(), self._exit:
            with self._lock:
                if self._is_finished:
                    return
                self._is_finished = True  # a checkpoint that comes now would outlive the result
                self._is_running = False
            self._sampler.end()
            self.result = self._build(status, error_type)
            self.path = self.repository.save_raw(self.experiment_id, self.result)
            self.repository.drop_checkpoint(self.experiment_id, self.place.process_index)

    def _end_by_signal(self, name: str) -> None:
        self._finish("interrupted", name)

    def _checkpoint(self) -> None:
        """Store what was measured so far, beside the results; where that can't be, the run goes on without."""
        with contextlib.suppress(LLMEnergyMeasureError):
            # Not under the lock: a sensor that hangs here must not keep the end of the block waiting.
            record = self._build("partial", None)
            with self._lock:
                if not self._is_finished:
                    self.repository.save_checkpoint(self.experiment_id, record)

    # What goes into the record

    def _manifest(self) -> Manifest:
        launcher = self.place.launcher or Launcher()
        return Manifest(
            experiment_id=self.experiment_id,
            expected_processes=self.place.world_size,
            # What every process knows alike: neither its node nor its rank there.
            launcher=Launcher(name=launcher.name, job_id=launcher.job_id, step_id=launcher.step_id),
            config_digest=config_digest(self._config) if self._config else None,
            attempt=launcher.attempt or 0,
        )

    def _share(self, held: claims.Claims) -> tuple[list[Sensor], list[Sensor]]:
        """The sensors that this process reads, and those that are read elsewhere: by another one, or a second time."""
        holders: dict[str, claims.Claimant | None] = {}
        mine: list[Sensor] = []
        others: list[Sensor] = []
        seen: set[tuple[str, str]] = set()
        for sensor in self._opened.sensors:
            name = self._claim_name(sensor)
            if name is not None and name not in holders:
                holders[name] = held.take(name)
            is_mine = name is None or holders[name] is None
            if (board := _board(sensor)) is not None:
                # Two slices of it, or a GPU that was named twice.
                is_mine = is_mine and (board, sensor.component) not in seen
                seen.add((board, sensor.component))
            (mine if is_mine else others).append(sensor)
        return mine, others

    def _claim_name(self, sensor: Sensor) -> str | None:
        """The same in every process that sees what this sensor sees; None for what no other process sees."""
        if sensor.scope == "process":
            return None
        # By the boot, which containers of one machine share: their names may differ.
        machine = self._boot_id[:_BOOT_DIGITS] if self._boot_id is not None else self._host
        device = sensor.device
        board = _board(sensor)
        if board is not None:
            return board
        if device is not None and device.gpu_id is not None:
            return f"{sensor.component}-{machine}-{device.gpu_id}"
        return f"{sensor.component}-{machine}"

    def _measure_idle(self) -> float | None:
        """Mean power while nothing runs, in watts; None if nothing measures it."""
        sampler = Sampler(self._sensors, self._clock, interval_sec=self._options.interval_sec)
        sampler.begin()
        start = self._clock.monotonic()
        sampler.keep_reading()
        self._clock.sleep(self._options.idle_sec)
        sampler.end()
        took_sec = self._clock.monotonic() - start
        sampler.close()
        energy_j = None if sampler.failures() else sampler.energies().total
        return energy_j / took_sec if energy_j is not None and took_sec > 0 else None

    def _read(self) -> Reading:
        return Reading(self._clock.monotonic(), self._sampler.energies(), self._tally.counts)

    def _readings(self) -> list[SensorReading] | None:
        if not self._opened.sensors:
            asked_for_none = self._options.sources is not None and not self._options.sources
            return [] if asked_for_none else None
        return [*self._sampler.readings(), *map(claimed_reading, self._claimed)]

    def _build(self, status: Status, error_type: str | None) -> RawProcessResult:
        """The record of everything up to now."""
        options, now = self._options, self._read()
        end = Instant.now(self._clock)
        # A checkpoint comes within the block, where nothing more is done than has to be.
        store_end = None if status == "partial" else self._store_clock.read(self._clock)
        window, readings = facts.span(self._start, end), self._readings()
        parts, latencies = self._phases.parts(now), self._tally.latencies()
        inference_sec = max(0.0, (window.duration_sec or 0.0) - unproductive_sec(parts))
        inference = records.inference_metrics(now.counts, latencies, inference_sec)
        tokens = inference.total_tokens if inference is not None else None
        versions = facts.library_versions()
        backend = facts.backend_of(versions) or (None, None)
        sensors = [*self._sensors, *self._claimed]
        devices = {sensor.instance: sensor.device for sensor in sensors if sensor.device is not None}
        config_name = options.config_name or self._config.get("config_name") or self.experiment_id
        return RawProcessResult(
            experiment_id=self.experiment_id,
            backend=options.backend or backend[0],
            backend_version=options.backend_version or backend[1],
            process_index=self.place.process_index,
            **records.record_fields(list(devices.values())),
            energy_measurement_warning=records.energy_warning(
                readings, self._opened.refusals, self._sampler.failures(), self._opened.notes
            ),
            config_name=str(config_name),
            model_name=options.model_name,
            timestamps=window,
            inference_metrics=inference,
            energy_metrics=records.energy_metrics(
                readings, devices, window, tokens=tokens, idle_power_w=self._idle_power_w
            ),
            compute_metrics=records.compute_metrics(self._model, tokens, inference_sec, facts.peak_memory_mib()),
            effective_config=self._config,
            cli_overrides=self._overrides,
            config_warnings=self._tally.warnings(),
            world_size=self.place.world_size,
            host=self._host,
            clock=facts.clock_evidence(
                self._start,
                end,
                boot_id=self._boot_id,
                store_id=self._store_clock.store_id,
                store_times=(self._store_time, store_end),
            ),
            launcher=self.place.launcher,
            status=status,
            error_type=error_type,
            library_versions=versions or None,
            phases=phase_records(parts, now.counts),
        )


_RUNNING: WeakSet[Recording] = WeakSet()


def _forget_in_child() -> None:
    for recording in _RUNNING:
        recording._forget()  # noqa: SLF001 - of the same module


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_in_child)


def _board(sensor: Sensor) -> str | None:
    """What is read of a device, by a name of its own; None where it has none."""
    return sensor.sees or (sensor.device.gpu_uuid if sensor.device is not None else None)


def _how_it_ended(error: BaseException | None) -> tuple[Status, str | None]:
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "completed", None
    # Whoever cancels tasks has imported asyncio; who doesn't need not pay for it.
    asyncio = sys.modules.get("asyncio")
    is_cancelled = asyncio is not None and isinstance(error, asyncio.CancelledError)
    interrupted = isinstance(error, KeyboardInterrupt) or is_cancelled
    return "interrupted" if interrupted else "failed", type(error).__name__

"""`record`: measure a block of a script, and save one raw result, however the block ends."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from msgspec import structs

from llm_energy_measure.domain.experiment import RawProcessResult, Status
from llm_energy_measure.exceptions import LLMEnergyMeasureError, RecorderError
from llm_energy_measure.recorder import metrics, options
from llm_energy_measure.recorder.attempt import NewAttempt
from llm_energy_measure.recorder.bounded import call_store
from llm_energy_measure.recorder.clock import Clock, SystemClock
from llm_energy_measure.recorder.decorator import decorate
from llm_energy_measure.recorder.engines import engine_of_object
from llm_energy_measure.recorder.periodic_thread import PeriodicThread
from llm_energy_measure.recorder.phases import WARMUP
from llm_energy_measure.recorder.ranks import ProcessRank
from llm_energy_measure.recorder.running import RUNNING
from llm_energy_measure.recorder.saving import Saving, open_saving
from llm_energy_measure.recorder.session import Session, status_of
from llm_energy_measure.recorder.sigterm import SigtermHandler
from llm_energy_measure.recorder.sources import Source
from llm_energy_measure.recorder.token_counter import Request
from llm_energy_measure.results.repository import FileSystemRepository

# Time between two checks whether the process that reads a shared sensor has ended. The new reader of an energy counter
# continues from the last value, so no energy is lost in this time. A power sensor is not read in this time.
_HANDOVER_SEC = 1.0


class Recording:
    """Measure a block: save its energy, tokens and latencies as one raw result of this process.

    `record` is another name of this class. Every process of the experiment calls `record` with the same arguments, and
    gets its rank from the environment variables of the launcher. The result is saved when the block ends, also after an
    exception or a signal.

    Use it as `with record(...) as run:`, as `async with`, as the decorator `@record(...)`, or with `run.start()` and
    `run.stop()`. If the process exits without `stop`, the result is saved at the exit.

    Args:
        experiment_id: Id of the experiment, the same in all its processes.
        model_name: Name of the model.
        config: The configuration, the same in all processes: a mapping, a dataclass, a pydantic model, an
            `argparse.Namespace` or a `transformers.GenerationConfig`.
        config_name: Name of the configuration. [default: `config_name` in `config`, else the id of the experiment]
        cli_overrides: The part of the configuration that comes from the command line.
        backend: Name of the inference library. [default: detected from the loaded libraries]
        backend_version: Version of the inference library.
        results_dir: Results directory. [default: `LLM_ENERGY_MEASURE_RESULTS_DIR`, else `results`]
        repository: Where to save the result, instead of `results_dir`.
        sources: Names or objects of energy sources, best first; `[]` to measure no energy.
            [default: NVML, AMD SMI, RAPL and the CPU model]
        require_energy: Raise an error if no energy source works.
        w_per_core: Power of one busy core, in watts, for the source `cpu_model`.
        gpus: Indices or UUIDs of the GPUs of this process. [default: all visible GPUs; if the host has several
            processes and at least as many GPUs are visible to each, only the GPU of the local rank]
        idle_sec: How long to measure idle power before and after the block, in seconds.
        interval_sec: Time between two readings of the sensors, in seconds; None to read them only when the energy is
            needed, for example at the start and the end of the block and of each phase. Sensors of power are read five
            times as often.
        checkpoint_sec: Time between two checkpoints, in seconds; None for no checkpoints.
        samples: Whether to store power, temperature, clock and throttle reasons over time, in
            `samples-process_<i>.csv.gz`.
        process_index: Rank of this process, from 0, if no launcher sets it.
        world_size: Number of processes, if no launcher sets it.
        attempt: Number of earlier starts of the experiment, if no launcher sets it. `"next"` runs a used id again and
            archives its results; `"suffix"` appends a number to a used id.
        host: Name of this machine. [default: its host name]
        environ: Environment variables. [default: those of this process]
        clock: The clocks. [default: those of this machine]

    Attributes:
        experiment_id: Id of the experiment.
        repository: Where the result is saved. If the bucket cannot be reached, this is a directory on the local disk
            after the block.
        rank: Rank of this process and number of processes; set inside and after the block.
        result: The record; set after the block, even if the record could not be saved.
        path: File of the record; None if it could not be saved.

    Raises:
        ConfigurationError: An argument is wrong. On entering the block: the rank and the number of processes are
            contradictory, the configuration cannot be stored, or a source does not exist.
        RecorderError: On entering the block: another process has the same rank, or `require_energy` is set and no
            source works.
        ResultExistsError: On entering the block: this process already has a result, or another run has used the id.
        StorageError: On entering the block: the results directory is not writable.

    Example:
        >>> from llm_energy_measure import record
        >>> with record("demo", model_name="none", w_per_core=4.0, sources=["cpu_model"]) as run:
        ...     run.add_tokens(input=12, output=30)
        >>> run.result.inference_metrics.total_tokens, run.result.energy_metrics.total_provenance
        (42, 'modelled')
    """

    def __init__(
        self,
        experiment_id: str,
        *,
        model_name: str = "unknown",
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
        samples: bool = False,
        process_index: int | None = None,
        world_size: int | None = None,
        attempt: int | NewAttempt | None = None,
        host: str | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        # locals() contains all arguments by name, so this method does not list them again.
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self._options = options.check_options(experiment_id, self._arguments)
        self.experiment_id = experiment_id
        self.repository = FileSystemRepository(results_dir) if repository is None else repository
        self.rank = ProcessRank(process_index=0, world_size=1)
        self.result: RawProcessResult | None = None
        self.path: Path | None = None
        self._environ = os.environ if environ is None else environ
        self._clock = clock or SystemClock()
        self._model = metrics.ModelDescription()
        self._session: Session
        self._saving: Saving
        self._marked: tuple[Status, str | None] = ("completed", None)
        self._outcome: tuple[Status, str | None] | None = None
        self._pid = 0
        self._is_running = False
        self._is_child = False
        self._has_ended = False
        # Reentrant: a signal handler ends the recording in the main thread, which may be writing a checkpoint.
        self._lock = threading.RLock()
        self._exit = contextlib.ExitStack()
        self._sigterm = SigtermHandler(partial(self._finish, "interrupted"), self._checkpoint)

    # Inside the block

    def add_tokens(self, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the usual word for prompt tokens
        """Count tokens.

        Args:
            input: Number of prompt tokens, 0 or more.
            output: Number of generated tokens, 0 or more.

        Raises:
            RecorderError: The block has not begun or has ended.
        """
        if not self._is_running:
            self._check_is_running()
        self._session.tokens.add(input, output)

    def request(self, *, input: int | None = None) -> Request:  # noqa: A002 - as in `add_tokens`
        """Return a block for one request. Call its method `token()` for each token, to record the latencies.

        Several requests may run at the same time. Requests that are sent during the phase `warmup` are left out of the
        latencies.

        Args:
            input: Number of prompt tokens. If `input` is given, all tokens of the request count as tokens of the
                process, even if the request fails or is cancelled. Do not count them with `add_tokens`.
        """
        if not self._is_running:
            self._check_is_running()
        tokens, phases = self._session.tokens, self._session.phases
        return Request(tokens, self._clock.monotonic, is_warmup=phases.is_open(WARMUP), input_tokens=input)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a block whose energy, time and tokens are also recorded separately, as one phase of the run.

        Args:
            name: Name of the phase, such as `load`, `warmup`, `prefill` or `decode`. Time in `load` and `warmup` is
                not inference time, unless tokens are counted in the phase.
        """
        if not self._is_running:
            self._check_is_running()
        return self._session.phases.open(options.check_text("cannot begin a phase", "its name", name))

    @property
    def energy_j(self) -> float | None:
        """Energy so far, in joules, for a progress bar or a log; None if it is unknown. After the block: the total."""
        if self.result is not None:
            return self.result.energy_metrics.total_energy_j
        return self._session.measurement.energy_so_far_j() if self._is_running else None

    @property
    def measures_energy(self) -> bool:
        """True inside the block if this process reads a sensor."""
        return self._is_running and self._session.measurement.reads_sensors

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
        """Record facts about the model and its computation. None leaves an earlier value unchanged.

        Args:
            parameters: Number of parameters that take part in the computation of a token, to estimate FLOPs.
            precision: Number format, such as `float16` or a `torch.dtype`.
            memory_mb: Memory of the model, in MiB.
            flops_total: Floating-point operations of the whole block; replaces the estimate.
            flops_method: How `flops_total` was determined, as a text.
            flops_confidence: `high`, `medium` or `low`.

        Raises:
            ConfigurationError: A value is wrong. The call then changes nothing.
        """
        self._model = structs.replace(self._model, **options.check_model(dict(locals())))

    def describe_engine(self, engine: object) -> None:
        """Record the settings of a serving engine, with dots between nested names.

        The argument is an engine object of vLLM or SGLang, a dataclass or a mapping. No call is needed for a command:
        `llm-energy-measure record -- vllm serve ...` finds the settings in the command.
        """
        if not self._is_running:
            self._check_is_running()
        self._session.engine = engine_of_object(engine)

    def mark(self, status: Status, error_type: str | None = None) -> None:
        """Set the status of the run, for example after a failure that raises no exception.

        Args:
            status: `completed`, `failed` or `interrupted`. An exception that leaves the block overrides this status.
            error_type: What ended the run, in one word.
        """
        self._marked = options.check_status(status, error_type)

    def _check_is_running(self) -> None:
        if self._is_child:
            warnings.warn(
                f"tokens and phases of {self.experiment_id!r} in this forked process are lost: only process "
                f"{self._pid} measures; call record() in this process too",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        when = "has ended" if self._has_ended else "has not begun"
        raise RecorderError(
            f"cannot measure in {self.experiment_id!r}", f"the block {when}", "call this method inside the block"
        )

    # Start and end of the block

    def start(self) -> Self:
        """Begin to measure, and return this recording. Call `stop` at the end; a `with` block calls both."""
        return self.__enter__()

    def stop(self) -> RawProcessResult | None:
        """End the measurement, save the result and return the result. Later calls change nothing."""
        self.__exit__(None, None, None)
        return self.result

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that measures each call in a new recording. Use this as the decorator `@record(...)`."""
        return decorate(function, lambda: Recording(**self._arguments))

    async def __aenter__(self) -> Self:
        """Begin to measure, as `with` does."""
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Save the result, as `with` does."""
        self.__exit__(kind, error, trace)

    def __enter__(self) -> Self:
        """Find the rank, open the sensors, compare the experiment with the other processes, and start to measure."""
        if self._pid:
            doing = f"cannot record {self.experiment_id!r}"
            raise RecorderError(doing, "this recording was used before", "call record() again")
        self._pid = os.getpid()
        self._error_at_start = getattr(sys, "last_value", None)
        wanted = self._options
        with contextlib.ExitStack() as undo:
            session = self._session = Session(
                self.experiment_id, wanted, self.repository, environ=self._environ, clock=self._clock, undo=undo
            )
            self.experiment_id, self.rank = session.experiment_id, session.rank
            self._saving = open_saving(self.repository, self._environ, session.manifest)
            undo.callback(self._saving.close)
            session.measurement.begin()
            self._is_running = True
            self._sigterm.install()
            undo.callback(self._sigterm.restore)
            if session.measurement.is_waiting and wanted.interval_sec is not None:
                waiting = PeriodicThread("handover", _HANDOVER_SEC, self._take_over)
                undo.callback(waiting.stop)
                waiting.start()
            if wanted.checkpoint_sec is not None:
                thread = PeriodicThread("checkpoint", wanted.checkpoint_sec, self._checkpoint)
                undo.callback(thread.stop)
                thread.start()
            RUNNING.add(self)
            # After a successful start, the callbacks run at the end of the block, not at the end of this method.
            self._exit = undo.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Save the result. An exception that ended the block is raised again."""
        if not self._pid:
            self._check_is_running()
        if os.getpid() != self._pid:
            return  # a forked child that left the block; only the parent measures
        status, error_type = self._marked if error is None else status_of(error)
        if self._sigterm.received is not None and (error is not None or status != "completed"):
            status, error_type = "interrupted", self._sigterm.received
        self._outcome = status, error_type
        try:
            self._end(status, error_type)
        except LLMEnergyMeasureError as refused:
            if error is None:
                raise
            error.add_note(f"The result could not be saved: {refused}")

    def end_at_exit(self, error: BaseException | None) -> None:
        """Save the result at the end of the process, if the program did not call `stop`.

        Args:
            error: The exception that Python printed last; None if there was none.
        """
        is_new = error is not None and error is not self._error_at_start
        self.__exit__(None, error if is_new else None, None)

    def _end(self, status: Status, error_type: str | None) -> None:
        """Measure idle power if the block has completed, then save. After a signal or Ctrl-C, save at once."""
        idle_sec = self._options.idle_sec
        try:
            if idle_sec and status == "completed" and self._is_running and not sys.is_finalizing():
                self._take_over()
                self._session.end()
                self._checkpoint()
                # After SIGTERM, a handler of the program may let the program continue, as in `record -- COMMAND`.
                self._session.measurement.measure_idle_end(idle_sec, lambda: self._sigterm.received is not None)
        finally:
            self._finish(status, error_type)

    def _finish(self, status: Status, error_type: str | None) -> None:
        """End the window and save the result once. Signals that arrive in the meantime are delivered afterwards."""
        with self._sigterm.defer(), self._exit:
            with self._lock:
                if self._has_ended:
                    return
                self._has_ended = True  # no checkpoint follows, because it would remain next to the result
                self._is_running = False
                RUNNING.discard(self)
            self._take_over()
            self._session.end(is_urgent=self._outcome is None)
            # A signal during the idle measurement does not change the outcome of the block.
            self.result = self._session.build(self._model, *(self._outcome or (status, error_type)))
            self.path = self._saving.save_result(self.result, self._session.measurement.evidence.traces())
            self.repository = self._saving.repository

    def _take_over(self) -> None:
        """Read the shared sensors of ended processes. Ignore errors of the store."""
        if self._session.measurement.is_waiting:
            with contextlib.suppress(LLMEnergyMeasureError):
                call_store(self.repository.store, self._session.measurement.take_over)

    def _checkpoint(self) -> None:
        """Save what was measured so far. The run continues if the checkpoint cannot be saved."""
        with contextlib.suppress(LLMEnergyMeasureError):
            # Build the record without the lock: a sensor that hangs here must not delay the end of the block.
            record = self._session.build(self._model, "partial", None)
            with self._lock:
                if not self._has_ended:
                    self._saving.save_checkpoint(record)

    def disable_in_child(self) -> None:
        """Stop measuring in a forked child. Replace the locks, because threads of the parent may hold the old ones."""
        self._is_running, self._is_child = False, True
        self._lock = threading.RLock()
        for part in (self._session.measurement.sampler, self._session.phases, self._session.tokens):
            part.disable_in_child()


record = Recording
"""The public name of `Recording`: `with record("exp_42") as run:`."""

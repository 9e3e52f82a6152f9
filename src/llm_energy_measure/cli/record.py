"""`llm-energy-measure record`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click

from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.recorder.attempt import NewAttempt
from llm_energy_measure.recorder.command import CannotRunError, TreeTime, find_program, run_command
from llm_energy_measure.recorder.config import parse_settings
from llm_energy_measure.recorder.ranks import find_rank
from llm_energy_measure.recorder.recording import record as make_recording
from llm_energy_measure.recorder.sources import DEFAULT_SOURCES, Source
from llm_energy_measure.recorder.sources.cpu_model import CpuModel


class Attempt(click.ParamType[int | NewAttempt]):
    """Type of the option `--attempt`: a whole number from 0, or the word `next` or `suffix`."""

    name = "attempt"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | NewAttempt:
        """Return the number, or the word unchanged."""
        if value in get_args(NewAttempt):
            word: NewAttempt = value
            return word
        return options.WholeNumber(min=0).convert(value, param, ctx)


def _settings(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    with options.usage_errors("--config"):
        return parse_settings(words)


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=options.examples(
        "record --experiment exp_7 --model llama -- python benchmark.py",
        "record --experiment b8_c0 --config batch_size=8 --tag commit=$(git rev-parse --short HEAD) -- python run.py",
        "torchrun --nproc-per-node 4 --no-python llm-energy-measure record --experiment exp_8 -- python worker.py",
    ),
)
@click.argument("command", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--experiment",
    metavar="ID",
    type=options.Text(),
    help="Id of the experiment, the same in all its processes. [default: program, time and process id]",
)
@click.option(
    "--model",
    "model_name",
    metavar="NAME",
    type=options.Text(),
    default="unknown",
    show_default=True,
    help="Name of the model.",
)
@click.option(
    "--config-name", metavar="NAME", type=options.Text(), help="Name of the configuration. [default: the program]"
)
@click.option(
    "--config",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_settings,
    help="Record this setting of the configuration, for example batch_size=8 or decoder.top_k=50; repeat the option "
    "for several settings. The value is JSON or text.",
)
@options.tag_option
@click.option("--backend", metavar="NAME", type=options.Text(), help="Name of the inference library, for example vllm.")
@click.option(
    "--source",
    "sources",
    metavar="NAME",
    multiple=True,
    help="Use this energy source; repeat the option for several sources, with the preferred source first. [default: "
    "see 'doctor']",
)
@click.option(
    "--no-energy",
    is_flag=True,
    help="Do not measure energy. Use this option if another process of the experiment measures the energy.",
)
@click.option("--require-energy", is_flag=True, help="Do not start the command if no energy source works.")
@options.w_per_core_option
@click.option(
    "--gpu",
    "gpus",
    metavar="ID",
    type=options.Text(),
    multiple=True,
    callback=lambda _context, _parameter, ids: ids or None,
    help="Measure this GPU (index or UUID); repeat the option for several GPUs. [default: the GPUs visible to CUDA; "
    "with several processes per host, the GPU of the local rank]",
)
@click.option(
    "--idle",
    "idle_sec",
    metavar="SECONDS",
    type=options.Number(min=0),
    default=0.0,
    show_default=True,
    help="Measure the idle power for this time before the command starts and after it ends.",
)
@click.option(
    "--samples",
    is_flag=True,
    help="Store power, temperature, clock and throttle reasons over time, in samples-process_N.csv.gz.",
)
@click.option(
    "--process-index",
    metavar="N",
    type=options.WholeNumber(min=0),
    help="Rank of this process. [default: from the launcher, else 0]",
)
@click.option(
    "--world-size",
    metavar="N",
    type=options.WholeNumber(min=1),
    help="Number of processes. [default: from the launcher, else 1]",
)
@click.option(
    "--attempt",
    metavar="N|next|suffix",
    type=Attempt(),
    help="Run a used id again. N is the number of earlier starts; 'next' finds N automatically; 'suffix' appends a "
    "number to the id. [default: from the launcher, else 0]",
)
@click.option("--show", is_flag=True, help="Print energy, tokens, energy per token and verdict at the end.")
@options.shared_options
@streams.finish_work
def record(
    *,
    command: tuple[str, ...],
    experiment: str | None,
    config_name: str | None,
    tags: dict[str, str],
    sources: tuple[str, ...],
    no_energy: bool,
    show: bool,
    **arguments: Any,
) -> int:
    """Measure a command and all processes that it starts.

    The command runs unchanged. Its energy and its status are saved as one raw result, even if the command fails or a
    signal ends it. The exit status is the exit status of the command. If the command calls record() itself, both
    experiments count the same energy: use either this command or record().
    """
    if not command:
        raise click.UsageError("Give the command to measure after --, for example: record -- python benchmark.py")
    try:
        find_program(command[0])
    except CannotRunError as error:
        terminal.error(error)
        return error.status
    cpu_time = TreeTime()
    recording = make_recording(
        experiment or _default_id(command[0], arguments["process_index"], arguments["world_size"]),
        config_name=config_name or Path(command[0]).name,
        cli_overrides={"command": list(command)},
        repository=options.repository(must_exist=False),
        sources=_sources(sources, cpu_time, no_energy=no_energy),
        **arguments,  # the other options have the names of arguments of `Recording`
    )
    try:
        status = run_command(recording, command, cpu_time, on_unsaved=terminal.error)
    except LLMEnergyMeasureError as error:
        terminal.error(error)
        return error.status if isinstance(error, CannotRunError) else 1
    if recording.result is None:
        terminal.warn("a signal arrived before the command started; the command did not run, and nothing is recorded")
    elif recording.path is not None:  # if the path is None, an error message says where the result is
        _print_result(recording.result, recording.path, show=show)
        options.set_tags(recording.repository, recording.experiment_id, tags)
    return status


def _print_result(result: RawProcessResult, path: Path, *, show: bool) -> None:
    """Print the file, status, energy and duration of a result. If no sensor was read, only -v prints the reason."""
    if (warning := result.energy_measurement_warning) is not None:
        (terminal.debug if result.energy_metrics.sensors is None else terminal.warn)(warning)
    energy = formatting.energy(result.energy_metrics.total_energy_j, unknown="unknown energy")
    terminal.info(f"{path}: {result.status}, {energy} in {result.timestamps.duration_sec:.4g} s")
    if show:
        terminal.info(_shown(result))


def _shown(result: RawProcessResult) -> str:
    """Return energy, tokens, energy per token and verdict of a result in one line."""
    # Most recordings do not need these imports.
    from llm_energy_measure.results.aggregation import aggregate_results
    from llm_energy_measure.verification.verdicts import verdict_of

    try:
        aggregated = aggregate_results(result.experiment_id, [result])
    except LLMEnergyMeasureError as error:
        return f"no verdict: {error}"
    per_token = formatting.energy(aggregated.avg_energy_per_token_j, unknown="unknown energy")
    adjusted_j = result.energy_metrics.idle_adjusted_energy_j
    adjusted = "" if adjusted_j is None else f" ({formatting.energy(adjusted_j)} without idle energy)"
    return (
        f"energy {formatting.energy(aggregated.total_energy_j, unknown='unknown')}{adjusted}, "
        f"{formatting.count(aggregated.total_tokens)} tokens, {per_token} per token, verdict {verdict_of(aggregated)}"
    )


def _default_id(program: str, process_index: int | None, world_size: int | None) -> str:
    """Return a unique id for a command of one process. Raise `click.UsageError` if there are several processes."""
    rank = find_rank(os.environ, process_index=process_index, world_size=world_size)
    if rank.world_size > 1:
        raise click.UsageError("All processes of an experiment need the same id: add --experiment ID.")
    return f"{Path(program).name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"


def _sources(names: tuple[str, ...], cpu_time: TreeTime, *, no_energy: bool) -> list[str | Source]:
    """Return the energy sources. The source cpu_model uses the CPU time of the command, not of this process."""
    if no_energy:
        return []
    model = CpuModel(cpu_seconds=cpu_time, is_cheap=False)
    return [model if name == model.name else name for name in names or DEFAULT_SOURCES]

"""`llm-energy-measure record`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llm_energy_measure.cli import options, terminal
from llm_energy_measure.exceptions import LLMEnergyMeasureError
from llm_energy_measure.recorder.command import CannotRunError, TreeTime, find_program, run_command
from llm_energy_measure.recorder.ranks import find_rank
from llm_energy_measure.recorder.recording import record as make_recording
from llm_energy_measure.recorder.sources import DEFAULT_SOURCES, Source
from llm_energy_measure.recorder.sources.cpu_model import CpuModel

if TYPE_CHECKING:
    from llm_energy_measure.domain.experiment import RawProcessResult


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=(
        "\b\nExamples:\n  llm-energy-measure record --experiment exp_7 --model llama -- python generate.py"
        "\n  torchrun --nproc-per-node 4 --no-python llm-energy-measure record --experiment exp_8 -- python worker.py"
    ),
)
@click.argument("command", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--experiment", metavar="ID", type=options.Text(), help="Id of the experiment. [default: the program and the time]"
)
@click.option("--model", metavar="NAME", type=options.Text(), default="unknown", help="Name of the model.")
@click.option("--config-name", metavar="NAME", type=options.Text(), help="Name of the configuration.")
@click.option("--backend", metavar="NAME", type=options.Text(), help="Inference library of the command.")
@click.option(
    "--source",
    "sources",
    metavar="NAME",
    multiple=True,
    help="Energy source ('doctor' names them); several, best first.",
)
@click.option("--no-energy", is_flag=True, help="Measure none here: another process of the experiment does.")
@click.option("--require-energy", is_flag=True, help="Don't start where none can be measured.")
@click.option(
    "--w-per-core",
    metavar="WATTS",
    type=click.FloatRange(min=0, min_open=True),
    help="Power of a busy core, for the source cpu_model.",
)
@click.option(
    "--gpu",
    "gpus",
    metavar="ID",
    type=options.Text(),
    multiple=True,
    help="GPU of the command, by index or UUID; several.",
)
@click.option(
    "--idle",
    "idle_sec",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Measure idle power for so long before.",
)
@click.option("--process-index", metavar="N", type=click.IntRange(min=0), help="Rank, if no launcher says it.")
@click.option("--world-size", metavar="N", type=click.IntRange(min=1), help="Processes, if no launcher says it.")
@options.shared_options
def record(
    *,
    command: tuple[str, ...],
    experiment: str | None,
    model: str,
    config_name: str | None,
    backend: str | None,
    sources: tuple[str, ...],
    no_energy: bool,
    require_energy: bool,
    w_per_core: float | None,
    gpus: tuple[str, ...],
    idle_sec: float,
    process_index: int | None,
    world_size: int | None,
) -> int:
    """Measure a command, with everything that it starts.

    Whatever the command is and however it ends, its energy and its status become one raw result. The exit status is the
    command's own.
    """
    if not command:
        raise click.UsageError("Name the command to measure, behind --.")
    try:
        find_program(command[0])
    except CannotRunError as refused:
        terminal.error(refused)
        return refused.status
    cpu_time = TreeTime()
    recording = make_recording(
        experiment or _own_name(command[0], process_index, world_size),
        model_name=model,
        config_name=config_name or Path(command[0]).name,
        cli_overrides={"command": list(command)},
        backend=backend,
        repository=options.repository(must_exist=False),
        sources=_sources(sources, cpu_time, no_energy=no_energy),
        require_energy=require_energy,
        w_per_core=w_per_core,
        gpus=gpus or None,
        idle_sec=idle_sec,
        process_index=process_index,
        world_size=world_size,
    )
    try:
        status = run_command(recording, command, cpu_time)
    except LLMEnergyMeasureError as refused:
        terminal.error(refused)
        return refused.status if isinstance(refused, CannotRunError) else 1
    result = recording.result
    if result is None:
        terminal.warn("a signal came before the command was started: it was not, and nothing is recorded")
    else:
        _warn_of_energy(result)
        energy = terminal.quantity(result.energy_metrics.total_energy_j, "J")
        terminal.note(f"{recording.path}: {result.status}, {energy} in {result.timestamps.duration_sec:.4g} s")
    return status


def _warn_of_energy(result: RawProcessResult) -> None:
    """What a reader of the energy has to know; why there is none is one list of all sources, and long."""
    said = result.energy_measurement_warning
    if said is None:
        return
    if result.energy_metrics.sensors is not None:
        terminal.warn(said)
        return
    what, _, why = said.partition("; ")
    terminal.warn(f"{what}; the record says why, 'llm-energy-measure doctor' what works here")
    terminal.detail(why)


def _own_name(program: str, process_index: int | None, world_size: int | None) -> str:
    """An id of its own for a command that runs alone."""
    rank = find_rank(os.environ, process_index=process_index, world_size=world_size)
    if rank.world_size > 1:
        raise click.UsageError("Name the experiment, the same in all its processes: --experiment ID.")
    return f"{Path(program).name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"


def _sources(names: tuple[str, ...], cpu_time: TreeTime, *, no_energy: bool) -> list[str | Source]:
    """The sources, of which the model is told to look at the command and not at this process."""
    if no_energy:
        return []
    model = CpuModel(cpu_seconds=cpu_time, is_cheap=False)
    return [model if name == model.name else name for name in names or DEFAULT_SOURCES]

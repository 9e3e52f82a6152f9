"""`llm-energy-measure results order`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import click

from llm_energy_measure.analysis.run_order import PlannedRun, run_order
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.security import sanitize_experiment_id

_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.*\S.*)", re.DOTALL)
_ID = "{id}"


@click.command(
    epilog=options.examples(
        'results order b1="python run.py --batch-size 1" b4="python run.py --batch-size 4" --repeats 5 > runs.sh',
        "results order 'b1=torchrun run.py --id {id}' 'b4=torchrun run.py --id {id} --batch 4' --seed 7 --format json",
    ),
)
@click.argument("configurations", metavar="[NAME=]COMMAND...", nargs=-1, required=True, type=options.Text())
@click.option(
    "--repeats",
    metavar="N",
    type=options.WholeNumber(min=1),
    default=5,
    show_default=True,
    help="Repeat each command N times.",
)
@click.option(
    "--seed", metavar="N", type=options.WholeNumber(min=0), help="Print the order of this seed. [default: random]"
)
@click.option("--no-warm-up", is_flag=True, help="Print no warm-up runs before the first block.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sh", "json"]),
    default="sh",
    show_default=True,
    help="Print shell lines or JSON.",
)
@options.shared_options
def order(*, configurations: tuple[str, ...], repeats: int, seed: int | None, no_warm_up: bool, form: str) -> None:
    """Print an interleaved order of runs: randomised blocks with warm-up.

    Each block runs each command once, in a random order. A slow change of the machine, such as its temperature, then
    affects all commands equally. Each line of a block runs its command with 'llm-energy-measure record' (with -o DIR,
    if given). The line records NAME as 'config' and the number of the block as 'tag.block'. The experiment ids of the
    first block end in _c0, those of the second in _c1, and so on. To compare the runs:
    'results compare "config = b1" "config = b4" --block tag.block --metric energy'. If a command records its own
    result, write {id} in the command: each line then has the experiment id in this place.
    """
    commands: dict[str, str] = {}
    for text in configurations:
        name, command = _named(text)
        if name in commands:
            message = f"two commands have the name {name!r}; write NAME=COMMAND with different names"
            raise click.BadParameter(message, param_hint="COMMAND")
        commands[name] = command
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
    runs = run_order(list(commands), repeats, seed, warm_up=not no_warm_up)
    given = options.given_results_dir()
    results_dir = f"-o {shlex.quote(given)} " if given is not None else ""
    if form == "json":
        entries = [_entry(run, commands[run.configuration], results_dir) for run in runs]
        terminal.print_json({"seed": seed, "runs": entries})
    else:
        for line in _shell_lines(runs, commands, seed, results_dir):
            terminal.print_line(line)


def _named(text: str) -> tuple[str, str]:
    """Return the name and the command of an argument `NAME=COMMAND`.

    If `NAME=` is missing, the name is the text of the command; if the command has no spaces, the name is its file name
    without suffix. Special characters in this name become `_`.
    """
    if match := _NAMED.fullmatch(text):
        return match[1], match[2]
    return sanitize_experiment_id(text if " " in text else PurePath(text).stem), text


def _entry(run: PlannedRun, command: str, results_dir: str) -> dict[str, object]:
    return {
        "configuration": run.configuration,
        "block": run.block or None,
        "warm_up": run.block == 0,
        "experiment_id": run.experiment_id,
        "command": _line(run, command, results_dir),
    }


def _line(run: PlannedRun, command: str, results_dir: str) -> str:
    """Return the shell line of a run. `results_dir` is empty, or the option `-o DIR` with a space at the end."""
    if _ID in command:
        return command.replace(_ID, run.experiment_id)
    if run.block == 0:
        return command
    names = f"--experiment {run.experiment_id} --config-name {run.configuration} --tag block={run.block}"
    return f"{options.PROGRAM} {results_dir}record {names} -- {command}"


def _shell_lines(runs: Sequence[PlannedRun], commands: dict[str, str], seed: int, results_dir: str) -> Iterator[str]:
    yield f"# Randomised blocks; --seed {seed} prints this order again."
    block = None
    for run in runs:
        if run.block != block:
            block = run.block
            yield f"# Block {block}" if block else "# Warm-up: leave these runs out of the comparison."
        yield _line(run, commands[run.configuration], results_dir)

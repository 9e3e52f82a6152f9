"""The command `llm-energy-measure`: its group, its errors and its exit status.

Exit status: 0 done, 1 not done (or not all of it), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from typing import Any, NoReturn

import click

import llm_energy_measure
from llm_energy_measure.cli import terminal
from llm_energy_measure.cli.options import shared_options
from llm_energy_measure.exceptions import LLMEnergyMeasureError

PROGRAM = "llm-energy-measure"


class LazyGroup(click.Group):
    """A group that imports a command only to run it, or to show that command's own help."""

    def __init__(
        self,
        *args: Any,
        lazy: dict[str, tuple[str, str]],
        renamed: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the group; no command is imported.

        Args:
            args: See `click.Group`.
            lazy: For each command, its import path (`module:attribute`) and its short help.
            renamed: New command name by old command name. The old names still work and are not listed.
            kwargs: See `click.Group`.
        """
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.renamed = renamed or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of the commands, in the order they were given."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command, imported now."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, its name, and what stands behind it. Raises `click.UsageError`, which names those alike."""
        name = args[0]
        if name in self.renamed and not ctx.resilient_parsing:
            new = self.renamed[name]
            terminal.warn_renamed(f"'results {name}'", f"'results {new}'")
            return super().resolve_command(ctx, [new, *args[1:]])
        if name in self.lazy or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = " or ".join(f"'{PROGRAM} {command}'" for command in _commands_like(name))
        raise click.UsageError(f"No such command {name!r}{f'; did you mean {near}?' if near else '.'}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.lazy.items()])


@click.group(
    cls=LazyGroup,
    lazy={
        "record": ("llm_energy_measure.cli.record:record", "Measure a command."),
        "doctor": ("llm_energy_measure.cli.doctor:doctor", "Say which energy sensors work here."),
        "aggregate": ("llm_energy_measure.cli.aggregate:aggregate", "Make one result of each experiment's processes."),
        "import": ("llm_energy_measure.cli.import_results:import_results", "Bring in results of other tools."),
        "results": (
            "llm_energy_measure.cli.main:results",
            "List, show, verify, export, query, tag, check, merge and delete results.",
        ),
        "schema": ("llm_energy_measure.cli.schema:schema", "Print the JSON Schema of a record."),
    },
    epilog=(f"\b\nExamples:\n  {PROGRAM} -o results aggregate --all\n  {PROGRAM} -o results results list"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@shared_options
@click.version_option(llm_energy_measure.__version__, "-V", "--version", prog_name=PROGRAM)
def cli() -> None:
    """Measure, keep, aggregate and check the energy of language models."""


@click.group(
    cls=LazyGroup,
    lazy={
        "list": ("llm_energy_measure.cli.results_list:list_results", "List the experiments."),
        "show": ("llm_energy_measure.cli.results_show:show", "Show one experiment."),
        "repeats": ("llm_energy_measure.cli.results_repeats:repeats", "Show mean and spread over repeated runs."),
        "export": ("llm_energy_measure.cli.results_export:export", "Write a table as CSV, JSON or Parquet."),
        "sql": ("llm_energy_measure.cli.results_sql:sql", "Run SQL over the aggregated experiments."),
        "tag": ("llm_energy_measure.cli.results_tag:tag", "Set tags and a note on one experiment."),
        "check": ("llm_energy_measure.cli.results_check:check", "Say what is amiss in the files."),
        "verify": ("llm_energy_measure.cli.results_verify:verify", "Recompute from the raw files, and explain."),
        "merge": ("llm_energy_measure.cli.results_merge:merge", "Bring results directories together."),
        "delete": ("llm_energy_measure.cli.results_delete:delete", "Delete one experiment."),
    },
    renamed={"cycles": "repeats"},
    epilog=(f"\b\nExamples:\n  {PROGRAM} results export --to table.csv"),
)
@shared_options
def results() -> None:
    """List, show, verify, export, query, tag, check, merge and delete results."""


def _commands_like(name: str) -> list[str]:
    """Commands of either group whose names look like one that is none; people leave out `results`, or add it."""
    from difflib import get_close_matches

    commands = {**{name: name for name in cli.lazy}, **{name: f"results {name}" for name in results.lazy}}
    commands |= {old: f"results {new}" for old, new in results.renamed.items()}
    near = get_close_matches(name, commands, n=1 if name in commands else 3)
    return [commands[one] for one in near]


def main() -> NoReturn:
    """Run the command line and exit. Never a traceback."""
    warnings.showwarning = _show_warning
    _accept_any_letter()
    try:
        status = cli.main(prog_name=PROGRAM, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as wrong:
        _show_usage(wrong)
        _exit(wrong.exit_code)
    except (KeyboardInterrupt, click.Abort):
        terminal.error("interrupted; what was finished stays")
        _exit(1)
    except BrokenPipeError:
        # The reader of a pipe (head) has left; what Python still holds for it must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(0)
    except LLMEnergyMeasureError as refused:
        terminal.error(refused)
        _exit(1)
    except OSError as refused:
        terminal.error(f"the system refused: {refused}")
        _exit(1)
    except Exception as bug:  # noqa: BLE001 - the last resort: a person gets a sentence, not a traceback
        terminal.error(f"this is a bug, please report it: {_where(bug)}: {type(bug).__name__}: {bug}")
        _exit(1)
    _exit(status if isinstance(status, int) else 0)


def _exit(status: int) -> NoReturn:
    raise SystemExit(status)


def _accept_any_letter() -> None:
    """A name with letters that the terminal's encoding lacks is written out, and no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_usage(wrong: click.ClickException) -> None:
    said = io.StringIO()
    wrong.show(said)
    for line in said.getvalue().splitlines():
        click.echo(terminal.plain(line), err=True)


def _where(bug: BaseException) -> str:
    """File and line of the innermost frame."""
    trace = bug.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _show_warning(message: Warning | str, *_details: object, **_more: object) -> None:
    terminal.warn(message)

"""The command `llm-energy-measure`: its groups, errors and exit status.

Exit status of all commands: 0 success, 1 failure (also of a part of the work), 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
The exit status is 141 if all work is done but the reader of stdout has exited. `results compare` has also 3 and 4,
`bundle verify` has 10 to 17, and `record` has the exit status of the measured command.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from llm_energy_measure._version import __version__
from llm_energy_measure.cli import options, streams, terminal
from llm_energy_measure.cli.options import PROGRAM
from llm_energy_measure.exceptions import LLMEnergyMeasureError


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its help."""

    def __init__(
        self, *args: Any, lazy: dict[str, tuple[str, str]], renamed: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        """Create the group without importing its commands.

        Args:
            args: See `click.Group`.
            lazy: For each command, its import path (`module:attribute`) and its short help.
            renamed: New command name by old command name. The old names still work, but `--help` does not list them.
            kwargs: See `click.Group`.
        """
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.renamed = renamed or {}

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the command names in their order of definition."""
        return list(self.lazy)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command. Return None if its name is unknown."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command name, the command and its arguments.

        Raises:
            click.UsageError: The command is unknown. The message suggests similar commands of all groups.
        """
        name = args[0]
        if name in self.renamed and not ctx.resilient_parsing:
            new = self.renamed[name]
            terminal.warn_renamed(f"'results {name}'", f"'results {new}'")
            return super().resolve_command(ctx, [new, *args[1:]])
        if name in self.lazy or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = " or ".join(f"'{PROGRAM} {command}'" for command in _similar_commands(name))
        raise click.UsageError(f"No such command {name!r}{f'; did you mean {near}?' if near else '.'}", ctx)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.lazy.items()])


@click.group(
    cls=LazyGroup,
    lazy={
        "record": ("llm_energy_measure.cli.record:record", "Measure a command."),
        "doctor": ("llm_energy_measure.cli.doctor:doctor", "Show which energy sensors work on this machine."),
        "aggregate": (
            "llm_energy_measure.cli.aggregate:aggregate",
            "Aggregate the raw results of each experiment into one result.",
        ),
        "import": ("llm_energy_measure.cli.import_results:import_results", "Import results of other tools."),
        "results": (
            "llm_energy_measure.cli.main:results",
            "List, show, compare, verify, export, query, tag, check, merge and delete results.",
        ),
        "bundle": (
            "llm_energy_measure.cli.main:bundle",
            "Create, verify and open bundles of results for papers.",
        ),
        "schema": ("llm_energy_measure.cli.schema:schema", "Print the JSON Schema of a result."),
    },
    epilog=options.examples(
        "record --experiment exp_7 -- python benchmark.py", "aggregate --all", "-o old_results results list"
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@options.shared_options
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def cli() -> None:
    """Measure the energy of language model inference; store, aggregate and verify the results."""


@click.group(
    cls=LazyGroup,
    lazy={
        "list": ("llm_energy_measure.cli.results_list:list_results", "List experiments, or totals per group."),
        "show": ("llm_energy_measure.cli.results_show:show", "Show one experiment."),
        "configs": (
            "llm_energy_measure.cli.results_configs:configs",
            "List the configuration keys that vary, with their values.",
        ),
        "repeats": ("llm_energy_measure.cli.results_repeats:repeats", "Show mean and spread over repeated runs."),
        "compare": (
            "llm_energy_measure.cli.results_compare:compare_results",
            "Compare configurations: ratio, interval and verdict.",
        ),
        "report": ("llm_energy_measure.cli.results_report:report", "Write a report as one HTML page."),
        "plot": ("llm_energy_measure.cli.results_plot:plot", "Draw a figure, for a paper or in the terminal."),
        "order": ("llm_energy_measure.cli.results_order:order", "Print an interleaved order of runs."),
        "export": ("llm_energy_measure.cli.results_export:export", "Write a table as CSV, JSON, LaTeX or Parquet."),
        "sql": ("llm_energy_measure.cli.results_sql:sql", "Query the aggregated experiments with SQL."),
        "tag": ("llm_energy_measure.cli.results_tag:tag", "Set or show the tags and the note of experiments."),
        "check": ("llm_energy_measure.cli.results_check:check", "Check the stored files for damage."),
        "verify": (
            "llm_energy_measure.cli.results_verify:verify",
            "Verify the figures of experiments against their raw files.",
        ),
        "merge": ("llm_energy_measure.cli.results_merge:merge", "Copy other results directories into this one."),
        "sync": ("llm_energy_measure.cli.results_sync:sync", "Copy results to and from a bucket or another directory."),
        "delete": ("llm_energy_measure.cli.results_delete:delete", "Delete experiments."),
    },
    renamed={"cycles": "repeats"},
    epilog=options.examples("results list --where 'energy > 1000'", "results export --to table.csv"),
)
@options.shared_options
def results() -> None:
    """List, show, compare, verify, export, query, tag, check, merge and delete results."""


@click.group(
    cls=LazyGroup,
    lazy={
        "create": ("llm_energy_measure.cli.bundle_create:create", "Pack experiments into one ZIP file."),
        "verify": (
            "llm_energy_measure.cli.bundle_verify:verify",
            "Check files, signature, verdicts and a published table.",
        ),
        "open": ("llm_energy_measure.cli.bundle_open:open_", "Extract a bundle as a results directory."),
    },
    epilog=options.examples(
        'bundle create --where "tag.paper = fig3" --to fig3.zip', "bundle verify fig3.zip --expect sha256:0f3a..."
    ),
)
@options.shared_options
def bundle() -> None:
    """Create, verify and open bundles: ZIP files with results and their digests, for papers."""


def _similar_commands(name: str) -> list[str]:
    """Return the commands with a similar name, in all groups, because users often omit or add the word `results`."""
    from difflib import get_close_matches

    commands = {**{name: name for name in cli.lazy}, **{name: f"results {name}" for name in results.lazy}}
    if name in bundle.lazy:
        commands.setdefault(name, f"bundle {name}")
    commands |= {old: f"results {new}" for old, new in results.renamed.items()}
    near = get_close_matches(name, commands, n=1 if name in commands else 3)
    return [commands[match] for match in near]


def main() -> NoReturn:
    """Run the command line and exit. Errors are printed as one line, never as a traceback."""
    warnings.showwarning = _show_warning
    with streams.durable_streams(), _interrupt_on_sigterm():
        status = _run()
        if (lost := streams.lost_output()) is not None:
            reason, lost_status = lost
            terminal.error(f"cannot print all output: {reason}; the command has finished its work")
            status = status or lost_status
    raise SystemExit(status)


def _run() -> int:
    """Run the command and return its exit status. Print an error as one line on stderr."""
    status = 1
    try:
        result = cli.main(prog_name=PROGRAM, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except SystemExit as end:
        # click gives a command the exit status 1 if the reader of its pipe, for example head, has exited.
        status = 0 if streams.has_stopped_command() else end.code if isinstance(end.code, int) else 1
    except click.ClickException as error:
        _show_usage_error(error)
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort) as interrupt:
        status = _interrupted(interrupt)
    except BrokenPipeError:
        status = 0
    except LLMEnergyMeasureError as error:
        terminal.error(error)
    except OSError as error:
        terminal.error(f"error of the operating system: {error}")
    except Exception as bug:  # noqa: BLE001 - users get one line that they can report, not a traceback
        terminal.error(f"this is a bug, please report it: {_location(bug)}: {type(bug).__name__}: {bug}")
    return status


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C in this block, so that temporary files are removed and one message is printed."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_interrupt(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _interrupted(interrupt: BaseException) -> int:
    """Print that a signal ended the command. Return 128 + the number of the signal, or 1 for an aborted prompt."""
    signalled = interrupt if isinstance(interrupt, KeyboardInterrupt) else interrupt.__cause__ or interrupt.__context__
    number = signalled.args[0] if signalled is not None and signalled.args else signal.SIGINT
    words = "terminated by SIGTERM" if number == signal.SIGTERM else "interrupted"
    terminal.error(f"{words}; finished work is kept")
    return streams.SIGNALLED + number if isinstance(signalled, KeyboardInterrupt) else 1


def _show_usage_error(error: click.ClickException) -> None:
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().splitlines():
        terminal.print_message(line)


def _location(error: BaseException) -> str:
    """Return the file and the line that raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    terminal.warn(message)

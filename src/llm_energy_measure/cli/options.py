"""What the commands share: the results directory, experiment ids and their completion."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from llm_energy_measure.cli.terminal import VERBOSITY, warn
from llm_energy_measure.constants import AGGREGATED_DIR, DEFAULT_RESULTS_DIR, RAW_DIR, RESULTS_DIR_ENV

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_energy_measure.exceptions import ResultNotFoundError
    from llm_energy_measure.results.repository import FileSystemRepository

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any] | click.Command")


class Text(StringParamType):
    """A text that says something: an empty one is a variable of the shell that was never set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it is."""
        text = super().convert(value, param, ctx)
        if not text.strip():
            self.fail("it is empty", param, ctx)
        return text


class PathName(Text):
    """The name of a file or folder, completed in the shell; an empty one would be the current folder."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """What tells the shell to complete the name of a file."""
        return [CompletionItem(incomplete, type="file")]


_RESULTS_DIR = "llm_energy_measure.results_dir"
_NEAR_MATCHES = 3
_OTHER_TABLES = frozenset(
    {".parquet", ".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".tsv", ".feather", ".arrow", ".sqlite", ".db"}
)


def shared_options(function: FunctionT) -> FunctionT:
    """Add `-o/--results-dir`, `-v` and `-q`, which may stand before and after a subcommand; the last one counts."""
    return _results_dir_option(verbosity_options(function))


def verbosity_options(function: FunctionT) -> FunctionT:
    """Add `-v/--verbose` and `-q/--quiet`."""
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbosity(1), help="Say more on stderr."
    )
    quiet = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_verbosity(-1), help="Say only what is amiss."
    )
    return verbose(quiet(function))


def _verbosity(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
        if value:
            context.find_root().meta[VERBOSITY] = level

    return callback


def _results_dir_option(function: FunctionT) -> FunctionT:
    return click.option(
        "-o",
        "--results-dir",
        metavar="DIR",
        type=PathName(),
        expose_value=False,
        callback=_remember_results_dir,
        is_eager=True,
        help=f"Results directory. [env: {RESULTS_DIR_ENV}; default: ./results]",
    )(function)


def experiment_ids(*, required: bool) -> Callable[[FunctionT], FunctionT]:
    """Add the argument `ID...`, completed from the results directory."""
    return click.argument("ids", metavar="ID..." if required else "[ID]...", nargs=-1, shell_complete=_complete)


def experiment_id(function: FunctionT) -> FunctionT:
    """Add the argument `ID`, completed from the results directory."""
    return click.argument("experiment", metavar="ID", shell_complete=_complete)(function)


def json_option(function: FunctionT) -> FunctionT:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, in base units.")(function)


def format_of(target: str, endings: Mapping[str, str]) -> str:
    """The format that the name of a file asks for; CSV where it asks for none.

    Raises:
        click.BadParameter: It asks for one that is not written: a table of another kind must not have its name.
    """
    ending = Path(target).suffix.lower()
    if ending in _OTHER_TABLES - endings.keys():
        known = ", ".join(endings)
        message = f"a file {ending} is not written; name it {known}, or choose with --format"
        raise click.BadParameter(message, param_hint="--to")
    return endings.get(ending, "csv")


def repository(*, must_exist: bool = True) -> FileSystemRepository:
    """The repository that the command line names.

    Args:
        must_exist: Whether its directory has to be there already.

    Raises:
        StorageError: It has to, and there is none.
    """
    from llm_energy_measure.exceptions import StorageError
    from llm_energy_measure.results.repository import FileSystemRepository

    found = FileSystemRepository(click.get_current_context().find_root().meta.get(_RESULTS_DIR))
    if not found.base_path.is_dir() and (must_exist or found.base_path.exists()):
        problem = "it is no directory" if found.base_path.exists() else "it does not exist"
        raise StorageError(f"cannot read results in {found.base_path}", problem, "name another with -o DIR")
    if must_exist:
        _warn_of_no_results(found.base_path)
    return found


def holds_results(directory: Path) -> bool:
    """True if something stands in a directory where results belong, whatever it is."""
    return any(os.path.lexists(directory / name) for name in (RAW_DIR, AGGREGATED_DIR))


def _warn_of_no_results(directory: Path) -> None:
    """Tell that a directory which is not empty is no results directory: one beside it was meant."""
    with contextlib.suppress(OSError):  # told by whoever reads it
        # Hidden files are kept in empty directories too, so that they stay.
        if not holds_results(directory) and any(not entry.name.startswith(".") for entry in directory.iterdir()):
            beside = (directory / DEFAULT_RESULTS_DIR, directory.parent, directory.parent.parent)
            near = next(filter(holds_results, beside), None)
            advice = "give another with -o DIR" if near is None else f"did you mean -o {near}?"
            warn(f"{directory} holds neither {RAW_DIR}/ nor {AGGREGATED_DIR}/, and no results; {advice}")


def require_known(repository: FileSystemRepository, name: str) -> str:
    """The id itself, once the repository is known to hold it.

    Raises:
        ResultNotFoundError: It doesn't; the message names ids that look alike.
        ExperimentIdError: It is no possible id.
    """
    if repository.has_raw(name) or repository.has_aggregated(name) or repository.has_folder(name):
        return name
    if repository.list_attempts(name):  # its next one is still to begin
        return name
    raise not_found(repository, name)


def not_found(repository: FileSystemRepository, name: str) -> ResultNotFoundError:
    """The error for an unknown id, with near matches."""
    from difflib import get_close_matches

    from llm_energy_measure.exceptions import ResultNotFoundError

    near = get_close_matches(name, _known(repository), n=_NEAR_MATCHES, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "'results list --all' names them all"
    return ResultNotFoundError(f"experiment {name!r} not found", f"nothing of it is in {repository.base_path}", advice)


def _known(repository: FileSystemRepository) -> list[str]:
    return sorted({*repository.list_experiments(), *repository.list_aggregated()})


def _remember_results_dir(context: click.Context, _parameter: click.Parameter, value: Path | str | None) -> None:
    if value is not None:
        context.find_root().meta[_RESULTS_DIR] = value


def _complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from llm_energy_measure.exceptions import LLMEnergyMeasureError
    from llm_energy_measure.results.repository import FileSystemRepository

    directory = context.find_root().meta.get(_RESULTS_DIR)
    try:
        known = _known(FileSystemRepository(directory))
    except LLMEnergyMeasureError:
        return []  # a completion must not print into the command line that is being typed
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]

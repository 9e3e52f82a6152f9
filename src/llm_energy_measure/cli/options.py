"""Arguments and options that several commands share, and functions to find the results directory and experiments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from llm_energy_measure.cli.terminal import VERBOSITY_KEY, warn
from llm_energy_measure.constants import (
    AGGREGATED_DIR,
    DEFAULT_RESULTS_DIR,
    MAX_FILE_SIZE_ENV,
    RAW_DIR,
    RESULTS_DIR_ENV,
)
from llm_energy_measure.exceptions import ConfigurationError, LLMEnergyMeasureError, ResultNotFoundError, StorageError

if TYPE_CHECKING:
    from llm_energy_measure.results.batch.shards import Shard
    from llm_energy_measure.results.repository import FileSystemRepository

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any] | click.Command")

PROGRAM = "llm-energy-measure"

_RESULTS_DIR_KEY = "llm_energy_measure.results_dir"
_MAX_SUGGESTIONS = 3
_TABLE_SUFFIXES = frozenset(
    (
        *(".csv", ".parquet", ".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".tsv", ".feather", ".arrow"),
        *(".sqlite", ".db", ".tex", ".md", ".html", ".xml"),
    )
)


class Text(StringParamType):
    """Type of an option: a text that is not blank. A blank text usually comes from a shell variable that is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text unchanged, or report wrong usage if the text is blank."""
        text = super().convert(value, param, ctx)
        if not text.strip():
            self.fail("the value is empty", param, ctx)
        return text


class WholeNumber(click.IntRange):
    """Type of an option: a whole number in a range."""

    name = "whole number"


class Number(click.FloatRange):
    """Type of an option: a number in a range."""

    name = "number"


class Size(click.ParamType[int]):
    """Type of an option: a number of bytes with an optional unit, such as `500MB`, `1.5GB`, `2GiB` or `1048576`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        if isinstance(value, int):
            return value
        # --help does not need this import.
        from llm_energy_measure.domain.units import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f"{error}; use for example 2GB", param, ctx)


class PathName(Text):
    """Type of an option: a path that is not blank, with shell completion. `Path("")` would be the current folder."""

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the item that makes the shell complete file names."""
        return [CompletionItem(incomplete, type="file")]


def examples(*commands: str) -> str:
    """Return the last part of a help text: the examples, each with the name of the program."""
    lines = (command if PROGRAM in command else f"{PROGRAM} {command}" for command in commands)
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def shared_options(function: FunctionT) -> FunctionT:
    """Add `-o/--results-dir`, `--max-file-size`, `-v` and `-q`.

    Groups and commands accept these options. If the user gives an option twice, the last value is used.
    """
    return _results_dir_option(_max_file_size_option(verbosity_options(function)))


def verbosity_options(function: FunctionT) -> FunctionT:
    """Add `-v/--verbose` and `-q/--quiet`."""
    for level, flags, words in (
        (-1, ("-q", "--quiet"), "Print only errors on stderr."),
        (1, ("-v", "--verbose"), "Print more details on stderr."),
    ):
        callback = _set_verbosity(level)
        function = click.option(*flags, is_flag=True, expose_value=False, callback=callback, help=words)(function)
    return function


def _set_verbosity(level: int) -> Callable[[click.Context, click.Parameter, object], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value:
            context.find_root().meta[VERBOSITY_KEY] = level

    return callback


def _results_dir_option(function: FunctionT) -> FunctionT:
    return click.option(
        "-o",
        "--results-dir",
        metavar="DIR",
        type=PathName(),
        expose_value=False,
        callback=_set_results_dir,
        is_eager=True,
        help=f"Use this results directory, or this URL of a bucket. [env: {RESULTS_DIR_ENV}; default: ./results]",
    )(function)


def _set_results_dir(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().meta[_RESULTS_DIR_KEY] = value


def _max_file_size_option(function: FunctionT) -> FunctionT:
    return click.option(
        "--max-file-size",
        metavar="SIZE",
        type=Size(),
        expose_value=False,
        callback=_set_max_file_size,
        help=f"Do not read result files above this size. [env: {MAX_FILE_SIZE_ENV}; default: 1GiB]",
    )(function)


def _set_max_file_size(context: click.Context, _parameter: click.Parameter, value: int | None) -> None:
    """Set the environment variable until the command ends. Worker processes inherit the variable."""
    if value is not None:
        before = os.environ.get(MAX_FILE_SIZE_ENV)
        os.environ[MAX_FILE_SIZE_ENV] = str(value)
        context.find_root().call_on_close(lambda: _restore_variable(MAX_FILE_SIZE_ENV, before))


def _restore_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def experiment_id(function: FunctionT) -> FunctionT:
    """Add the argument `ID`, with shell completion."""
    return click.argument("experiment", metavar="ID", shell_complete=complete_id)(function)


def validated_by(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return an option callback that calls `check`. The callback reports a `ConfigurationError` as wrong usage."""

    def callback(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            with usage_errors(parameter.opts[0]):
                check(value)
        return value

    return callback


def _check_condition(text: str) -> None:
    # --help does not need these imports.
    from llm_energy_measure.catalogue.query import where_clause
    from llm_energy_measure.catalogue.sqlite_schema import COLUMNS

    where_clause(text, COLUMNS)


def where_option(function: FunctionT) -> FunctionT:
    """Add `--where`."""
    words = "Select only experiments that match CONDITION; see 'results list --help'."
    return click.option("--where", metavar="CONDITION", callback=validated_by(_check_condition), help=words)(function)


def json_option(function: FunctionT) -> FunctionT:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, with values in base units.")(function)


def tag_option(function: FunctionT) -> FunctionT:
    """Add `--tag`. The command gets a dictionary of tags."""

    def callback(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
        if not words:
            return {}
        # --help does not need this import.
        from llm_energy_measure.results.store.tags import parse_new_tags

        with usage_errors("--tag"):
            return parse_new_tags(words)

    words = "Set this tag of each experiment, for example commit=a1b2c3d; repeat the option for several tags."
    return click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, callback=callback, help=words)(function)


def set_tags(repository: FileSystemRepository, experiment_id: str, tags: dict[str, str]) -> None:
    """Set the tags of `--tag`. A failure only prints a warning, because the result is already saved."""
    if not tags:
        return
    # Most commands do not need this import.
    from llm_energy_measure.results.store.tags import change_tags

    try:
        change_tags(repository.store, experiment_id, dict(tags))
    except LLMEnergyMeasureError as error:
        warn(error)


def rehash_option(function: FunctionT) -> FunctionT:
    """Add `--rehash`."""
    words = "Read every file, even if the mtime of its folder did not change."
    return click.option("--rehash", is_flag=True, help=words)(function)


def shard_option(function: FunctionT) -> FunctionT:
    """Add `--shard`. The command gets a `Shard` or None."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Shard | None:
        if value is None:
            return None
        # --help does not need this import.
        from llm_energy_measure.results.batch.shards import parse_shard

        with usage_errors("--shard"):
            return parse_shard(value)

    words = (
        "Split the experiments into N parts by a hash of the folder name, and select part I (1 to N). "
        "Use one job for each I."
    )
    return click.option("--shard", metavar="I/N", callback=callback, help=words)(function)


def executor_option(function: FunctionT) -> FunctionT:
    """Add `--executor`. The command gets the URL of a Dask scheduler or None."""

    def check(text: str) -> None:
        # --help does not need this import.
        from llm_energy_measure.results.batch.executors import address_of

        address_of(text)

    words = "Run the work on the workers of a Dask scheduler."
    return click.option("--executor", metavar="dask://HOST:PORT", callback=validated_by(check), help=words)(function)


@contextlib.contextmanager
def executor_arguments(url: str | None, repository: FileSystemRepository) -> Iterator[dict[str, Any]]:
    """Yield the arguments `jobs` and `executor`; no argument if `url` is None. The repository path must be absolute."""
    if url is None:
        yield {}
        return
    from llm_energy_measure.results.batch.executors import dask_workers

    with dask_workers(url, repository) as workers:
        yield {"executor": workers.executor, "jobs": workers.threads}


def require_all_for(*, all_experiments: bool, shard: Shard | None, executor: str | None) -> None:
    """Raise `click.UsageError` if the command line has `--shard` or `--executor` without `--all`."""
    if shard is not None and not all_experiments:
        raise click.UsageError("--shard selects from all experiments: give --all and no ids.")
    if executor is not None and not all_experiments:
        raise click.UsageError("--executor distributes the work on all experiments: give --all and no ids.")


def w_per_core_option(function: FunctionT) -> FunctionT:
    """Add `--w-per-core`."""
    words = "Power of one busy CPU core, for the source cpu_model. [env: LLM_ENERGY_MEASURE_W_PER_CORE]"
    watts = Number(min=0, min_open=True)
    return click.option("--w-per-core", metavar="WATTS", type=watts, help=words)(function)


@contextlib.contextmanager
def usage_errors(option: str) -> Iterator[None]:
    """Convert a `ConfigurationError` of the block to a `click.BadParameter` that names the option."""
    try:
        yield
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def require_ids_or_all(ids: tuple[str, ...], *, all_experiments: bool, where: str | None = None) -> None:
    """Raise `click.UsageError` if the command line has both `--all` and a selection (ids or `--where`), or neither."""
    if all_experiments == (bool(ids) or where is not None):
        raise click.UsageError(f"Give either {'experiment ids' if where is None else '--where'} or --all.")


def names_of(text: str | None) -> list[str]:
    """Return the names of a comma-separated list, without repetitions. Return an empty list for None."""
    return list(dict.fromkeys(name.strip() for name in text.split(","))) if text is not None else []


def format_of(target: str, formats: Mapping[str, str], default: str = "csv") -> str:
    """Return the format for the suffix of the file name `target`. Return the default for an unknown suffix.

    Raises:
        click.BadParameter: The suffix belongs to a table format that the command cannot write.
    """
    suffix = Path(target).suffix.lower()
    if suffix in _TABLE_SUFFIXES - formats.keys():
        message = f"cannot write a {suffix} file; use {', '.join(formats)}, or choose the format with --format"
        raise click.BadParameter(message, param_hint="--to")
    return formats.get(suffix, default)


def given_results_dir() -> str | None:
    """Return the value of `-o`. None if the user did not give this option."""
    found: str | None = click.get_current_context().find_root().meta.get(_RESULTS_DIR_KEY)
    return found


def repository(*, must_exist: bool = True, is_absolute: bool = False) -> FileSystemRepository:
    """Return the repository of the results directory.

    Args:
        must_exist: Raise an error if the directory does not exist, and warn if the directory has no results.
        is_absolute: Make the path absolute, so that processes with another working directory find the directory.

    Raises:
        StorageError: The path is not a directory, or `must_exist` is set and the directory does not exist.
    """
    # --help does not need this import.
    from llm_energy_measure.results.repository import FileSystemRepository

    found = FileSystemRepository(given_results_dir())
    problem = found.missing_reason()
    if problem is not None and (must_exist or found.base_path.exists()):
        is_file = found.base_path.exists()
        advice = "use another one with -o DIR" if is_file else "record or import results first, or use another -o DIR"
        raise StorageError(f"cannot read results in {found.base_path}", problem, advice)
    if must_exist and found.store.supports_paths:
        _warn_if_no_results(found.base_path)
    return FileSystemRepository(found.base_path.absolute()) if is_absolute and found.store.supports_paths else found


def require_safe_target(repository: FileSystemRepository, target: str) -> None:
    """Raise `UnsafePathError` if a part of the target in the results directory is a link, a pipe or a device."""
    from llm_energy_measure.storage.contained import require_no_link

    if target != "-" and repository.store.supports_paths:
        require_no_link(target, repository.base_path)


def has_results(directory: Path) -> bool:
    """Return True if the directory has a file, a folder or a link with the name `raw` or `aggregated`."""
    return any(os.path.lexists(directory / name) for name in (RAW_DIR, AGGREGATED_DIR))


def _warn_if_no_results(directory: Path) -> None:
    """Warn if a directory has files but no results. Suggest a results directory below or above it."""
    with contextlib.suppress(OSError):  # the code that reads the results reports this error
        # Empty directories often have a hidden file such as .gitkeep.
        if not has_results(directory) and any(not entry.name.startswith(".") for entry in directory.iterdir()):
            candidates = (directory / DEFAULT_RESULTS_DIR, directory.parent, directory.parent.parent)
            near = next(filter(has_results, candidates), None)
            advice = "use another one with -o DIR" if near is None else f"did you mean -o {near}?"
            warn(f"{directory} has no results: it contains neither {RAW_DIR}/ nor {AGGREGATED_DIR}/; {advice}")


def require_known(repository: FileSystemRepository, name: str) -> str:
    """Return the id if the repository has this experiment.

    Raises:
        ResultNotFoundError: The repository does not have the experiment. The message suggests similar ids.
        ExperimentIdError: `name` is not a valid experiment id.
    """
    if repository.has_raw(name) or repository.has_aggregated(name) or repository.has_folder(name):
        return name
    if repository.list_attempts(name):  # only earlier attempts exist: the current attempt has not started
        return name
    from difflib import get_close_matches

    near = get_close_matches(name, all_ids(repository), n=_MAX_SUGGESTIONS, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"run '{PROGRAM} results list --all' to list all ids"
    found = f"{repository.base_path} has no files of this experiment"
    raise ResultNotFoundError(f"experiment {name!r} not found", found, advice)


def not_aggregated(name: str, alternative: str) -> ResultNotFoundError:
    """Return the error for an experiment without an aggregate. Its advice ends with `alternative`."""
    advice = f"run '{PROGRAM} aggregate {name}', or {alternative}"
    return ResultNotFoundError(f"aggregate of {name!r} not found", "the experiment is not aggregated yet", advice)


def all_ids(repository: FileSystemRepository) -> list[str]:
    """Return the folder names, which are valid ids, of all experiments in natural order."""
    from llm_energy_measure.domain.formatting import natural_key

    return sorted({*repository.list_experiments(), *repository.list_aggregated()}, key=natural_key)


def complete_id(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids that start with the word `incomplete`, for shell completion."""
    from llm_energy_measure.results.repository import FileSystemRepository

    directory = context.find_root().meta.get(_RESULTS_DIR_KEY)
    try:
        known = all_ids(FileSystemRepository(directory))
    except LLMEnergyMeasureError:
        return []  # an error message would appear inside the command line that the user types
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]

"""`llm-energy-measure import`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llm_energy_measure import importers
from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.cli.import_join import read_energy_records
from llm_energy_measure.cli.import_saver import DryRun, ExecutorSaver, Saver
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.exceptions import ExperimentIdError, LLMEnergyMeasureError
from llm_energy_measure.importers import Entry, ImportReport
from llm_energy_measure.importers.energy_join import EnergyJoin
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.importers.reader import ImportedRecords, parse_window
from llm_energy_measure.importers.report import merge
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.shards import Shard
from llm_energy_measure.results.store.layout import folder_name, process_file, raw_folder
from llm_energy_measure.storage.local import max_file_bytes
from llm_energy_measure.verification.verdicts import verdict_of

if TYPE_CHECKING:
    Pair = tuple[RawProcessResult, Entry]


@click.command(
    name="import",
    epilog=options.examples(
        "import emissions.csv --dry-run",
        "-o results import old_results/ --host node-1",
        "import bench.json --join power.csv",
        "import table.csv --map energy_j=energy_kwh*3.6e6 --map model_name=model",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=options.PathName())
@click.option(
    "--format",
    type=click.Choice(["auto", *importers.format_names()]),
    default="auto",
    show_default=True,
    help="Format of the files; auto detects it from their content.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show which files would be written, and the verdicts.")
@click.option(
    "--overwrite", is_flag=True, help="Replace stored results of the same process; keep a copy of each replaced result."
)
@click.option("--host", metavar="NAME", type=options.Text(), help="Use this host name for records without a host.")
@click.option(
    "--gpu-uuids",
    metavar="UUID,...",
    type=options.Text(),
    multiple=True,
    help="UUIDs of the GPUs of the host, in order of the GPU index.",
)
@click.option(
    "--map",
    "mapping",
    metavar="FIELD=EXPRESSION",
    multiple=True,
    help="Compute a field from the columns of a table; a fixed text is in quotes: \"backend='vllm'\". Repeat the "
    "option for each field.",
)
@click.option(
    "--from",
    "start",
    metavar="TIME",
    type=options.Text(),
    help="Count the energy of a power log from TIME on; with --join, TIME is the start of the run.",
)
@click.option(
    "--to",
    "end",
    metavar="TIME",
    type=options.Text(),
    help="Count the energy of a power log until TIME; with --join, TIME is the end of the run.",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    type=options.Text(),
    help="Names of the columns of a power log without header, as in nvidia-smi --query-gpu.",
)
@click.option(
    "--rows",
    "rows_path",
    metavar="PATH",
    type=options.Text(),
    help="Read the rows of a table from a list in a JSON document; PATH has the keys that lead to the list, such as "
    "results.runs.",
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    type=options.Text(),
    help="Import CodeCarbon runs with equal cells in COLUMN as processes of one experiment. With run_id, each run is "
    "an experiment.",
)
@click.option(
    "--join",
    "joined",
    metavar="PATH",
    multiple=True,
    type=options.PathName(),
    help="For runs without energy, take the energy from PATH: from a record of the same time, or from a power log.",
)
@options.tag_option
@options.shard_option
@options.executor_option
@options.json_option
@options.shared_options
@streams.finish_work
def import_results(
    *,
    paths: tuple[str, ...],
    dry_run: bool,
    overwrite: bool,
    gpu_uuids: tuple[str, ...],
    start: str | None,
    end: str | None,
    columns: str | None,
    joined: tuple[str, ...],
    tags: dict[str, str],
    shard: Shard | None,
    executor: str | None,
    as_json: bool,
    **read_options: Any,
) -> None:
    """Import results of other tools as raw results; each imported run becomes an experiment.

    Stored results are replaced only with --overwrite, and a repeated import changes no file. The command reports files
    and rows that can't be imported, with a reason code. Without -v and --json, it reports only the first file of each
    code, and the first row of each code in each file. -v also prints a line about each experiment. The exit status is 1
    if no record could be imported. With --shard, each job reads all files and imports its part of the experiments. With
    --executor, this process reads the files, and the workers save the results.
    """
    with options.usage_errors("--map"):
        parse_mappings(read_options["mapping"])
    repository = options.repository(must_exist=False, is_absolute=executor is not None)
    read_options |= {
        "gpu_uuids": [uuid.strip() for names in gpu_uuids for uuid in names.split(",") if uuid.strip()],
        "window": (start, end),
        "columns": [name.strip() for name in columns.split(",")] if columns else [],
        "max_bytes": max_file_bytes(),
    }
    printer = _Printer(repository, dry_run=dry_run, as_json=as_json)
    unused = set(read_options["gpu_uuids"])
    opened = _open_saver(repository, None if dry_run else executor, dry_run=dry_run, overwrite=overwrite)
    with _progress() as (progress, paused), opened as saver:
        machine = {name: read_options[name] for name in ("host", "gpu_uuids", "window", "columns")}
        energy, reports = read_energy_records(joined, **machine, progress=progress)
        runs = importers.read(paths, **read_options, progress=progress) if energy else ()
        reading = importers.read(
            paths, **read_options, join=EnergyJoin(energy, runs, parse_window(start, end)), progress=progress
        )
        selected = _Selected(reading, shard)
        groups = groupby(selected, key=lambda pair: pair[0].experiment_id)
        for pairs, new in saver.save_groups(list(group) for _, group in groups):
            unused -= {uuid for record, _ in pairs for uuid in _uuids(record)}
            if not dry_run and any(entry.outcome != "refused" for _, entry in pairs):
                options.set_tags(repository, pairs[0][0].experiment_id, tags)
            with paused():
                printer.add(pairs, new)
    printer.finish()
    if unused:
        found = f"no imported record has a GPU with the index of {', '.join(sorted(unused))}"
        terminal.warn(f"--gpu-uuids: {found}; check that the UUIDs are in order of the GPU index")
    is_empty = _print_report(
        merge([*reports, selected.report()]), saver, printer.experiments, as_json=as_json, dry_run=dry_run
    )
    if is_empty and not selected.others:
        raise SystemExit(1)


@contextlib.contextmanager
def _open_saver(
    repository: FileSystemRepository, executor: str | None, *, dry_run: bool, overwrite: bool
) -> Iterator[Saver]:
    """Yield the object that saves the records: in this process, or on the workers of an executor."""
    with options.executor_arguments(executor, repository) as workers:
        if workers:
            yield ExecutorSaver(repository, overwrite=overwrite, **workers)
        else:
            yield (DryRun if dry_run else Saver)(repository, overwrite=overwrite)


def _uuids(record: RawProcessResult) -> Iterator[str | None]:
    yield record.gpu_uuid
    yield from (device.gpu_uuid for device in record.energy_metrics.devices or ())


class _Selected:
    """The imported records of one shard, with their entries.

    Attributes:
        others: Number of records of other shards that the iteration has skipped so far.
    """

    def __init__(self, reading: ImportedRecords, shard: Shard | None) -> None:
        self.others = 0
        self._reading = reading
        self._shard = shard

    def __iter__(self) -> Iterator[Pair]:
        for record, entry in self._reading.with_entries():
            if self._has(record.experiment_id):
                yield record, entry
            else:
                entry.power_log = None
                self.others += 1

    def report(self) -> ImportReport:
        """Return the report without the records of other shards. Each shard reports all entries without a record."""
        report = ImportReport()
        report.entries = [entry for entry in self._reading.report.entries if self._has(entry.experiment_id)]
        return report

    def _has(self, experiment_id: str | None) -> bool:
        if self._shard is None or experiment_id is None:
            return True
        folder = experiment_id
        with contextlib.suppress(ExperimentIdError):  # the hash of the invalid id selects the shard that reports it
            folder = folder_name(experiment_id)
        return self._shard.has(folder)


class _Printer:
    """Prints one line per imported experiment: in a dry run, with -v, or if the import has only one experiment.

    Prints no line with --json.

    Attributes:
        experiments: Number of experiments with an imported record.
    """

    def __init__(self, repository: FileSystemRepository, *, dry_run: bool, as_json: bool) -> None:
        self.experiments = 0
        self._repository = repository
        self._dry_run = dry_run
        self._as_json = as_json
        self._only: Sequence[Pair] | None = None

    def add(self, pairs: Sequence[Pair], new: Sequence[int]) -> None:
        """Count an experiment. In a dry run or with -v, print its warnings and its line."""
        self.experiments += any(entry.outcome != "refused" for _, entry in pairs)
        self._only = pairs if self._only is None else ()
        if self._dry_run or terminal.is_verbose():
            self._print(pairs, new)

    def finish(self) -> None:
        """Print the line of the experiment, if the import has only one experiment and `add` has not printed it."""
        if self._only and not (self._dry_run or terminal.is_verbose()):
            self._print(self._only, ())

    def _print(self, pairs: Sequence[Pair], new: Sequence[int]) -> None:
        # If the user imports two copies of a log, each process occurs twice in `pairs`.
        kept = list({record.process_index: record for record, entry in pairs if entry.outcome != "refused"}.values())
        if not kept:
            return
        experiment_id = kept[0].experiment_id
        try:
            result = aggregate_results(experiment_id, kept)
        except LLMEnergyMeasureError as error:
            terminal.warn(error)
            return
        if self._dry_run or terminal.is_verbose():
            for warning in result.aggregation.warnings:
                terminal.warn(f"{experiment_id}: {warning}")
        if self._as_json:
            return
        line = formatting.aggregate_line(result)
        if self._dry_run:
            folder = raw_folder(self._repository.folder_of(experiment_id))
            files = ", ".join(f"{folder}/{process_file(index)}" for index in new)
            line += f", {_verdict(result)}; {f'would write {files}' if files else 'already stored'}"
        terminal.print_text(line)


def _verdict(result: AggregatedResult) -> str:
    """Return the verdict, the attributed energy if it differs from the total, and the codes of errors and warnings."""
    words: list[str] = [verdict_of(result)]
    if result.attributed_energy_j not in (None, result.total_energy_j):
        bounds, factor = result.attributed_bounds_j, result.attribution_factor
        words.append(f"attributed {formatting.attributed_energy(result.attributed_energy_j, bounds, factor)}")
    if codes := result.codes_of("error", "warning"):
        words.append(f"failed checks {', '.join(codes)}")
    return ", ".join(words)


def _print_report(report: ImportReport, saver: Saver, experiments: int, *, as_json: bool, dry_run: bool) -> bool:
    """Print the report and the counts. Return True if nothing was imported."""
    if as_json:
        terminal.print_json(report.document())
    counts = report.counts
    is_empty = counts["kept"] + counts["repaired"] == 0
    _print_entries(report, fails=is_empty)
    text = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    if experiments > 1:
        text = f"{formatting.plural(experiments, 'experiment')}: {text}"
    if saver.already_stored:
        text += f" ({saver.already_stored:,} already stored)"
    if saver.replaced:
        replaced = formatting.plural(saver.replaced, "stored result")
        text += f"; {'would replace' if dry_run else 'replaced'} {replaced}, keeping a copy"
    terminal.info(f"{text}; nothing was written" if dry_run else text)
    return is_empty


def _print_entries(report: ImportReport, *, fails: bool) -> None:
    """Print the first entry of each code and the number of the other entries. With -v, print all entries.

    For refused rows, print the first entry of each code in each file.

    Args:
        report: The report.
        fails: True if no record was imported. -q then does not hide the reasons.
    """
    printed: dict[tuple[str | None, str], int] = {}
    for entry in report.entries:
        where = entry.file if entry.row is None else f"{entry.file}:{entry.row}"
        text = f"{where}: {entry.outcome} ({entry.code}): {entry.message}"
        if entry.code in ("whole", "already_there"):
            terminal.debug(text)
            continue
        kind = (entry.file if entry.row is not None and entry.outcome == "refused" else None, entry.code)
        printed[kind] = printed.get(kind, 0) + 1
        if printed[kind] == 1:
            terminal.warn(text, fails=fails)
        else:
            terminal.debug(text)
    for (file, code), number in printed.items():
        if number > 1:
            where = "" if file is None else f"{file}: "
            terminal.info(f"{where}{number - 1:,} more with code {code}; -v or --json prints them")


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[Path, int], None] | None, Callable[[], Any]]]:
    """Show on a terminal which file is read. Yield the progress callback, and a context manager to hide the display."""
    if not terminal.shows_progress():
        yield None, contextlib.nullcontext
        return
    # Only commands that print a table or a progress display import rich.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TextColumn("{task.completed} files")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading")

        def on_progress(path: Path, size: int) -> None:
            name = terminal.escape(path.name)
            progress.update(task, description=f"{name} {size / 2**20:.0f} MiB", advance=1 if size <= 2**20 else 0)

        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            progress.stop()
            yield
            progress.start()

        yield on_progress, paused

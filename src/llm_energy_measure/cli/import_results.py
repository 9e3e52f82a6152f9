"""`llm-energy-measure import`."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure import importers
from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.cli.import_join import read_energy_records
from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.exceptions import ExperimentIdError, LLMEnergyMeasureError, ResultExistsError
from llm_energy_measure.importers import Entry, ImportReport
from llm_energy_measure.importers.codecarbon import ungrouped_experiment_id
from llm_energy_measure.importers.energy_join import EnergyJoin, without_joined_energy
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.importers.reader import ImportedRecords, parse_window
from llm_energy_measure.importers.report import merge
from llm_energy_measure.results import FileSystemRepository, aggregate_results
from llm_energy_measure.results.batch.shards import Shard
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import folder_name, process_file, raw_folder
from llm_energy_measure.results.store.raw_folder import RawFolder
from llm_energy_measure.results.store.samples import save_samples
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.group_commit import map_in_threads
from llm_energy_measure.storage.local import max_file_bytes
from llm_energy_measure.verification.verdicts import verdict_of

if TYPE_CHECKING:
    Pair = tuple[RawProcessResult, Entry]

_CONFLICT_ADVICE = "compare the two, or replace the stored result with --overwrite, which keeps a copy of it"


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
@click.option("--dry-run", is_flag=True, help="Write nothing; show the files to be written and the verdicts.")
@click.option(
    "--overwrite", is_flag=True, help="Replace stored results of the same process, and keep a copy of each one."
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
    help="Compute a field from the columns of a table; repeat it for each field.",
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
    help="Read the rows of a table from the list at PATH of a JSON document, such as results.runs.",
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    type=options.Text(),
    help="Make CodeCarbon runs with equal cells in COLUMN processes of one experiment; run_id separates all runs.",
)
@click.option(
    "--join",
    "joined",
    metavar="PATH",
    multiple=True,
    type=options.PathName(),
    help="Take the energy of runs without energy from PATH: a record of the same time, or the samples of a power log.",
)
@options.tag_option
@options.shard_option
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
    as_json: bool,
    **read_options: Any,
) -> None:
    """Import results of other tools as raw results; each imported run becomes an experiment.

    Stored results are replaced only with --overwrite, and a repeated import changes nothing. Files and rows that can't
    be imported are reported with a reason code: the first per code and file, or all with -v or --json. The exit status
    is 1 if nothing was imported. With --shard, each job reads all files and imports its part of the experiments.
    """
    with options.usage_errors("--map"):
        parse_mappings(read_options["mapping"])
    repository = options.repository(must_exist=False)
    read_options |= {
        "gpu_uuids": [uuid.strip() for names in gpu_uuids for uuid in names.split(",") if uuid.strip()],
        "window": (start, end),
        "columns": [name.strip() for name in columns.split(",")] if columns else [],
        "max_bytes": max_file_bytes(),
    }
    saver = (_DryRun if dry_run else _Saver)(repository, overwrite=overwrite)
    unused = set(read_options["gpu_uuids"])
    with _progress() as (progress, paused):
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
                _print_experiment(repository, pairs, new, dry_run=dry_run, as_json=as_json)
    if unused:
        terminal.warn(f"--gpu-uuids: no imported record has a GPU with the index of {', '.join(sorted(unused))}")
    is_empty = _print_report(merge([*reports, selected.report()]), saver, as_json=as_json, dry_run=dry_run)
    if is_empty and not selected.others:
        raise SystemExit(1)


def _uuids(record: RawProcessResult) -> Iterator[str | None]:
    yield record.gpu_uuid
    yield from (device.gpu_uuid for device in record.energy_metrics.devices or ())


class _Selected:
    """The imported records of one shard, with their entries.

    Attributes:
        others: Number of records of other shards so far.
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
        """Return the report without the records of other shards. Problems without a record are in each shard's."""
        report = ImportReport()
        report.entries = [entry for entry in self._reading.report.entries if self._has(entry.experiment_id)]
        return report

    def _has(self, experiment_id: str | None) -> bool:
        if self._shard is None or experiment_id is None:
            return True
        folder = experiment_id
        with contextlib.suppress(ExperimentIdError):  # one shard reports the invalid id
            folder = folder_name(experiment_id)
        return self._shard.has(folder)


class _Saver:
    """Saves imported records that are not stored yet.

    Attributes:
        already_stored: Number of records that the results directory already has.
        replaced: Number of stored results that a record replaced.
    """

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        self.repository = repository
        self.overwrite = overwrite
        self.already_stored = 0
        self.replaced = 0

    def save_groups(self, groups: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[int]]]:
        """Save the records of several experiments. Yield the records of each and its new processes, in order."""
        for pairs, new, saver in map_in_threads(self.repository.store, self._save_in, groups, _folder_name):
            self.already_stored += saver.already_stored
            self.replaced += saver.replaced
            yield pairs, new

    def _save_in(self, store: Store, pairs: list[Pair]) -> tuple[list[Pair], list[int], _Saver]:
        """Save the records of an experiment in a thread. Return the new processes, and a saver with the numbers."""
        saver = _Saver(FileSystemRepository(self.repository.base_path, store=store), overwrite=self.overwrite)
        return pairs, saver.new_processes(pairs), saver

    def new_processes(self, pairs: list[Pair]) -> list[int]:
        """Save the records of an experiment, and return the indices of the new ones."""
        return [record.process_index for record, entry in pairs if self.save_pair(record, entry)]

    def save_pair(self, record: RawProcessResult, entry: Entry) -> bool:
        """Save a record and its power samples. Return True if the record is new."""
        is_new = self.save(record, entry)
        if entry.power_log is not None and entry.outcome != "refused":
            try:
                self._write_samples(record, entry.power_log.traces)
            except LLMEnergyMeasureError as error:
                entry.message = f"{entry.message}; the power samples are not stored: {error}"
        entry.power_log = None  # the report keeps its entries until the end of the import
        return is_new

    def save(self, record: RawProcessResult, entry: Entry) -> bool:
        """Save a record and return True if it is new. Otherwise, write the reason into its entry and return False."""
        try:
            if self._is_stored(record):
                self.already_stored += 1
                notes = [] if entry.code == "whole" else [entry.message]
                entry.message = "; ".join([*notes, "the results already contain the same measurement"])
                if entry.outcome == "kept":
                    entry.code = "already_there"
                return False
            if (stored_id := self._stored_alone(record)) is not None:
                entry.outcome, entry.code = "refused", "stored_elsewhere"
                advice = f"to store it as a process, run 'results delete {stored_id}' and import again"
                entry.message = f"the same row is stored as experiment {stored_id}; {advice}"
                return False
            replaces = self.overwrite and self._has_process(record)
            self._write(record)
            self.replaced += replaces
        except LLMEnergyMeasureError as error:
            entry.outcome = "refused"
            entry.code = "conflict" if isinstance(error, ResultExistsError) else "refused_at_save"
            entry.message = _message(error)
            return False
        return True

    def _is_stored(self, record: RawProcessResult) -> bool:
        """Return True if the stored record has the same measurement. Its file may differ: logs grow and are copied."""
        if not self._has_process(record):
            return False
        stored = self._folder(record).read(record.process_index)
        return isinstance(stored, type(record)) and _without_origin(record) in (
            _without_origin(stored),
            _without_origin(without_joined_energy(stored, record)),
        )

    def _stored_alone(self, record: RawProcessResult) -> str | None:
        """Return the experiment in which an earlier import stored the same row alone; None if there is none."""
        experiment_id = ungrouped_experiment_id(record)
        if experiment_id in (None, record.experiment_id) or record.origin is None:
            return None
        alone = msgspec.structs.replace(record, experiment_id=experiment_id, process_index=0)
        if not self._has_process(alone):
            return None
        stored = self._folder(alone).read(0)
        origin = stored.origin if isinstance(stored, type(record)) else None
        is_same = origin is not None and (origin.sha256, origin.row) == (record.origin.sha256, record.origin.row)
        return experiment_id if is_same else None

    def _has_process(self, record: RawProcessResult) -> bool:
        return record.process_index in self._folder(record).process_indices()

    def _folder(self, record: RawProcessResult) -> RawFolder:
        return self.repository.raw_folder(self.repository.folder_of(record.experiment_id))

    def _write(self, record: RawProcessResult) -> None:
        self.repository.save_raw(record.experiment_id, record, overwrite=self.overwrite)

    def _write_samples(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> None:
        if any(trace.times for trace in traces):
            store = self.repository.store
            save_samples(store, record.experiment_id, record.process_index, traces, overwrite=self.overwrite)


class _DryRun(_Saver):
    """Predicts what `_Saver` would do, and writes nothing.

    Attributes:
        planned: Digest of each record that would be written, by folder and process.
        owners: Experiment id by folder.
    """

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        super().__init__(repository, overwrite=overwrite)
        self.planned: dict[tuple[str, int], bytes] = {}
        self.owners: dict[str, str] = {}

    def save_groups(self, groups: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[int]]]:
        """Plan the records of several experiments, one after the other."""
        return ((pairs, self.new_processes(pairs)) for pairs in groups)

    def _is_stored(self, record: RawProcessResult) -> bool:
        planned = self.planned.get(self._key(record))
        return planned == _digest(record) if planned is not None else super()._is_stored(record)

    def _has_process(self, record: RawProcessResult) -> bool:
        return self._key(record) in self.planned or super()._has_process(record)

    def _write(self, record: RawProcessResult) -> None:
        checked = codec.require_valid_raw(record)
        name, index = self._key(checked)
        folder = self._folder(checked)
        owner = self.owners.get(name) or folder.owner() or record.experiment_id
        if owner != record.experiment_id:
            raise folder.id_conflict(record.experiment_id, owner)
        if not self.overwrite and self._has_process(checked):
            found = "a different result of the same process is stored or comes earlier in this import"
            raise ResultExistsError(f"cannot save process {index} of {record.experiment_id!r}", found, _CONFLICT_ADVICE)
        self.owners[name] = owner
        self.planned[name, index] = _digest(record)

    def _write_samples(self, record: RawProcessResult, traces: Sequence[PowerTrace]) -> None:
        """Write nothing."""

    def _key(self, record: RawProcessResult) -> tuple[str, int]:
        return self.repository.folder_of(record.experiment_id), record.process_index


def _folder_name(pairs: list[Pair]) -> str:
    """Return a name that records in one folder have in common, also on a file system that ignores case."""
    return re.sub("[^a-z0-9]", "_", pairs[0][0].experiment_id.lower()).strip("_")


def _message(error: LLMEnergyMeasureError) -> str:
    """Return why a record was not saved; for a conflict, with advice for the command line."""
    if not isinstance(error, ResultExistsError) or error.digests is None:
        return str(error)
    kept = f"; the record is kept in {error.kept}" if error.kept is not None else ""
    return f"{error.doing}: {error.found}; {_CONFLICT_ADVICE}{kept}"


def _without_origin(record: RawProcessResult) -> RawProcessResult:
    """Return the record without the file that it comes from."""
    return msgspec.structs.replace(record, origin=None)


def _digest(record: RawProcessResult) -> bytes:
    return hashlib.sha256(msgspec.json.encode(_without_origin(record))).digest()


def _print_experiment(
    repository: FileSystemRepository, pairs: Sequence[Pair], new: Sequence[int], *, dry_run: bool, as_json: bool
) -> None:
    """Print one line about an experiment; in a dry run with its files, its warnings and its verdict."""
    # If an import has two copies of a log, each process occurs twice.
    kept = list({record.process_index: record for record, entry in pairs if entry.outcome != "refused"}.values())
    if not kept:
        return
    experiment_id = kept[0].experiment_id
    try:
        result = aggregate_results(experiment_id, kept)
    except LLMEnergyMeasureError as error:
        terminal.warn(error)
        return
    if dry_run:
        for warning in result.aggregation.warnings:
            terminal.warn(f"{experiment_id}: {warning}")
    if as_json:
        return
    line = formatting.aggregate_line(result)
    if dry_run:
        folder = raw_folder(repository.folder_of(experiment_id))
        files = ", ".join(f"{folder}/{process_file(index)}" for index in new)
        line += f", {_verdict(result)}; {f'would write {files}' if files else 'already stored'}"
    terminal.print_line(line)


def _verdict(result: AggregatedResult) -> str:
    """Return the verdict, the attributed energy if it differs from the total, and the codes of errors and warnings."""
    words: list[str] = [verdict_of(result)]
    if result.attributed_energy_j not in (None, result.total_energy_j):
        bounds, factor = result.attributed_bounds_j, result.attribution_factor
        words.append(f"attributed {formatting.attributed_energy(result.attributed_energy_j, bounds, factor)}")
    if codes := result.codes_of("error", "warning"):
        words.append(f"failed checks {', '.join(codes)}")
    return ", ".join(words)


def _print_report(report: ImportReport, saver: _Saver, *, as_json: bool, dry_run: bool) -> bool:
    """Print the report and the counts. Return True if nothing was imported."""
    if as_json:
        terminal.print_json(report.document())
    _print_entries(report)
    counts = report.counts
    text = ", ".join(f"{number} {name}" for name, number in counts.items())
    if saver.already_stored:
        text += f" ({saver.already_stored} already stored)"
    if saver.replaced:
        replaced = formatting.plural(saver.replaced, "stored result")
        text += f"; {'would replace' if dry_run else 'replaced'} {replaced}, keeping a copy"
    terminal.info(f"{text}; nothing was written" if dry_run else text)
    return counts["kept"] + counts["repaired"] == 0


def _print_entries(report: ImportReport) -> None:
    """Print the first entry of each code (and file, for rows) and the number of the others; with -v all entries."""
    printed: dict[tuple[str | None, str], int] = {}
    for entry in report.entries:
        where = entry.file if entry.row is None else f"{entry.file}:{entry.row}"
        text = f"{where}: {entry.outcome} ({entry.code}): {entry.message}"
        if entry.code in ("whole", "already_there"):
            terminal.debug(text)
            continue
        kind = (None if entry.row is None else entry.file, entry.code)
        printed[kind] = printed.get(kind, 0) + 1
        show = terminal.warn if printed[kind] == 1 else terminal.debug
        show(text)
    for (file, code), number in printed.items():
        if number > 1:
            where = "" if file is None else f"{file}: "
            terminal.info(f"{where}{number - 1} more with code {code}; -v or --json prints them")


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[Path, int], None] | None, Callable[[], Any]]]:
    """Show on a terminal which file is read. Yield the progress callback, and a context that hides the display."""
    if not terminal.is_terminal(sys.stderr):
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

"""`llm-energy-measure import`."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llm_energy_measure import importers
from llm_energy_measure.catalogue.summary import verdict_of
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.cli.energy_records import energy_records
from llm_energy_measure.cli.results_verify import attributed_for_person
from llm_energy_measure.exceptions import (
    ImportFormatError,
    LLMEnergyMeasureError,
    ResultExistsError,
    ResultNotFoundError,
)
from llm_energy_measure.importers.energy_join import EnergyJoin, without_joined_energy
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.importers.report import merge
from llm_energy_measure.results import aggregate_results
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import process_file, raw_folder
from llm_energy_measure.verification.completeness import describe_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llm_energy_measure.domain.experiment import AggregatedResult, RawProcessResult
    from llm_energy_measure.importers import Entry, ImportedRecords, ImportReport
    from llm_energy_measure.results.repository import FileSystemRepository
    from llm_energy_measure.results.store.raw_folder import RawFolder

    Pair = tuple[RawProcessResult, Entry]

_COMPARE = "compare the two, or import with --overwrite, which keeps the old one"


@click.command(
    name="import",
    epilog="\b\n"
    "Examples:\n"
    "  llm-energy-measure import emissions.csv --dry-run\n"
    "  llm-energy-measure -o results import old_results/ --host node-1\n"
    "  llm-energy-measure import table.csv --map energy_j=energy_kwh*3.6e6 --map model_name=model",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=options.PathName())
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", *importers.format_names()]),
    default="auto",
    show_default=True,
    help="Format of the files; auto recognises it from their content.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show what would be written, and the verdicts.")
@click.option(
    "--overwrite", is_flag=True, help="Replace different results of the same process; what is replaced is kept."
)
@click.option(
    "--host", metavar="NAME", type=options.Text(), help="The machine that was measured, where the files don't say."
)
@click.option(
    "--gpu-uuids", metavar="UUID,...", type=options.Text(), multiple=True, help="UUIDs of its GPUs, by index."
)
@click.option(
    "--map",
    "mapping",
    metavar="FIELD=EXPRESSION",
    multiple=True,
    help="What a field of a table is made of.",
)
@click.option(
    "--join",
    "joined",
    metavar="PATH",
    multiple=True,
    type=options.PathName(),
    help="Records with energy, for those of the same time that have none.",
)
@options.json_option
@options.shared_options
def import_results(
    *,
    paths: tuple[str, ...],
    form: str,
    dry_run: bool,
    overwrite: bool,
    host: str | None,
    gpu_uuids: tuple[str, ...],
    mapping: tuple[str, ...],
    joined: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bring in results of other tools, each as an experiment of its own.

    Nothing is replaced without --overwrite, and importing twice changes nothing. What could not be read is told with a
    reason code and a sentence (all of it with --json or -v); the exit status is 0 if anything was kept, 1 if nothing
    was.
    """
    try:
        parse_mappings(mapping)
    except ImportFormatError as error:
        raise click.BadParameter(f"{error.doing}: {error.found}; {error.advice}", param_hint="--map") from error
    repository = options.repository(must_exist=False)
    given: dict[str, Any] = {
        "format": form,
        "host": host,
        "gpu_uuids": [uuid.strip() for names in gpu_uuids for uuid in names.split(",") if uuid.strip()],
        "mapping": mapping,
    }
    reports: list[ImportReport] = []
    keeper = (_Planner if dry_run else _Keeper)(repository, overwrite=overwrite)
    unused = set(given["gpu_uuids"])
    with _progress() as (progress, aside):
        energy = []
        for path in joined:
            records, losses = energy_records(path, host=host, gpu_uuids=given["gpu_uuids"], progress=progress)
            energy += records
            reports.append(losses)
        energies = EnergyJoin(energy, _takers(paths, given, progress) if energy else ())
        for path in paths:
            try:
                reading = importers.read(path, **given, join=energies, progress=progress)
            except ResultNotFoundError as error:
                reports.append(importers.ImportReport())
                reports[-1].refuse(str(path), "unreadable", error.found)
                continue
            except ImportFormatError as error:
                reports.append(importers.ImportReport())
                reports[-1].refuse(str(path), "unknown_format", error.found)
                continue
            reports.append(reading.report)
            for pairs in _experiments(reading):
                unused -= {uuid for record, _ in pairs for uuid in _uuids(record)}
                new = [record.process_index for record, entry in pairs if keeper.keep(record, entry)]
                with aside():
                    _say(repository, pairs, new, dry_run=dry_run, as_json=as_json)
    if unused:
        terminal.warn(f"--gpu-uuids: no record has a GPU that they fit: {', '.join(sorted(unused))}")
    report = merge(reports)
    _finish(report, keeper, as_json=as_json, dry_run=dry_run)


def _takers(
    paths: Sequence[str], given: dict[str, Any], progress: Callable[[Path, int], None] | None
) -> Iterator[RawProcessResult]:
    """All that will be imported; what can't be read is told then."""
    for path in paths:
        with contextlib.suppress(ResultNotFoundError, ImportFormatError):
            yield from importers.read(path, **given, progress=progress)


def _experiments(reading: ImportedRecords) -> Iterator[list[Pair]]:
    """The records of each experiment, with their entries."""
    for _, pairs in groupby(reading.with_entries(), key=lambda pair: pair[0].experiment_id):
        yield list(pairs)


def _uuids(record: RawProcessResult) -> Iterator[str | None]:
    yield record.gpu_uuid
    yield from (device.gpu_uuid for device in record.energy_metrics.devices or ())


class _Keeper:
    """Saves what is imported, unless it is there already."""

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        """Remember where to; nothing was there yet."""
        self.repository = repository
        self.overwrite = overwrite
        self.there = 0
        self.replaced = 0

    def keep(self, record: RawProcessResult, entry: Entry) -> bool:
        """True if the record is new, and saved; else its entry is told why."""
        try:
            if self._is_there(record):
                self.there += 1
                said = [] if entry.code == "whole" else [entry.message]
                entry.message = "; ".join([*said, "the results hold the same measurement already"])
                if entry.outcome == "kept":
                    entry.code = "already_there"
                return False
            replaces = self.overwrite and self._has_another(record)
            self._save(record)
            self.replaced += replaces
        except LLMEnergyMeasureError as error:
            entry.outcome = "refused"
            entry.code = "conflict" if isinstance(error, ResultExistsError) else "refused_at_save"
            entry.message = _in_words(error)
            return False
        return True

    def _is_there(self, record: RawProcessResult) -> bool:
        """True if a stored record says the same, whichever file it was imported from: a log grows, and is copied."""
        if not self._has_another(record):
            return False
        stored = self._folder(record).read(record.process_index)
        return isinstance(stored, type(record)) and _measured(record) in (
            _measured(stored),
            _measured(without_joined_energy(stored, record)),
        )

    def _has_another(self, record: RawProcessResult) -> bool:
        return record.process_index in self._folder(record).process_indices()

    def _folder(self, record: RawProcessResult) -> RawFolder:
        return self.repository.raw_folder(self.repository.folder_of(record.experiment_id))

    def _save(self, record: RawProcessResult) -> None:
        self.repository.save_raw(record.experiment_id, record, overwrite=self.overwrite)


class _Planner(_Keeper):
    """Finds what saving would do, and writes nothing."""

    def __init__(self, repository: FileSystemRepository, *, overwrite: bool) -> None:
        """Remember where to; nothing is planned yet."""
        super().__init__(repository, overwrite=overwrite)
        self.planned: dict[tuple[str, int], bytes] = {}
        self.holders: dict[str, str] = {}

    def _is_there(self, record: RawProcessResult) -> bool:
        planned = self.planned.get(self._place(record))
        return planned == _digest(record) if planned is not None else super()._is_there(record)

    def _has_another(self, record: RawProcessResult) -> bool:
        return self._place(record) in self.planned or super()._has_another(record)

    def _save(self, record: RawProcessResult) -> None:
        checked = codec.require_valid_raw(record)
        name, index = self._place(checked)
        folder = self._folder(checked)
        holder = self.holders.get(name) or folder.holder() or record.experiment_id
        if holder != record.experiment_id:
            raise folder.taken(record.experiment_id, holder)
        if not self.overwrite and self._has_another(checked):
            found = "a different result of the same process comes before it"
            raise ResultExistsError(f"cannot save process {index} of {record.experiment_id!r}", found, _COMPARE)
        self.holders[name] = holder
        self.planned[name, index] = _digest(record)

    def _place(self, record: RawProcessResult) -> tuple[str, int]:
        return self.repository.folder_of(record.experiment_id), record.process_index


def _in_words(error: LLMEnergyMeasureError) -> str:
    """Why a record was not saved; of a conflict with what can be done on a command line."""
    if not isinstance(error, ResultExistsError) or error.digests is None:
        return str(error)
    kept = f"; the record is kept in {error.kept}" if error.kept is not None else ""
    return f"{error.doing}: {error.found}; {_COMPARE}{kept}"


def _measured(record: RawProcessResult) -> RawProcessResult:
    """The record without the file that it comes from."""
    return msgspec.structs.replace(record, origin=None)


def _digest(record: RawProcessResult) -> bytes:
    return hashlib.sha256(msgspec.json.encode(_measured(record))).digest()


def _say(
    repository: FileSystemRepository, pairs: Sequence[Pair], new: Sequence[int], *, dry_run: bool, as_json: bool
) -> None:
    """One line about an experiment; in a dry run also where it would lie, and what a check has to say of it."""
    # Two copies of a log, one behind the other, have each process twice.
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
    energy = terminal.energy(result.total_energy_j, at_least="at least " if result.is_lower_bound else "")
    found = describe_found(result.completeness)
    line = f"{experiment_id}: {found}, {energy}, {terminal.count(result.total_tokens)} tokens"
    if dry_run:
        folder = raw_folder(repository.folder_of(experiment_id))
        files = ", ".join(f"{folder}/{process_file(index)}" for index in new)
        line += f", {_verdict(result)}; {f'would write {files}' if files else 'is there already'}"
    terminal.out(line)


def _verdict(result: AggregatedResult) -> str:
    """The verdict, the energy with every joule counted once where that is another, and the checks that failed."""
    words = [verdict_of(result)]
    if result.attributed_energy_j not in (None, result.total_energy_j):
        bounds, factor = result.attributed_bounds_j, result.attribution_factor
        words.append(f"attributed {attributed_for_person(result.attributed_energy_j, bounds, factor)}")
    if result.failed_codes:
        words.append(f"failed checks {', '.join(result.failed_codes)}")
    return ", ".join(words)


def _finish(report: ImportReport, keeper: _Keeper, *, as_json: bool, dry_run: bool) -> None:
    """Say what became of all that was seen."""
    if as_json:
        terminal.out_json(report.document())
    _say_losses(report)
    counts = report.counts
    said = ", ".join(f"{number} {name}" for name, number in counts.items())
    if keeper.there:
        said += f" ({keeper.there} were there already)"
    if keeper.replaced:
        said += f"; of results that were there {keeper.replaced} {'would be' if dry_run else 'were'} replaced, and kept"
    terminal.note(f"{said}; nothing was written" if dry_run else said)
    if counts["kept"] + counts["repaired"] == 0:
        raise SystemExit(1)


def _say_losses(report: ImportReport) -> None:
    """The first of each kind of loss, of rows in each file, and how many more there are; all of them with -v."""
    told: dict[tuple[str | None, str], int] = {}
    for entry in report.entries:
        where = entry.file if entry.row is None else f"{entry.file}:{entry.row}"
        sentence = f"{where}: {entry.outcome} ({entry.code}): {entry.message}"
        if entry.code in ("whole", "already_there"):
            terminal.detail(sentence)
            continue
        kind = (None if entry.row is None else entry.file, entry.code)
        told[kind] = told.get(kind, 0) + 1
        if told[kind] == 1:
            terminal.warn(sentence)
        else:
            terminal.detail(sentence)
    for (file, code), number in told.items():
        if number > 1:
            where = "" if file is None else f"{file}: "
            terminal.note(f"{where}{number - 1} more of {code} (-v or --json names them)")


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[Path, int], None] | None, Callable[[], Any]]]:
    """A line on stderr that says what is being read, where that is a terminal; and a way to print beside it."""
    if not terminal.is_terminal(sys.stderr):
        yield None, contextlib.nullcontext
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TextColumn("{task.completed} files")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading")

        def tell(path: Path, size: int) -> None:
            name = terminal.plain(path.name)
            progress.update(task, description=f"{name} {size / 2**20:.0f} MiB", advance=1 if size <= 2**20 else 0)

        @contextlib.contextmanager
        def aside() -> Iterator[None]:
            # What is said of an experiment would otherwise stand in the line of the bar.
            progress.stop()
            yield
            progress.start()

        yield tell, aside

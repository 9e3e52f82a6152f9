"""`read`: a file or folder of another tool as records, one by one, and the report of all that was seen."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llm_energy_measure.exceptions import ImportFormatError, ResultNotFoundError
from llm_energy_measure.importers.bounded import Original, read_original, walk
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.joining import Energies
from llm_energy_measure.importers.limits import MAX_BYTES, MAX_FILES, RefusedFileError
from llm_energy_measure.importers.loss import Entry, LossReport
from llm_energy_measure.importers.mapping import parse_mappings
from llm_energy_measure.importers.registry import formats_named, recognise, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import DeviceEnergy

    Progress = Callable[[Path, int], None]


class Reading:
    """Records of a file or folder, to be iterated over once; the report grows meanwhile, and is whole at the end.

    Attributes:
        report: What became of all that was seen.
    """

    def __init__(self, records: Iterator[RawProcessResult], report: LossReport) -> None:
        """Remember what to iterate over."""
        self.report = report
        self._records = records

    def __iter__(self) -> Iterator[RawProcessResult]:
        """The records; those of one experiment come one behind the other."""
        return self._records

    def with_entries(self) -> Iterator[tuple[RawProcessResult, Entry]]:
        """The records, each with its entry in the report, which may be changed if the record is refused later on."""
        for record in self._records:
            yield record, self.report.entries[-1]


def read(
    path: str | Path,
    *,
    format: str | Format | Sequence[Format] = "auto",  # noqa: A002 - the word of the command line
    host: str | None = None,
    gpu_uuids: Sequence[str] = (),
    mapping: Sequence[str] = (),
    join: Sequence[RawProcessResult] | Energies = (),
    max_files: int = MAX_FILES,
    progress: Progress | None = None,
) -> Reading:
    """The records in a file or folder of another tool, and what was lost of it.

    What is wrong with the content is said in the report; only a file that was named itself and that no format
    recognises is an error, raised before anything is iterated over. Unknown is None in every field.

    Args:
        path: A file, or a folder of any depth.
        format: Name of the format, or one or more of your own; `auto` recognises it from the content of each file.
        host: Name of the machine that was measured, where the files don't say.
        gpu_uuids: UUIDs of its GPUs, by index.
        mapping: For a generic table, what each field is made of: `energy_j=energy_kwh*3.6e6`. With one, a file is read
            as a table; in a folder those are that no other format recognises.
        join: Records with energy; one without is joined with the one of the same time, unless that is of the time of
            several. To find those out, everything is read twice; `Energies` says it of many paths at once.
        max_files: Files of a folder to read; the folder inside that goes beyond is told, and not read.
        progress: Told each path and the bytes read of it so far.

    Raises:
        ImportFormatError: No such format, a mapping that is none, or a file of no format; it says what was found and
            what was looked for.
        ResultNotFoundError: Nothing is there.

    Example:
        >>> from llm_energy_measure.exceptions import ImportFormatError
        >>> try:
        ...     read("results/raw/smollm2_b1_c0/process_0.json")
        ... except ImportFormatError as error:
        ...     print(error.found.partition(" (")[0], "...")
        found a result of this tool, which needs no import ...
        >>> reading = read("results/raw/smollm2_b1_c0")  # in a folder it is one of many files
        >>> list(reading), reading.report.refused > 0
        ([], True)
    """
    if path == "":  # which a Path takes for the current folder
        raise ResultNotFoundError("cannot import ''", "the name is empty", "name a file or folder")
    path = Path(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        # Whatever else the system refuses is an entry of the report, once the file is opened.
        if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError) and not path.is_symlink():
            raise ResultNotFoundError(f"cannot import {path}", "nothing is there", "check the spelling") from error
        is_folder = False
    if isinstance(format, str):
        among = formats_named(format)
    else:
        among = (format,) if isinstance(format, Format) else tuple(format)
    options = Options(host=host, gpu_uuids=tuple(gpu_uuids), mapping=parse_mappings(mapping))
    if join and not isinstance(join, Energies):
        join = Energies(join, read(path, format=among, mapping=mapping, max_files=max_files, progress=progress))
    if isinstance(join, Energies):
        options = msgspec.structs.replace(options, energy=join)
    report = LossReport()
    walker = _Walker(among, options, report, max_files, progress)
    records = walker.folder(path) if is_folder else walker.file(path)
    return Reading((placed(record, options) for record in records), report)


class _Walker:
    """Reads files one by one, so that only those of one measurement are in memory at a time."""

    def __init__(
        self,
        among: Sequence[Format],
        options: Options,
        report: LossReport,
        max_files: int,
        progress: Progress | None,
    ) -> None:
        """Remember how to read."""
        self.among = among
        self.options = options
        self.report = report
        self.max_files = max_files
        self.progress = progress

    def file(self, path: Path) -> Iterator[RawProcessResult]:
        """Records of a file that was named itself.

        Raises:
            ImportFormatError: No format recognises it.
        """
        original = self._open(path)
        # A mapping is for a table: a file that was named beside one is meant as one, whatever else it could be.
        tables = [form for form in self.among if form.needs_mapping] if self.options.mapping else []
        form = None if original is None else self._format_of(original, tables or self.among)
        if original is None or form is None:
            return iter(())
        if form.is_folder:
            sentence = f"it is one file of a {form.name} measurement; import its folder {path.parent}"
            self.report.refuse(original.shown, "part_of_folder", sentence)
            return iter(())
        return self._read(form, [original])

    def folder(self, top: Path) -> Iterator[RawProcessResult]:
        """Records of all files under a folder."""
        seen = 0

        def unreadable(error: OSError) -> None:
            self.report.refuse(str(error.filename), "unreadable", f"the system refused: {error.strerror}")

        for folder, names in walk(top, unreadable):
            seen += len(names)
            if seen > self.max_files:
                sentence = f"more than {self.max_files} files are under {top}; import its folders one by one"
                self.report.refuse(str(folder), "too_many", sentence)
                return
            yield from self._files_of(folder, names)

    def _files_of(self, folder: Path, names: Sequence[str]) -> Iterator[RawProcessResult]:
        """Records of the files of one folder: single ones at once, those that belong together at its end."""
        parts: dict[str, list[Path]] = {}
        empty: list[Path] = []
        for name in names:
            path = folder / name
            if path.is_symlink():
                self.report.refuse(str(path), "not_a_file", "it is a symbolic link, which is not followed")
                continue
            original = self._open(path, or_empty=empty)
            try:
                form = None if original is None else self._format_of(original, self.among)
            except ImportFormatError as error:
                self.report.refuse(str(path), "unknown_format", error.found)
                continue
            if original is None or form is None:
                continue
            if form.is_folder:
                parts.setdefault(form.name, []).append(path)
            else:
                yield from self._read(form, [original])
        for form in self.among:
            own = {path for path in empty if form.names(path.name)}
            empty = [path for path in empty if path not in own]
            for group in form.measurements([*parts.get(form.name, []), *own]):
                yield from self._read(form, self._open_all(form, group))
        for path in empty:
            self.report.refuse(str(path), "empty_file", "it is empty (0 bytes)")

    def _read(self, form: Format, originals: list[Original]) -> Iterator[RawProcessResult]:
        if not originals:
            return
        seen = self.report.seen
        try:
            yield from form.read(originals, self.options, self.report)
            if self.report.seen == seen:
                self.report.refuse(originals[0].shown, "no_measurement", "nothing is in it that could be a measurement")
        except RefusedFileError as refused:
            self.report.refuse(originals[0].shown, refused.code, refused.sentence)
        except Exception as error:  # noqa: BLE001 - what one file breaks must not cost the others
            self._broke_off(form.name, originals[0], error)

    def _broke_off(self, name: str, original: Original, error: Exception) -> None:
        sentence = f"{name} broke off at what it did not expect ({type(error).__name__}: {str(error)[:200]})"
        self.report.refuse(original.shown, "broke_off", f"{sentence}; please report it")

    def _open(self, path: Path, or_empty: list[Path] | None = None) -> Original | None:
        """The file; None if it was refused, or is empty and put aside for those that know it by name."""
        try:
            original = read_original(path, self.progress)
        except RefusedFileError as refused:
            self.report.refuse(str(path), refused.code, refused.sentence)
            return None
        if not original.data and or_empty is not None:
            or_empty.append(path)
            return None
        return original

    def _open_all(self, form: Format, paths: Sequence[Path]) -> list[Original]:
        """The files of one measurement, all at once."""
        originals: list[Original] = []
        for path in paths:
            original = self._open(path)
            if original is None:
                continue
            if original.data and not form.recognises(original):
                self.report.refuse(original.shown, "changed_while_read", "it was another file when it was seen first")
                continue
            originals.append(original)
            if sum(len(one.data) for one in originals) > MAX_BYTES:
                sentence = f"the {form.name} files of this folder have more than {MAX_BYTES // 2**20} MiB together"
                self.report.refuse(str(path.parent), "too_large", sentence)
                return []
        return originals

    def _format_of(self, original: Original, among: Sequence[Format]) -> Format | None:
        wanted = [form for form in among if self.options.mapping or not form.needs_mapping or len(among) == 1]
        try:
            form = recognise(original, wanted)
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._broke_off("recognising it", original, error)
            return None
        if form is None and not original.data.strip(b" \t\r\n\0"):
            self.report.refuse(original.shown, "empty_file", f"it holds {original.found()} and nothing else")
        elif form is None:
            raise unknown(original, among)
        return form


def placed(record: RawProcessResult, options: Options) -> RawProcessResult:
    """The record with what the caller knows of the machine; what the file itself says stands."""
    changes: dict[str, object] = {}
    if options.host is not None and record.host is None:
        changes["host"] = options.host
    if options.gpu_uuids:
        devices = record.energy_metrics.devices
        if devices:
            named = _named(devices, options.gpu_uuids)
            changes["energy_metrics"] = msgspec.structs.replace(record.energy_metrics, devices=named)
        if record.gpu_uuid is None and record.gpu_id is not None and 0 <= record.gpu_id < len(options.gpu_uuids):
            changes["gpu_uuid"] = options.gpu_uuids[record.gpu_id]
    return msgspec.structs.replace(record, **changes) if changes else record


def _named(devices: Sequence[DeviceEnergy], gpu_uuids: Sequence[str]) -> list[DeviceEnergy]:
    """The devices with their UUIDs: by index, or all of them in order where no index is known and the number is."""
    indices = [device.gpu_id for device in devices]
    if all(index is None for index in indices) and len(devices) == len(gpu_uuids):
        indices = list(range(len(devices)))
    return [
        msgspec.structs.replace(device, gpu_uuid=gpu_uuids[index])
        if index is not None and 0 <= index < len(gpu_uuids) and device.gpu_uuid is None
        else device
        for device, index in zip(devices, indices, strict=True)
    ]

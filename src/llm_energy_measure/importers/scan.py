"""Read the files of an import, choose the format of each file, and report the files that cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.exceptions import ImportFormatError, ResultNotFoundError
from llm_energy_measure.importers.description import describe, is_blank
from llm_energy_measure.importers.file_content import FileContent
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.limits import MAX_BYTES
from llm_energy_measure.importers.registry import unknown_format
from llm_energy_measure.importers.report import ImportReport, RefusedInputError
from llm_energy_measure.importers.source_file import ImportSource


def is_folder(path: str | Path) -> bool:
    """Return whether a path is a folder. Raise ResultNotFoundError if the path is empty or does not exist."""
    if path == "":  # Path("") is the current folder
        raise ResultNotFoundError("cannot import ''", "the path is empty", "name a file or a folder")
    path = Path(path)
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        # The report gets all other errors of the operating system, when the file is opened.
        if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError) and not path.is_symlink():
            raise ResultNotFoundError(f"cannot import {path}", "the path does not exist", "check the path") from error
        return False


class Scan:
    """Yields the records of a file or folder. Only files that are read together are in memory at the same time.

    Args:
        formats: Formats, in the order in which they are tried.
        options: Arguments of the caller, and limits.
        report: Gets an entry for each file, row or object.
    """

    def __init__(self, formats: Sequence[Format], options: Options, report: ImportReport) -> None:
        self.formats = formats
        self.options = options
        self.report = report

    def file(self, path: Path) -> Iterator[RawProcessResult]:
        """Return the records of one file that the caller passed.

        Raises:
            ImportFormatError: No format recognises the file.
        """
        source = self._open(path)
        form = None if source is None else self._format_of(source, self._formats_of_file())
        if source is None or form is None:
            return iter(())
        if form.is_folder:
            self._refuse_part(form, path)
            return iter(())
        return self._read(form, [source])

    def paths(self, paths: Sequence[str | Path]) -> Iterator[RawProcessResult]:
        """Yield the records of several files and folders. Files of a format with `reads_together` are read together."""
        together: dict[str, list[ImportSource]] = {}
        for name in paths:
            try:
                if is_folder(name):
                    yield from self.folder(Path(name))
                    continue
                path = Path(name)
                source = self._open(path)
                form = None if source is None else self._format_of(source, self._formats_of_file())
            except (ImportFormatError, ResultNotFoundError) as error:
                code = "unreadable" if isinstance(error, ResultNotFoundError) else "unknown_format"
                self.report.refuse(name, code, error.found)
                continue
            if form is not None and form.is_folder:
                self._refuse_part(form, path)
            elif form is not None and source is not None:
                yield from self._read_single(form, source, together)
        for form in self.formats:
            yield from self._read(form, together.pop(form.name, []))

    def _formats_of_file(self) -> Sequence[Format]:
        """Return the formats to try for a file that the user named; with a mapping, only the formats of tables."""
        tables = [form for form in self.formats if form.needs_mapping or form.takes_mapping]
        return tables if self.options.mapping and tables else self.formats

    def _refuse_part(self, form: Format, path: Path) -> None:
        found = f"it is one of several files of a {form.name} measurement; import the folder {path.parent}"
        self.report.refuse(path, "part_of_folder", found)

    def folder(self, top: Path) -> Iterator[RawProcessResult]:
        """Yield the records of all files in a folder and its subfolders."""
        seen, before = 0, self.report.seen

        def refuse(error: OSError) -> None:
            self.report.refuse(str(error.filename), "unreadable", f"the folder cannot be listed: {error.strerror}")

        for folder, names in _walk(top, refuse):
            seen += len(names)
            if seen > self.options.max_files:
                found = f"{top} has more than {self.options.max_files} files; import its subfolders one by one"
                self.report.refuse(folder, "too_many", found)
                return
            yield from self._files_of(folder, names)
        if not seen and self.report.seen == before:
            self.report.refuse(top, "no_measurement", "the folder has no files")

    def _files_of(self, folder: Path, names: Sequence[str]) -> Iterator[RawProcessResult]:
        """Yield the records of the files of one folder: first of single files, then of groups of files."""
        parts: dict[str, list[Path]] = {}
        together: dict[str, list[ImportSource]] = {}
        empty: list[Path] = []
        for path in (folder / name for name in names):
            if path.is_symlink():
                self.report.refuse(path, "not_a_file", "it is a symbolic link; import the file that it points to")
            elif (source := self._open(path)) is None:
                continue
            elif source.size == 0:
                empty.append(path)
            elif (form := self._format_of_part(source)) is not None and form.is_folder:
                parts.setdefault(form.name, []).append(path)
            elif form is not None:
                yield from self._read_single(form, source, together)
        for form in self.formats:
            # An empty file has no content to recognise. Its name shows whether it belongs to a measurement.
            own = {path for path in empty if form.matches_name(path.name)}
            empty = [path for path in empty if path not in own]
            yield from self._read(form, together.pop(form.name, []))
            for paths in form.measurements([*parts.get(form.name, []), *own]):
                yield from self._read(form, self._open_all(form, paths))
        for path in empty:
            self.report.refuse(path, "empty_file", "the file is empty (0 bytes)")

    def _read_single(
        self, form: Format, source: ImportSource, together: dict[str, list[ImportSource]]
    ) -> Iterator[RawProcessResult]:
        """Yield the records of a file. If its format reads several files together, add the file to `together` instead.

        Args:
            form: Format of the file.
            source: The file.
            together: Files that wait for other files, by format. Before the files of a format exceed `MAX_BYTES`
                together, their records are yielded.
        """
        if not form.reads_together:
            yield from self._read(form, [source])
            return
        group = together.setdefault(form.name, [])
        if sum(other.size for other in group) + source.size > MAX_BYTES:
            yield from self._read(form, group)
            group.clear()
        group.append(source)

    def _read(self, form: Format, sources: list[ImportSource]) -> Iterator[RawProcessResult]:
        """Yield the records of one measurement; an error affects only this measurement."""
        if not sources:
            return
        path, seen = sources[0].path, self.report.seen
        try:
            with self.report.refusing(path):
                for record in form.read(sources, self.options, self.report):
                    if any(source.is_converted for source in sources):
                        found = "the table has semicolons; decimal commas were read as decimal points"
                        self.report.entries[-1].add_repair("decimal_comma", found)
                    yield record
                if self.report.seen == seen:
                    self.report.refuse(path, "no_measurement", "the file contains no measurement; check its content")
        except Exception as error:  # noqa: BLE001 - a bug of one importer must not stop the import of other files
            self._report_bug(f"the importer {form.name}", path, error)

    def _format_of_part(self, source: ImportSource) -> Format | None:
        """Return the format of one file of a folder, or None if the file was refused."""
        try:
            return self._format_of(source, self.formats)
        except ImportFormatError as error:
            self.report.refuse(source.path, "unknown_format", error.found)
            return None

    def _report_bug(self, what: str, path: Path, error: Exception) -> None:
        found = f"{what} failed on unexpected content ({type(error).__name__}: {str(error)[:200]})"
        self.report.refuse(path, "broke_off", f"{found}; please report it with the file")

    def _open(self, path: Path) -> ImportSource | None:
        """Return the file, or None if it was refused."""
        with self.report.refusing(path):
            return ImportSource(FileContent(path, self.options.progress, self.options.max_bytes))
        return None

    def _open_all(self, form: Format, paths: Sequence[Path]) -> list[ImportSource]:
        """Return the files of one measurement; an empty list if the files together exceed the size limit."""
        sources: list[ImportSource] = []
        for path in paths:
            source = self._open(path)
            if source is None:
                continue
            if source.size and not form.recognises(source):
                found = "the file changed after its format was recognised; import the file after its tool has ended"
                self.report.refuse(path, "changed_while_read", found)
                continue
            sources.append(source)
            if sum(source.size for source in sources) > MAX_BYTES:
                found = f"the {form.name} files of this folder have more than {MAX_BYTES // 2**20} MiB together"
                self.report.refuse(path.parent, "too_large", f"{found}; split the folder")
                return []
        return sources

    def _format_of(self, source: ImportSource, formats: Sequence[Format]) -> Format | None:
        """Return the format of a file, or None if the file was refused.

        Raises:
            ImportFormatError: No format recognises the file.
        """
        tried = [form for form in formats if self.options.mapping or not form.needs_mapping or len(formats) == 1]
        try:
            form = next((form for form in tried if form.recognises(source)), None)
            is_empty = form is None and is_blank(source)
        except RefusedInputError as error:
            self.report.refuse(source.path, error.code, error.message)
            return None
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._report_bug("recognition of the format", source.path, error)
            return None
        if is_empty:
            self.report.refuse(source.path, "empty_file", f"the file has only {describe(source)}")
        elif form is None:
            raise unknown_format(source, formats)
        return form


def _walk(top: Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder, from the top down, with the sorted names of its files.

    Names that begin with a dot are skipped, and links to folders are not followed.

    Args:
        top: The folder to begin with.
        on_error: Called with the error of each folder that cannot be listed.
    """
    # os.walk is recursive in Python 3.11, and fails on a thousand levels.
    pending = [str(top)]
    while pending:
        name = pending.pop()
        try:
            with os.scandir(name) as entries:
                found = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
        except OSError as error:
            on_error(error)
            continue
        shown = [entry for entry in found if not entry[0].startswith(".")]
        yield Path(name), [inner for inner, is_folder, _ in shown if not is_folder]
        folders = [inner for inner, is_folder, is_link in shown if is_folder and not is_link]
        pending += [f"{name}{os.sep}{inner}" for inner in reversed(folders)]

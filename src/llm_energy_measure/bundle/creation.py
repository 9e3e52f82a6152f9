"""Create a bundle: pack the files of experiments into one archive.

The archive is written to a temporary file in the target folder, synced, and then renamed. A process that is killed at
any instant leaves no file under the final name. Memory holds the files of one experiment, and the names of all
experiments.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from llm_energy_measure.bundle import contents, manifests, names, signature
from llm_energy_measure.bundle.contents import CrateFacts, Environment, LeftOut, Selection
from llm_energy_measure.bundle.pseudonyms import Pseudonyms
from llm_energy_measure.bundle.snapshot import Snapshot, read_snapshot
from llm_energy_measure.bundle.verdicts import CLEAN, encode_verdict, verdict_on
from llm_energy_measure.bundle.version import VERSION
from llm_energy_measure.bundle.zip_writer import ZipWriter, chunks_of, spool
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.exceptions import BundleError, ConfigurationError, ExportError, ResultExistsError
from llm_energy_measure.results.repository import FileSystemRepository
from llm_energy_measure.results.store.layout import earlier_attempt_of
from llm_energy_measure.storage.contained import ContainedFolder

_EARLIER_ATTEMPT = "an earlier attempt, which a rerun replaced"


class BundleOptions(Struct, frozen=True, kw_only=True):
    """Options of `create_bundle`.

    Attributes:
        date: Date of the bundle, as YYYY-MM-DD. By default, the date of the newest result.
        licence: SPDX identifier of the licence.
        citation: A file that says how to cite the results.
        sign_with: Key that signs the bundle.
        only_passed: Leave out experiments with another verdict than `complete`.
        pseudonymise: Replace the names of hosts and users.
        report: Function that returns an HTML report about a results directory. It is called with a results directory
            that has only the packed files.
    """

    date: str | None = None
    licence: str | None = None
    citation: Path | None = None
    sign_with: Path | None = None
    only_passed: bool = False
    pseudonymise: bool = False
    report: Callable[[FileSystemRepository], bytes] | None = None


class CreatedBundle(Struct, frozen=True, kw_only=True):
    """A bundle that was created.

    Attributes:
        path: Path of the archive.
        experiments: Number of experiments.
        files: Number of files of the payload.
        size_bytes: Size of the archive.
        digest: SHA-256 of `tagmanifest-sha256.txt`, in lower-case hexadecimal.
        unclean: Verdict by folder name, for the verdicts that are not `complete`.
        selection: How the experiments were chosen.
    """

    path: Path
    experiments: int
    files: int
    size_bytes: int
    digest: str
    unclean: dict[str, str]
    selection: Selection


def create_bundle(
    repository: FileSystemRepository,
    target: str | Path,
    selection: Selection,
    options: BundleOptions | None = None,
    *,
    with_progress: Callable[[Iterator[str], int], Iterator[str]] = lambda items, _: items,
) -> CreatedBundle:
    """Pack the experiments of a selection into a new archive, and return the facts about the archive.

    Args:
        repository: The results directory. No file in it is changed.
        target: The file to create. It must not exist.
        selection: `found` contains the folder names of the experiments. The function adds to the other fields which
            experiments and files it leaves out.
        options: The options.
        with_progress: Function that gets an iterator over folder names and their number, yields the same names, and
            may show progress.

    Raises:
        ResultExistsError: The target exists.
        ConfigurationError: No experiment is left, no date is known, or the bundle cannot be signed.
        ExportError: The archive cannot be written.
        ResultsError: A file of an experiment cannot be read.
    """
    options = options or BundleOptions()
    target = Path(target)
    if os.path.lexists(target):
        raise ResultExistsError(f"cannot create {target}", "the file exists", "remove it, or use another name")
    if options.sign_with is not None:
        signature.require_key(options.sign_with)
    try:
        with ContainedFolder(target.parent) as folder:
            temp, file = folder.create_temporary(target.name)
            try:
                with file, ExitStack() as stack:
                    packing = _Packing(repository, selection, options, file, stack)
                    packing.pack_experiments(with_progress)
                    packing.pack_rest()
                    file.flush()
                    os.fsync(file.fileno())
                folder.publish(temp, target.name)
            except BaseException:
                folder.remove(temp)
                raise
    except BundleError as error:
        found = f"{error.name}: {error.reason}"
        advice = "copy the experiment under another id with 'llm-energy-measure results merge --prefix'"
        if options.citation is not None and error.name == f"data/{_citation_name(options.citation)}":
            advice = f"rename {options.citation}"
        raise ConfigurationError(f"cannot create {target}", found, advice) from error
    except OSError as error:
        if isinstance(error, ConfigurationError):
            raise
        advice = "choose a folder that exists and has free space"
        raise ExportError(f"cannot create {target}", error.strerror or str(error), advice) from error
    return packing.created(target)


class _Packing:
    """The state of one call of `create_bundle`."""

    def __init__(
        self,
        repository: FileSystemRepository,
        selection: Selection,
        options: BundleOptions,
        file: BinaryIO,
        stack: ExitStack,
    ) -> None:
        self._repository = repository
        self._selection = selection
        self._options = options
        self._zip = stack.enter_context(closing(ZipWriter(file)))
        self._manifest = stack.enter_context(spool())
        self._verdicts = stack.enter_context(spool())
        self._environment = Environment()
        self._folders: list[str] = []
        self._results: Path | None = None
        if options.report is not None:  # the report shows the name of its results directory: in the bundle, `data`
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-energy-measure-"))
            self._results = Path(folder, names.PAYLOAD)
        self._result_folders: set[str] = set()
        self._unclean: dict[str, str] = {}
        self._payload_files = self._payload_bytes = 0
        self._digest = ""

    def pack_experiments(self, with_progress: Callable[[Iterator[str], int], Iterator[str]]) -> None:
        """Write the files of all experiments, in the canonical order."""
        self._zip.add(names.BAGIT, manifests.BAGIT_TEXT)
        folders = self._selection.found = sorted(set(self._selection.found))
        pseudonyms = self._collect_pseudonyms(folders)
        order = {folder: pseudonyms.folder(folder) if pseudonyms else folder for folder in folders}
        if len(set(order.values())) < len(order):
            found = "two experiments would have the same id"
            raise ConfigurationError("cannot replace the names in ids", found, "leave out one of them")

        def packed() -> Iterator[str]:
            for folder in sorted(folders, key=order.__getitem__):
                snapshot = read_snapshot(self._repository, folder)
                self._selection.files_left_out |= snapshot.left_out
                self._pack(snapshot if pseudonyms is None else pseudonyms.apply(snapshot))
                yield folder

        for _ in with_progress(packed(), len(folders)):
            pass
        self._selection.left_out += self._earlier_attempts(set(folders))
        if pseudonyms is not None:
            pseudonyms.apply_to_selection(self._selection)
        if not self._folders:
            advice = "select other experiments, or omit --only-passed" if folders else "select other experiments"
            raise ConfigurationError("cannot create a bundle", "no experiment is selected", advice)

    def _collect_pseudonyms(self, folders: list[str]) -> Pseudonyms | None:
        if not self._options.pseudonymise:
            return None
        pseudonyms = Pseudonyms()
        for folder in folders:
            pseudonyms.collect(read_snapshot(self._repository, folder))
        pseudonyms.freeze()
        return pseudonyms

    def _earlier_attempts(self, folders: set[str]) -> list[LeftOut]:
        attempts = [earlier_attempt_of(entry.name) for entry in self._repository.store.list(RAW_DIR) if entry.is_folder]
        return [
            LeftOut(experiment_id=found[0], reason=_EARLIER_ATTEMPT, attempt=found[1])
            for found in attempts
            if found is not None and found[0] in folders
        ]

    def _pack(self, snapshot: Snapshot) -> None:
        verdict = verdict_on(snapshot)
        if verdict.verdict != CLEAN:
            if self._options.only_passed:
                reason = f"--only-passed: its verdict is {verdict.verdict}"
                self._selection.left_out.append(LeftOut(experiment_id=verdict.experiment_id, reason=reason))
                return
            self._unclean[snapshot.folder] = verdict.verdict
        self._verdicts.write(encode_verdict(verdict))
        self._environment.add(snapshot.files)
        self._folders.append(snapshot.folder)
        in_bag = {f"{names.PAYLOAD}/{key}": data for key, data in snapshot.files.items()}
        for name in sorted(in_bag, key=names.order_key):
            self._add_payload(name, in_bag[name])
            self._result_folders.add(name.split("/")[1])
        if self._results is not None:
            for key, data in snapshot.files.items():
                path = self._results / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def _add_payload(self, name: str, content: bytes | BinaryIO) -> None:
        digest, size = _digest_of(content)
        self._zip.add(name, content)
        self._manifest.write(manifests.line_of(digest, name))
        self._payload_files += 1
        self._payload_bytes += size

    def pack_rest(self) -> None:
        """Write the files about the whole bundle, the manifests and the signature."""
        date = self._options.date or self._environment.newest
        if date is None:
            raise ConfigurationError("cannot create a bundle", "no record has a date", "state it: --date 2026-03-31")
        files = self._other_payload()
        facts = self._facts(date, files)
        self._selection.only_passed = self._options.only_passed
        files[names.SELECTION] = contents.encode_json(self._selection)
        files[names.CRATE] = contents.crate_metadata(facts)
        for name in sorted(files, key=names.order_key):
            self._add_payload(name, files[name])
        tag_files: dict[str, bytes | BinaryIO] = {
            names.README: contents.readme(facts),
            names.BAG_INFO: manifests.bag_info(
                software=f"llm-energy-measure {VERSION}",
                date=date,
                payload_bytes=self._payload_bytes,
                payload_files=self._payload_files,
            ),
            names.MANIFEST: self._manifest,
        }
        for name, content in tag_files.items():
            self._zip.add(name, content)
        tag_manifest = b"".join(
            manifests.line_of(_digest_of(content)[0], name)
            for name, content in {names.BAGIT: manifests.BAGIT_TEXT, **tag_files}.items()
        )
        self._zip.add(names.TAG_MANIFEST, tag_manifest)
        self._digest = hashlib.sha256(tag_manifest).hexdigest()
        if self._options.sign_with is not None:
            self._zip.add(names.SIGNATURE, signature.sign(tag_manifest, self._options.sign_with))
        self._zip.finish()

    def _other_payload(self) -> dict[str, bytes | BinaryIO]:
        files: dict[str, bytes | BinaryIO] = {
            names.ENVIRONMENT: self._environment.encode(),
            names.VERDICTS: self._verdicts,
        }
        if self._options.report is not None and self._results is not None:
            files[names.REPORT] = self._options.report(FileSystemRepository(self._results))
        if self._options.citation is not None:
            files[f"{names.PAYLOAD}/{_citation_name(self._options.citation)}"] = _read_citation(self._options.citation)
        return files

    def _facts(self, date: str, files: Mapping[str, object]) -> CrateFacts:
        citation = self._options.citation
        listed = sorted(name.removeprefix(f"{names.PAYLOAD}/") for name in (*files, names.SELECTION))
        return CrateFacts(
            date=date,
            licence=self._options.licence,
            experiments=len(self._folders),
            result_folders=[f"{name}/" for name in (RAW_DIR, AGGREGATED_DIR, TAGS_DIR) if name in self._result_folders],
            files=listed,
            citation=None if citation is None else _citation_name(citation),
            unclean=dict(Counter(self._unclean.values())),
            left_out=len(self._selection.left_out),
            is_signed=self._options.sign_with is not None,
            has_pseudonyms=any((self._selection.pseudonyms or {}).values()),
        )

    def created(self, target: Path) -> CreatedBundle:
        """Return the facts about the created bundle."""
        return CreatedBundle(
            path=target,
            experiments=len(self._folders),
            files=self._payload_files,
            size_bytes=target.stat().st_size,
            digest=self._digest,
            unclean=self._unclean,
            selection=self._selection,
        )


def _digest_of(content: bytes | BinaryIO) -> tuple[str, int]:
    """Return the SHA-256 of the content in lower-case hexadecimal, and the size in bytes."""
    digest = hashlib.sha256()
    size = 0
    for part in (content,) if isinstance(content, bytes) else chunks_of(content):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def _citation_name(path: Path) -> str:
    """Return the name of the citation file in the bundle: `CITATION` and the suffix of the file."""
    return f"CITATION{path.suffix}"


def _read_citation(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        doing = f"cannot read the citation file {path}"
        raise ConfigurationError(doing, error.strerror or str(error), "pass another file to --citation") from error

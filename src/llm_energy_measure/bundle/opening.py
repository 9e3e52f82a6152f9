"""Open a bundle: extract it into a new folder, whose `data` is a results directory."""

from __future__ import annotations

import hashlib
import os
from itertools import chain
from pathlib import Path

from msgspec import Struct

from llm_energy_measure.bundle import manifests, names
from llm_energy_measure.bundle.checking import Member, check_whole, payload_of
from llm_energy_measure.bundle.outcomes import Problem, refuse
from llm_energy_measure.bundle.sources import Source, StoredFile
from llm_energy_measure.exceptions import BundleError, ExportError, ResultExistsError
from llm_energy_measure.storage.atomic import publish_folder
from llm_energy_measure.storage.contained import remove_tree
from llm_energy_measure.storage.temporary import temporary_path


class OpenedBundle(Struct, frozen=True, kw_only=True):
    """A bundle that was extracted.

    Attributes:
        folder: The folder with all files; `bundle verify` accepts it.
        results_dir: The results directory in this folder.
        files: Number of files.
        digest: Digest of the bundle, in lower-case hexadecimal.
    """

    folder: Path
    results_dir: Path
    files: int
    digest: str


def open_bundle(source: Source, target: str | Path) -> OpenedBundle:
    """Extract a bundle into a new folder. The folder appears only after all its files are checked and synced to disk.

    Args:
        source: The files of the bundle.
        target: The folder to create. It must not exist.

    Raises:
        ResultExistsError: The target exists.
        BundleError: A file is changed, missing or not listed. Nothing is extracted.
        ExportError: The folder cannot be written.
    """
    target = Path(target)
    if os.path.lexists(target):
        advice = "remove it, or use another name"
        raise ResultExistsError(f"cannot open the bundle in {target}", "the path exists", advice)
    whole = check_whole(source)
    if whole.problems:
        raise _refused(whole.problems)
    temp = temporary_path(os.fspath(target))
    try:
        try:
            files = _extract_all(source, Path(temp))
            publish_folder(temp, os.fspath(target))
        except BaseException:
            if Path(temp).is_dir():
                remove_tree(temp)
            raise
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        advice = "choose a folder that exists and has free space"
        raise ExportError(f"cannot open the bundle in {target}", error.strerror or str(error), advice) from error
    return OpenedBundle(folder=target, results_dir=target / names.PAYLOAD, files=files, digest=whole.digest)


def _refused(problems: list[Problem]) -> BundleError:
    first = problems[0]
    more = f"; number of other problems: {len(problems) - 1}" if len(problems) > 1 else ""
    return refuse(first.code, first.name, first.message + more, "'llm-energy-measure bundle verify' lists all reasons")


def _extract_all(source: Source, folder: Path) -> int:
    """Write all files, and return their number.

    The digests are checked again, because a file can change after `check_whole`.
    """
    tag_files = dict(manifests.read_manifest(source.others[names.TAG_MANIFEST]))
    bag = (
        Member(name, source.others.get(name), tag_files.get(name))
        for name in (*names.TAG_FILES, names.TAG_MANIFEST, names.SIGNATURE)
    )
    number = 0
    for name, file, listed in chain(payload_of(source), bag):
        if file is None and name == names.SIGNATURE:
            continue
        digest = None if file is None else _extract(file, folder / name)
        if digest is None or (listed is not None and digest != listed):
            raise refuse("file.changed", name, "it changed while it was read")
        number += 1
    return number


def _extract(file: StoredFile, path: Path) -> bytes:
    """Write one file, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as target:
        for part in file.chunks():
            digest.update(part)
            target.write(part)
    return digest.digest()

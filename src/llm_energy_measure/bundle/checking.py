"""Verify a bundle: is each file whole, who signed the bundle, and does each verdict follow from the raw files?

No file is extracted. The verdicts are computed again from one experiment's files at a time, in memory.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from llm_energy_measure.bundle import contents, manifests, names, signature, sources, table, verdicts
from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.outcomes import MISSING_BAG_FILE, Outcome, Problem, outcome_of, problem_of, refuse
from llm_energy_measure.bundle.signature import SignatureCheck
from llm_energy_measure.bundle.snapshot import Snapshot
from llm_energy_measure.bundle.sources import Source, StoredFile
from llm_energy_measure.bundle.table import PublishedTable
from llm_energy_measure.exceptions import BundleError, LLMEnergyMeasureError

_SMALL_BYTES = 1 << 16
# The result has one problem for each file that differs. Without this limit, the problems of a manifest of many
# gigabytes would fill the memory.
_MAX_PROBLEMS = 100_000


class BundleCheck(Struct, kw_only=True):
    """The result of the verification of a bundle.

    Attributes:
        outcome: One of the words in `OUTCOMES`.
        digest: SHA-256 of `tagmanifest-sha256.txt`, in lower-case hexadecimal. None if the bundle is refused.
        problems: The reasons for the outcome.
        experiments: Number of experiments.
        files: Number of files of the payload that the manifest lists.
        signature: Result of the check of the signature. None if the bundle has no signature.
        unclean: Verdict by folder name, for the verdicts that are not `complete`.
        selection: How the experiments were chosen. None if it was not read.
        compared_numbers: Number of cells of the table that were compared.
        notes: Sentences about the table that do not change the outcome.
    """

    outcome: Outcome
    digest: str | None = None
    problems: list[Problem] = field(default_factory=list)
    experiments: int = 0
    files: int = 0
    signature: SignatureCheck | None = None
    unclean: dict[str, str] = field(default_factory=dict)
    selection: Selection | None = None
    compared_numbers: int = 0
    notes: list[str] = field(default_factory=list)


class Wholeness(Struct, kw_only=True):
    """The files of a bundle compared with its manifests.

    Attributes:
        digest: SHA-256 of `tagmanifest-sha256.txt`, in lower-case hexadecimal.
        files: Number of files of the payload that the manifest lists.
        experiments: Number of experiments.
        problems: The files that are changed, missing or not listed.
    """

    digest: str
    files: int = 0
    experiments: int = 0
    problems: list[Problem] = field(default_factory=list)


class Member(NamedTuple):
    """A file that a bundle has, or that one of its manifests lists.

    Attributes:
        name: Name of the file in the bundle.
        file: The file. None if it is missing.
        digest: SHA-256 that the manifest states for the file. None if no manifest lists the file.
    """

    name: str
    file: StoredFile | None
    digest: bytes | None


def verify_bundle(
    source: Source,
    *,
    expect: str | None = None,
    allowed_signers: str | Path | None = None,
    published: PublishedTable | None = None,
    with_progress: Callable[[Iterator[str], int], Iterator[str]] = lambda items, _: items,
) -> BundleCheck:
    """Return the result of the verification of a bundle.

    Args:
        source: The files of the bundle.
        expect: The digest in the paper, in hexadecimal, with or without `sha256:`.
        allowed_signers: File of the known keys, in the format ALLOWED SIGNERS of ssh-keygen(1).
        published: A published table whose numbers are compared with the bundle.
        with_progress: Function that gets an iterator over folder names and their number, yields the same names, and
            may show progress.

    Raises:
        ConfigurationError: ssh-keygen is missing, or a file of the caller cannot be read.
    """
    signature.require_signers(allowed_signers)  # an unreadable file is an error even if the bundle has no signature
    found = BundleCheck(outcome="unsigned")
    try:
        whole = check_whole(source)
        found.digest, found.problems, found.files = whole.digest, whole.problems, whole.files
        if expect is not None and whole.digest != (wanted := expect.removeprefix(manifests.DIGEST_PREFIX).lower()):
            found.problems.append(Problem("digest.differs", None, f"the digest is {whole.digest}, not {wanted}"))
        found.signature = _check_signature(source, allowed_signers)
        if found.signature is not None and not found.signature.is_valid:
            message = f"it is not a valid signature of {names.TAG_MANIFEST}"
            found.problems.append(Problem("signature.invalid", names.SIGNATURE, message))
        if not whole.problems:
            found.experiments = whole.experiments
            _check_experiments(source, found, published, with_progress)
    except BundleError as error:
        found.problems.append(problem_of(error))
    found.outcome = outcome_of(found.problems) or _outcome_of_whole(found.signature, expect, allowed_signers)
    return found


def _outcome_of_whole(signed: SignatureCheck | None, expect: str | None, allowed_signers: str | Path | None) -> Outcome:
    """Return the outcome of a bundle without problems."""
    if signed is not None and signed.signer is not None:
        return "signed"
    if expect is not None and allowed_signers is None:
        return "expected"
    return "unsigned" if signed is None else "signer-unknown"


def check_whole(source: Source) -> Wholeness:
    """Compare all files with the manifests.

    Raises:
        BundleError: A file that each bundle must have is missing, or does not have its defined form.
    """
    others = source.others
    _require_bag(others)
    listed = dict(manifests.read_manifest(others[names.TAG_MANIFEST]))
    if set(listed) != set(names.TAG_FILES):
        expected = ", ".join(names.TAG_FILES)
        raise refuse("bag.form", names.TAG_MANIFEST, f"it has to list exactly these files: {expected}")
    whole = Wholeness(digest=hashlib.sha256(sources.read(others[names.TAG_MANIFEST])).hexdigest())
    whole.problems += _problems_of(Member(name, others.get(name), digest) for name, digest in listed.items())
    if not whole.problems:
        payload_bytes = 0
        folder = None
        for member in payload_of(source):
            if member.digest is not None:
                whole.files += 1
                payload_bytes += 0 if member.file is None else member.file.size
            if (found := names.folder_of(member.name)) not in (None, folder):
                folder = found
                whole.experiments += 1
            whole.problems += _problems_of([member])
            if len(whole.problems) > _MAX_PROBLEMS:
                raise refuse("bag.form", names.MANIFEST, f"more than {_MAX_PROBLEMS:,} files differ from it")
        if not whole.problems:
            _check_statements(source, payload_bytes, whole.files)
    if names.SIGNATURE in others:
        sources.read(others[names.SIGNATURE], _SMALL_BYTES)  # this checks the CRC in an archive
    return whole


def payload_of(source: Source) -> Iterator[Member]:
    """Yield the members of a bundle in the canonical order, without the tag files, the tag manifest and its signature.

    The files and the lines of the manifest are merged while they are read, because both are in this order.

    Raises:
        BundleError: The manifest does not have its defined form.
    """
    bag = {*names.TAG_FILES, names.TAG_MANIFEST, names.SIGNATURE}
    present = ((names.order_key(file.name), file) for file in source.files() if file.name not in bag)
    listed = ((names.order_key(name), digest) for name, digest in _listed(source))
    merged: Iterator[tuple[tuple[int, str, str], StoredFile | bytes]]
    merged = heapq.merge(present, listed, key=itemgetter(0))
    for (_, _, name), pair in groupby(merged, key=itemgetter(0)):
        file = digest = None
        for _, one in pair:
            if isinstance(one, bytes):
                digest = one
            else:
                file = one
        yield Member(name, file, digest)


def _listed(source: Source) -> Iterator[tuple[str, bytes]]:
    for name, digest in manifests.read_manifest(source.others[names.MANIFEST]):
        if not name.startswith(f"{names.PAYLOAD}/"):
            raise refuse("bag.form", names.MANIFEST, f"it lists {name}, which is not in {names.PAYLOAD}/")
        yield name, digest


def _require_bag(others: Mapping[str, StoredFile]) -> None:
    for name in others:
        if (
            "/" not in name
            and "manifest-" in name
            and name not in (names.MANIFEST, names.TAG_MANIFEST, names.SIGNATURE)
        ):
            reason = f"a bundle has no other manifests than {names.MANIFEST} and {names.TAG_MANIFEST}"
            raise refuse("manifest.algorithm", name, reason)
    for name in (names.BAGIT, names.TAG_MANIFEST):
        if name not in others:
            raise refuse("bag.missing", name, MISSING_BAG_FILE)


def _problems_of(members: Iterable[Member]) -> Iterator[Problem]:
    """Yield a problem for each file that is missing, not listed or changed."""
    for name, file, digest in members:
        if file is None:
            yield Problem("file.missing", name, "the file is missing")
        elif digest is None:
            yield Problem("file.unlisted", name, "no manifest lists this file")
        else:
            try:
                if manifests.digest_of(file) != digest:
                    yield Problem("file.changed", name, "its content differs from its digest in the manifest")
            except BundleError as error:
                if error.code != "file.changed":
                    raise
                yield problem_of(error)


def _check_statements(source: Source, payload_bytes: int, payload_files: int) -> None:
    """Check `bagit.txt`, the Payload-Oxum of `bag-info.txt`, and that selection, verdicts and RO-Crate metadata exist.

    The digests of all files are already checked.
    """
    others = source.others
    if sources.read(others[names.BAGIT], _SMALL_BYTES) != manifests.BAGIT_TEXT:
        raise refuse("bag.form", names.BAGIT, "it does not declare BagIt 1.0 in UTF-8")
    stated = manifests.stated_payload(sources.read(others[names.BAG_INFO], _SMALL_BYTES))
    if stated != (payload_bytes, payload_files):
        raise refuse("bag.form", names.BAG_INFO, f"Payload-Oxum has to be {payload_bytes}.{payload_files}")
    for name in (names.SELECTION, names.VERDICTS, names.CRATE):
        if name not in others:
            raise refuse("bag.missing", name, MISSING_BAG_FILE)


def _check_signature(source: Source, allowed_signers: str | Path | None) -> SignatureCheck | None:
    if names.SIGNATURE not in source.others:
        return None
    signed = sources.read(source.others[names.TAG_MANIFEST])
    stored = sources.read(source.others[names.SIGNATURE], _SMALL_BYTES)
    return signature.check(signed, stored, allowed_signers)


def snapshots(source: Source) -> Iterator[Snapshot]:
    """Yield the files of each experiment of a bundle, in the canonical order."""
    for folder, files in groupby(source.files(), lambda file: names.folder_of(file.name)):
        if folder is not None:
            prefix = f"{names.PAYLOAD}/"
            yield Snapshot(folder=folder, files={file.name.removeprefix(prefix): sources.read(file) for file in files})


def _check_experiments(
    source: Source,
    found: BundleCheck,
    published: PublishedTable | None,
    with_progress: Callable[[Iterator[str], int], Iterator[str]],
) -> None:
    """Compute the verdict on each experiment again, and compare verdicts and published numbers."""
    found.selection = contents.decode_selection(sources.read(source.others[names.SELECTION]))
    lines = sources.lines(source.others[names.VERDICTS])
    comparison = None if published is None else table.Comparison(published)

    def compared() -> Iterator[str]:
        for snapshot in snapshots(source):
            line = next(lines, None)
            stored = None if line is None else verdicts.decode_verdict(line, names.VERDICTS)
            if stored is None or stored.folder != snapshot.folder:
                message = "verdicts.jsonl has no line for this experiment, or its line is too late in the file"
                found.problems.append(Problem("verdict.missing", snapshot.folder, message))
                return
            found.problems += _compare_verdict(snapshot, stored, found)
            if comparison is not None:
                comparison.compare(snapshot)
            yield snapshot.folder

    for _ in with_progress(compared(), found.experiments):
        pass
    if outcome_of(found.problems) is None and next(lines, None) is not None:
        found.problems.append(Problem("verdict.missing", None, "a stored verdict belongs to no experiment"))
    if comparison is not None:
        found.problems += comparison.finish()
        found.compared_numbers, found.notes = comparison.compared, comparison.notes


def _compare_verdict(snapshot: Snapshot, stored: verdicts.StoredVerdict, found: BundleCheck) -> Iterator[Problem]:
    """Yield a problem if the recomputed verdict differs from the stored verdict."""
    try:
        recomputed = verdicts.verdict_on(snapshot)
    except LLMEnergyMeasureError as error:
        yield Problem("verdict.differs", snapshot.folder, f"it cannot be verified: {error.found}")
        return
    if recomputed.verdict != verdicts.CLEAN:
        found.unclean[snapshot.folder] = recomputed.verdict
    clauses = verdicts.differences(stored, recomputed)
    if clauses:
        yield Problem("verdict.differs", snapshot.folder, "; ".join(clauses))

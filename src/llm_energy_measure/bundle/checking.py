"""Verify a bundle: is each file whole, who signed, and does each verdict follow from the raw files?

Nothing is extracted. The verdicts are computed again from one experiment's files at a time, in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from msgspec import Struct, field

from llm_energy_measure.bundle import contents, manifests, names, signature, sources, table, verdicts
from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.outcomes import Outcome, Problem, outcome_of, problem_of, refuse
from llm_energy_measure.bundle.signature import SignatureCheck
from llm_energy_measure.bundle.snapshot import Snapshot
from llm_energy_measure.bundle.sources import Source
from llm_energy_measure.bundle.table import PublishedTable
from llm_energy_measure.exceptions import BundleError, LLMEnergyMeasureError

_SMALL_BYTES = 1 << 16


class BundleCheck(Struct, kw_only=True):
    """The result of the verification of a bundle.

    Attributes:
        outcome: One word of `OUTCOMES`.
        digest: SHA-256 of `tagmanifest-sha256.txt`, in lower-case hexadecimal. None if the bundle is refused.
        problems: The reasons for the outcome.
        experiments: Number of experiments.
        files: Number of files of the payload, as the paper states it.
        signature: What the signature shows. None if there is none.
        unclean: Verdict by folder name, for the verdicts that are not `complete`.
        selection: How the experiments were chosen. None if it was not read.
        compared_numbers: Number of cells of the table that were compared.
        notes: Sentences about the table that are no problems.
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
        listed: SHA-256 of each listed file, as 32 bytes, by name.
        problems: The files that are changed, missing or not listed.
    """

    digest: str
    listed: dict[str, bytes]
    problems: list[Problem]


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
        allowed_signers: File of the known keys, as ssh-keygen reads it.
        published: A published table whose numbers are compared with the bundle.
        with_progress: Function that shows the progress over the items that it returns.

    Raises:
        ConfigurationError: ssh-keygen is missing, or a file of the caller cannot be read.
    """
    found = BundleCheck(outcome="unsigned")
    try:
        whole = check_whole(source)
        found.digest, found.problems = whole.digest, whole.problems
        found.files = sum(name.startswith(f"{names.PAYLOAD}/") for name in whole.listed)
        if expect is not None and whole.digest != expect.removeprefix(manifests.DIGEST_PREFIX).lower():
            found.problems.append(Problem("digest.differs", None, f"the digest is {whole.digest}, not {expect}"))
        found.signature = _check_signature(source, allowed_signers)
        if found.signature is not None and not found.signature.is_valid:
            found.problems.append(Problem("signature.invalid", names.SIGNATURE, "no key signed these bytes"))
        if not whole.problems:
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
        BundleError: A file that makes a folder a bundle is missing or has another form.
    """
    present = set(source.names)
    _require_bag(present)
    listed = manifests.read_manifest(source, names.TAG_MANIFEST)
    if set(listed) != set(names.TAG_FILES):
        expected = ", ".join(names.TAG_FILES)
        raise refuse("bag.form", names.TAG_MANIFEST, f"it has to list exactly these files: {expected}")
    digest = hashlib.sha256(sources.read(source, names.TAG_MANIFEST)).hexdigest()
    problems = list(_compare(source, present, listed))
    if not problems:
        payload = manifests.read_manifest(source, names.MANIFEST)
        outside = next((name for name in payload if not name.startswith(f"{names.PAYLOAD}/")), None)
        if outside is not None:
            raise refuse("bag.form", names.MANIFEST, f"it lists {outside}, which is not in {names.PAYLOAD}/")
        problems += _compare(source, present, payload)
        listed |= payload
        unlisted = present - listed.keys() - {names.TAG_MANIFEST, names.SIGNATURE}
        problems += [
            Problem("file.unlisted", name, "no manifest lists this file")
            for name in sorted(unlisted, key=names.order_key)
        ]
        if not problems:
            problems += _check_payload(source, payload)
    if names.SIGNATURE in present:
        sources.read(source, names.SIGNATURE, _SMALL_BYTES)  # an archive has its CRC
    return Wholeness(digest=digest, listed=listed, problems=problems)


def _require_bag(present: set[str]) -> None:
    for name in present:
        if (
            "/" not in name
            and "manifest-" in name
            and name not in (names.MANIFEST, names.TAG_MANIFEST, names.SIGNATURE)
        ):
            raise refuse("manifest.algorithm", name, "the manifests of a bundle use SHA-256")
    for name in (names.BAGIT, names.TAG_MANIFEST):
        if name not in present:
            raise refuse("bag.missing", name, "every bundle has this file, and it is missing")


def _compare(source: Source, present: set[str], listed: dict[str, bytes]) -> Iterator[Problem]:
    """Yield a problem for each listed file that is missing or changed."""
    for name, digest in listed.items():
        if name not in present:
            yield Problem("file.missing", name, "the file is missing")
            continue
        try:
            if manifests.digest_of(source, name) != digest:
                yield Problem("file.changed", name, "its content differs from its digest in the manifest")
        except BundleError as error:
            if error.code != "file.changed":
                raise
            yield problem_of(error)


def _check_payload(source: Source, payload: dict[str, bytes]) -> Iterator[Problem]:
    """Check what the files of the bag state. The digests of these files are right."""
    if sources.read(source, names.BAGIT, _SMALL_BYTES) != manifests.BAGIT_TEXT:
        raise refuse("bag.form", names.BAGIT, "it does not declare BagIt 1.0 in UTF-8")
    stated = manifests.payload_of(sources.read(source, names.BAG_INFO, _SMALL_BYTES))
    found = (sum(source.size(name) for name in payload), len(payload))
    if stated != found:
        raise refuse("bag.form", names.BAG_INFO, f"Payload-Oxum has to be {found[0]}.{found[1]}")
    for name in (names.SELECTION, names.VERDICTS, names.CRATE):
        if name not in payload:
            raise refuse("bag.missing", name, "every bundle has this file, and it is missing")
    return iter(())


def _check_signature(source: Source, allowed_signers: str | Path | None) -> SignatureCheck | None:
    if names.SIGNATURE not in source.names:
        return None
    signed = sources.read(source, names.TAG_MANIFEST)
    return signature.check(signed, sources.read(source, names.SIGNATURE, _SMALL_BYTES), allowed_signers)


def snapshots(source: Source) -> Iterator[Snapshot]:
    """Yield the files of each experiment of a bundle, in the canonical order."""
    for folder, files in groupby(source.names, names.folder_of):
        if folder is not None:
            prefix = f"{names.PAYLOAD}/"
            yield Snapshot(
                folder=folder, files={name.removeprefix(prefix): sources.read(source, name) for name in files}
            )


def _check_experiments(
    source: Source,
    found: BundleCheck,
    published: PublishedTable | None,
    with_progress: Callable[[Iterator[str], int], Iterator[str]],
) -> None:
    """Compute the verdict on each experiment again, and compare verdicts and published numbers."""
    found.selection = contents.decode_selection(sources.read(source, names.SELECTION))
    folders = {folder for name in source.names if (folder := names.folder_of(name)) is not None}
    found.experiments = len(folders)
    lines = sources.lines(source, names.VERDICTS)
    comparison = None if published is None else table.Comparison(published)

    def compared() -> Iterator[str]:
        for snapshot in snapshots(source):
            line = next(lines, None)
            stored = None if line is None else verdicts.decode_verdict(line, names.VERDICTS)
            if stored is None or stored.folder != snapshot.folder:
                message = "verdicts.jsonl has no line for this experiment, or its line is at another place"
                found.problems.append(Problem("verdict.missing", snapshot.folder, message))
                return
            found.problems += _compare_verdict(snapshot, stored, found)
            if comparison is not None:
                comparison.compare(snapshot)
            yield snapshot.folder

    for _ in with_progress(compared(), len(folders)):
        pass
    if outcome_of(found.problems) is None and next(lines, None) is not None:
        found.problems.append(Problem("verdict.missing", None, "a stored verdict belongs to no experiment"))
    if comparison is not None:
        found.problems += comparison.finish()
        found.compared_numbers, found.notes = comparison.compared, comparison.notes


def _compare_verdict(snapshot: Snapshot, stored: verdicts.StoredVerdict, found: BundleCheck) -> Iterator[Problem]:
    """Yield a problem if the recomputed verdict differs from the stored one."""
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

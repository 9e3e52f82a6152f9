"""The outcomes of the verification of a bundle, their exit statuses, and the codes of the reasons."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llm_energy_measure.exceptions import BundleError

Outcome = Literal[
    "signed",
    "expected",
    "signer-unknown",
    "unsigned",
    "changed",
    "incomplete",
    "verdict-differs",
    "table-differs",
    "signature-invalid",
    "refused",
]
"""Result of a verification in one word. `OUTCOMES` has the exit statuses and the meanings."""

OUTCOMES: dict[Outcome, tuple[int, str]] = {
    "signed": (0, "whole, and signed by a known key"),
    "expected": (0, "whole, and the digest is that of --expect"),
    "signer-unknown": (10, "whole; the signature is valid, but the signing key is unknown"),
    "unsigned": (11, "whole; no key has signed the bundle"),
    "changed": (
        12,
        "a file differs from its digest, the bundle's digest differs from --expect, or a file is not in any manifest",
    ),
    "incomplete": (13, "a file is missing"),
    "verdict-differs": (14, "whole, but a recomputed verdict or figure differs"),
    "table-differs": (15, "whole, but a number of --table differs"),
    "signature-invalid": (16, "the signature does not belong to these files"),
    "refused": (17, "not a bundle, or unsafe to read; no file is extracted"),
}
"""Exit status and meaning of each outcome. 1 and 2 are reserved for errors of the command and for wrong usage."""

_PRECEDENCE: tuple[Outcome, ...] = (
    "refused",
    "changed",
    "incomplete",
    "signature-invalid",
    "verdict-differs",
    "table-differs",
)

CODES: dict[str, tuple[Outcome, str]] = {
    "zip.damaged": ("refused", "the file is not a ZIP archive, or a part of it is missing"),
    "zip.size": ("refused", "the archive has more entries than the reader accepts"),
    "zip.compressed": ("refused", "an entry is compressed or encrypted; entries of a bundle are neither"),
    "zip.overlap": ("refused", "two entries use the same bytes"),
    "zip.gap": ("refused", "an entry does not start where the one before it ends, or bytes belong to no entry"),
    "zip.form": ("refused", "a field of the archive differs from its canonical value"),
    "zip.order": ("refused", "the entries are not in the canonical order"),
    "zip.link": ("refused", "an entry is a link or another special file"),
    "name.parent": ("refused", "a name has a part '..' or '.', or an empty part"),
    "name.absolute": ("refused", "a name is absolute"),
    "name.windows": ("refused", "Windows cannot open a name"),
    "name.character": ("refused", "a name has a character outside A-Za-z0-9._~-"),
    "name.duplicate": ("refused", "two entries have the same name"),
    "name.case": ("refused", "two names differ only in upper and lower case"),
    "name.folder": ("refused", "one name belongs to a file and to a folder"),
    "folder.link": ("refused", "the folder has a link, a pipe or a device"),
    "bag.missing": ("refused", "a file that every bundle has is missing"),
    "bag.form": ("refused", "a file of the bag does not have its defined form"),
    "manifest.algorithm": ("refused", "a manifest has another algorithm than SHA-256"),
    "file.changed": ("changed", "the content of a file differs from its digest"),
    "file.unlisted": ("changed", "a file is not in any manifest"),
    "digest.differs": ("changed", "the digest of the bundle is not that of --expect"),
    "file.missing": ("incomplete", "a listed file is missing"),
    "signature.invalid": ("signature-invalid", "the signature is not valid for tagmanifest-sha256.txt"),
    "verdict.differs": ("verdict-differs", "a recomputed verdict or figure differs from the stored one"),
    "verdict.missing": ("verdict-differs", "an experiment has no stored verdict, or a verdict has no experiment"),
    "table.differs": ("table-differs", "a number of the table differs from the bundle"),
    "table.unknown": ("table-differs", "the table has an experiment that the bundle does not have"),
}
"""Outcome and meaning of each reason code."""


MISSING_BAG_FILE = "every bundle has this file, and it is missing"
"""Reason of `bag.missing`."""


class Problem(Struct, frozen=True):
    """A reason for an outcome.

    Attributes:
        code: One of `CODES`.
        name: The file or the experiment. None if the reason is about the whole bundle.
        message: One clause with the values.
    """

    code: str
    name: str | None
    message: str

    def __str__(self) -> str:
        """Return the reason as one line."""
        return (
            f"{self.name}: {self.message} ({self.code})" if self.name is not None else f"{self.message} ({self.code})"
        )


def refuse(
    code: str, name: str | None, reason: str, advice: str = "get the bundle again from its source"
) -> BundleError:
    """Return the error for an unsafe or damaged bundle."""
    error = BundleError("cannot read the bundle", str(Problem(code, name, reason)), advice)
    error.code, error.name, error.reason = code, name, reason
    return error


def problem_of(error: BundleError) -> Problem:
    """Return the problem that an error describes."""
    return Problem(error.code, error.name, error.reason)


def outcome_of(problems: list[Problem]) -> Outcome | None:
    """Return the worst outcome that the problems give, by `_PRECEDENCE`. None without problems."""
    found = {CODES[problem.code][0] for problem in problems}
    return next((outcome for outcome in _PRECEDENCE if outcome in found), None)

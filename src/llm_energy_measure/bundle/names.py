"""Names in a bundle: the files of the bag, the safe names, and the canonical order of entries."""

from __future__ import annotations

import re

from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.constants import AGGREGATED_DIR, RAW_DIR, TAGS_DIR
from llm_energy_measure.security import windows_name

PAYLOAD = "data"
"""Folder of the payload. It is a results directory and the root of the RO-Crate."""

BAGIT = "bagit.txt"
README = "README.txt"
BAG_INFO = "bag-info.txt"
MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
SIGNATURE = f"{TAG_MANIFEST}.sig"

TAG_FILES = (BAGIT, README, BAG_INFO, MANIFEST)
"""The files that the tag manifest lists."""

CRATE = f"{PAYLOAD}/ro-crate-metadata.json"
SELECTION = f"{PAYLOAD}/selection.json"
VERDICTS = f"{PAYLOAD}/verdicts.jsonl"
ENVIRONMENT = f"{PAYLOAD}/environment.json"
REPORT = f"{PAYLOAD}/report.html"

_ORDER = {BAGIT: 0, README: 3, BAG_INFO: 4, MANIFEST: 5, TAG_MANIFEST: 6, SIGNATURE: 7}
_RESULT_FOLDERS = (RAW_DIR, AGGREGATED_DIR, TAGS_DIR)
_SAFE = re.compile(r"[A-Za-z0-9._~-]+")
_DRIVE = re.compile(r"[A-Za-z]:")


def folder_of(name: str) -> str | None:
    """Return the folder name of the experiment that a file belongs to. None for a file about the whole bundle.

    Example:
        >>> folder_of("data/raw/exp_7/process_0.json"), folder_of("data/tags/exp_7.json"), folder_of("bagit.txt")
        ('exp_7', 'exp_7', None)
    """
    parts = name.split("/")
    if len(parts) < 3 or parts[0] != PAYLOAD or parts[1] not in _RESULT_FOLDERS:
        return None
    return parts[2] if parts[1] == RAW_DIR else parts[2].removesuffix(".json")


def order_key(name: str) -> tuple[int, str, str]:
    """Return the sort key of the canonical order: `bagit.txt`, experiments, other payload, other files of the bag.

    All files of an experiment are adjacent, so that a reader and a writer need only the files of one experiment in
    memory.
    """
    folder = folder_of(name)
    if folder is not None:
        return 1, folder, name
    return _ORDER.get(name, 2), "", name


def check_name(name: str) -> None:
    """Refuse a name that could point outside the target folder, or that an operating system cannot create.

    Raises:
        BundleError: The name is unsafe.
    """
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise refuse("name.absolute", name, "the name is absolute")
    if name.endswith("/"):
        raise refuse("name.parent", name, "it is an entry of a folder; a bundle has only entries of files")
    parts = re.split(r"[/\\]", name)
    if any(part in ("", ".", "..") for part in parts):
        raise refuse("name.parent", name, "the name has an empty part, '.' or '..'")
    for part in parts:
        if windows_name(part) != part or part.endswith((".", " ")):
            raise refuse("name.windows", name, f"Windows cannot open {part!r}")
    if "\\" in name or not all(_SAFE.fullmatch(part) for part in parts):
        raise refuse("name.character", name, "the name has a character outside A-Za-z0-9._~-")

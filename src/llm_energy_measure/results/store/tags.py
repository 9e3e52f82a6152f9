"""Tags and notes: what people say about an experiment, in a plain file `tags/<id>.json` beside the results."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.exceptions import ConfigurationError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.results.store import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_energy_measure.storage.base import Store

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MAX_TEXT = 10_000

# How often a change is made anew because somebody else changed the same file meanwhile.
_TRIES = 100


class Tags(Struct, frozen=True, kw_only=True):
    """What people say about an experiment. Nothing of it is measured, and no figure depends on it.

    Attributes:
        experiment_id: The experiment, or its folder's name.
        tags: Values by key.
        note: Free text; None if there is none.
        schema_version: Version of the format.
    """

    experiment_id: str
    tags: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    schema_version: str = SCHEMA_VERSION


def load_tags(store: Store, experiment_id: str) -> Tags:
    """What was said about an experiment; without tags if nothing was.

    Args:
        store: The store of the results directory.
        experiment_id: Its id or folder name.

    Raises:
        ResultCorruptError: The file is none of ours.
    """
    key = layout.tags_key(layout.folder_name(experiment_id))
    try:
        return decode_tags(store.get(key), key)
    except ResultNotFoundError:
        return Tags(experiment_id=experiment_id)


def change_tags(
    store: Store,
    experiment_id: str,
    tags: Mapping[str, str | None] | None = None,
    *,
    note: str | None = None,
) -> Tags:
    """Set and remove tags of an experiment, and return all that it has now.

    Several people may do so at once: what one sets and another does not touch stays. A removal may be lost to a
    change at the same instant.

    Args:
        store: The store of the results directory.
        experiment_id: Its id or folder name.
        tags: Values by key; None removes one. A key is up to 64 letters, digits, `_`, `.` and `-`.
        note: Free text in place of what was there; the empty text removes it.

    Raises:
        ConfigurationError: A key or a text can't be stored.
        ResultCorruptError: The file that is there is none of ours; it stays as it is.
    """
    changes = {f"tags/{name}": value for name, value in (tags or {}).items()}
    if note is not None:
        changes["note"] = note or None
    _require_storable(experiment_id, tags or {}, note)
    key = layout.tags_key(layout.folder_name(experiment_id))
    before: bytes | None = None
    with contextlib.suppress(ResultNotFoundError):
        before = store.get(key)
    for _ in range(_TRIES):
        older = Tags(experiment_id=experiment_id) if before is None else decode_tags(before, key)
        newer = _changed(older, changes)
        data = encode_tags(newer)
        if data == before or (before is None and not newer.tags and newer.note is None):
            return newer
        if before is None:
            if store.create(key, data):
                return newer
            before = store.get(key)
            continue
        kept = store.exchange(key, data)
        replaced = store.get(kept)
        store.delete(kept)
        if replaced == before:
            return newer
        # Somebody wrote between the look and the exchange: what they changed is done again on top of ours.
        changes = _added(older, decode_tags(replaced, key)) | changes
        before = data
    doing, found = f"cannot tag {experiment_id!r}", "other processes keep changing its tags"
    raise ConfigurationError(doing, found, "try again")


def encode_tags(tags: Tags) -> bytes:
    """The bytes of a file of tags; the same tags always have the same."""
    return msgspec.json.format(msgspec.json.encode(tags, order="sorted"), indent=2) + b"\n"


def decode_tags(data: bytes, name: str) -> Tags:
    """The tags in the bytes of a file. Raises `ResultCorruptError`."""
    try:
        return msgspec.json.decode(data, type=Tags)
    except (msgspec.DecodeError, RecursionError) as error:
        found = str(error).replace("`", "")
        raise ResultCorruptError(f"Failed to load tags {name}", found, "repair or remove the file") from error


def parse_assignments(words: Sequence[str]) -> dict[str, str | None]:
    """Tags from `key=value`; an empty value removes the key.

    Raises:
        ConfigurationError: A word has no `=`.

    Example:
        >>> parse_assignments(["paper=fig 3", "draft="])
        {'paper': 'fig 3', 'draft': None}
    """
    tags: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigurationError(f"cannot set the tag {word!r}", "it has no '='", "write key=value")
        tags[name] = value or None
    return tags


def _require_storable(experiment_id: str, tags: Mapping[str, str | None], note: str | None) -> None:
    doing = f"cannot tag {experiment_id!r}"
    for name in tags:
        if not _KEY.fullmatch(name):
            advice = "start with a letter or '_', and use at most 64 letters, digits, '_', '.' and '-'"
            raise ConfigurationError(doing, f"{name!r:.80} is not a valid tag name", advice)
    for text in (*tags.values(), note):
        if text is not None and (len(text) > _MAX_TEXT or not _is_text(text)):
            found = f"{text[:20]!r}... is longer than {_MAX_TEXT} characters, or is not valid Unicode"
            raise ConfigurationError(doing, found, "shorten the text")


def _is_text(text: str) -> bool:
    """False for half of a surrogate pair, from an undecodable argument, which JSON can't hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _changed(older: Tags, changes: Mapping[str, str | None]) -> Tags:
    tags = dict(older.tags)
    note = older.note
    for name, value in changes.items():
        kind, _, tag = name.partition("/")
        if kind == "note":
            note = value
        elif value is None:
            tags.pop(tag, None)
        else:
            tags[tag] = value
    return msgspec.structs.replace(older, tags=tags, note=note)


def _added(older: Tags, newer: Tags) -> dict[str, str | None]:
    """What the one sets that the other doesn't. What is gone may only not have come yet: no difference tells."""
    changes: dict[str, str | None] = {
        f"tags/{name}": value for name, value in newer.tags.items() if older.tags.get(name) != value
    }
    if newer.note not in (None, older.note):
        changes["note"] = newer.note
    return changes

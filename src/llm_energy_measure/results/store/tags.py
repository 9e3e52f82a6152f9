"""Tags and notes that users add to an experiment, in the file `tags/<id>.json`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from llm_energy_measure.constants import SCHEMA_VERSION
from llm_energy_measure.exceptions import ConfigurationError, ExperimentIdError, ResultCorruptError, ResultNotFoundError
from llm_energy_measure.results.store import layout
from llm_energy_measure.security import require_bounded_json
from llm_energy_measure.storage.base import Store
from llm_energy_measure.storage.folder import get_listed

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MAX_TEXT = 10_000

# Maximum number of times that a change is tried while other processes change the same file.
_MAX_TRIES = 100


class Tags(Struct, frozen=True, kw_only=True):
    """Tags and note of an experiment. No measured or computed value depends on them.

    Attributes:
        experiment_id: Id of the experiment, or its folder name.
        tags: Value of each tag, by name.
        note: Free text; None if there is none.
        schema_version: Version of the format.
    """

    experiment_id: str
    tags: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    schema_version: str = SCHEMA_VERSION


_DECODER = msgspec.json.Decoder(Tags)


def load_tags(store: Store, experiment_id: str) -> Tags:
    """Return the tags and the note of an experiment; both are empty if there is no file.

    Raises:
        ExperimentIdError: The file belongs to another experiment, whose id differs only in case.
        ResultCorruptError: The file is not a file of tags.
    """
    folder = layout.folder_in(store, experiment_id)
    key = layout.tags_key(folder)
    try:
        return _decode_own(store.get(key), key, folder)
    except ResultNotFoundError:
        return Tags(experiment_id=experiment_id)


def change_tags(
    store: Store,
    experiment_id: str,
    tags: Mapping[str, str | None] | None = None,
    *,
    note: str | None = None,
) -> Tags:
    """Set and remove tags of an experiment, and return all its tags.

    Several processes may change the tags at the same time. Each process keeps the tags that only other processes set.
    A removal can be lost if another process changes the file at the same time.

    Args:
        store: The store of the results directory.
        experiment_id: Id or folder name of the experiment.
        tags: Value of each tag to set, by name; None removes the tag. A name has at most 64 letters, digits, `_`, `.`
            and `-`.
        note: New free text; the empty text removes the note.

    Raises:
        ConfigurationError: A name or a text is not valid.
        ExperimentIdError: The file belongs to another experiment, whose id differs only in case.
        ResultCorruptError: The existing file is not a file of tags. It is not changed.
    """
    changes = {f"tags/{name}": value for name, value in (tags or {}).items()}
    if note is not None:
        changes["note"] = note or None
    _require_storable(experiment_id, tags or {}, note)
    folder = layout.folder_in(store, experiment_id)
    key = layout.tags_key(folder)
    before: bytes | None = None
    with contextlib.suppress(ResultNotFoundError):
        before = get_listed(store, key)
    for _ in range(_MAX_TRIES):
        older = Tags(experiment_id=experiment_id) if before is None else _decode_own(before, key, folder)
        newer = _changed(older, changes)
        data = encode_tags(newer)
        if data == before or (before is None and not newer.tags and newer.note is None):
            return newer
        if before is None:
            if store.create(key, data):
                return newer
            before = get_listed(store, key)
            continue
        kept = store.exchange(key, data)
        replaced = store.get(kept)
        store.delete(kept)
        if replaced == before:
            return newer
        # Another process wrote between the read and the exchange: apply its changes as well.
        changes = _additions(older, decode_tags(replaced, key)) | changes
        before = data
    doing, found = f"cannot tag {experiment_id!r}", "other processes keep changing its tags"
    raise ConfigurationError(doing, found, "try again")


def encode_tags(tags: Tags) -> bytes:
    """Return the bytes of a file of tags; equal tags have equal bytes."""
    return msgspec.json.format(msgspec.json.encode(tags, order="sorted"), indent=2) + b"\n"


def decode_tags(data: bytes, name: str) -> Tags:
    """Return the tags in the bytes of a file. Raises `ResultCorruptError` if they are not a file of tags."""
    try:
        require_bounded_json(data)
        return _DECODER.decode(data)
    except (ValueError, RecursionError) as error:
        found = str(error).replace("`", "")
        raise ResultCorruptError(f"cannot load the tags {name}", found, "repair or remove the file") from error


def _decode_own(data: bytes, key: str, folder: str) -> Tags:
    """Return the tags in a file; raise if its experiment id matches the folder name only without regard to case."""
    tags = decode_tags(data, key)
    if layout.differs_in_case(tags.experiment_id, folder):
        doing, found = f"cannot use the tags {key}", f"they belong to the experiment {tags.experiment_id!r}"
        raise ExperimentIdError(doing, found, "use another id")
    return tags


def parse_assignments(words: Sequence[str]) -> dict[str, str | None]:
    """Return tags from words of the form `key=value`; an empty value removes the tag.

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


def parse_new_tags(words: Sequence[str]) -> dict[str, str]:
    """Return tags from words of the form `key=value`, for experiments that have no tags yet.

    Raises:
        ConfigurationError: A word has no `=`, or its name or value is not valid. An empty value usually comes from a
            shell variable that is not set.

    Example:
        >>> parse_new_tags(["commit=a1b2c3d"])
        {'commit': 'a1b2c3d'}
    """
    tags = {}
    for name, value in parse_assignments(words).items():
        if value is None:
            raise ConfigurationError(f"cannot set the tag {name!r}", "its value is empty", f"write {name}=VALUE")
        tags[name] = value
    _require_storable("the experiment", tags, None)
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
    """Return False for a text with a lone surrogate, from an undecodable argument. JSON can't represent such text."""
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


def _additions(older: Tags, newer: Tags) -> dict[str, str | None]:
    """Return the tags and the note that the newer version adds or changes.

    A tag that is missing in the newer version counts as not added yet, and not as removed.
    """
    changes: dict[str, str | None] = {
        f"tags/{name}": value for name, value in newer.tags.items() if older.tags.get(name) != value
    }
    if newer.note not in (None, older.note):
        changes["note"] = newer.note
    return changes

"""Replace the names of hosts and users in the files of experiments, each name by the same pseudonym everywhere.

The names come from the host and user fields of records, and from paths of home folders. They are replaced in all JSON
files, file names and ids. In the host and user fields, each name is replaced. In other text, a user name is replaced if
a slash or a backslash precedes it or `@` follows it. A host name in other text is replaced only if it has at least
three characters and contains a digit, a dot or a hyphen.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

import msgspec

from llm_energy_measure.bundle.contents import SELECTION_DECODER, Selection
from llm_energy_measure.bundle.snapshot import Snapshot, repository_of
from llm_energy_measure.bundle.verdicts import verdict_on
from llm_energy_measure.exceptions import ConfigurationError, ResultsError
from llm_energy_measure.results.aggregation import aggregate_results
from llm_energy_measure.results.batch.state import stated_processes
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.layout import aggregated_key

_HOST_KEYS = "host|hostname|host_name|node|nodename|node_name|nodelist|node_list|fqdn|master_addr"
_USER_KEYS = "user|username|user_name"
_HOST_FIELD = re.compile(rf'"(?:{_HOST_KEYS})"\s*:\s*"([^"\\]+)"')
_USER_FIELD = re.compile(rf'"(?:{_USER_KEYS})"\s*:\s*"([^"\\]+)"')
_HOME = re.compile(r'(?:/home/|/Users/|\\\\Users\\\\)([^/"\\\s:,]+)')

# `localhost` and loopback addresses identify no machine. A number is only the index of a node in a job.
_NO_NAME = re.compile(r"localhost|[0-9]+|[0-9a-fA-F:.]*::1|127\.[0-9.]+")
_DISTINCTIVE = re.compile(r"(?=.*[0-9.-]).{3,}")


class Pseudonyms:
    """The pseudonyms of hosts and users. Call `collect` for all experiments, then `freeze`, then `apply`."""

    def __init__(self) -> None:
        """Start without names."""
        self._host_names: set[str] = set()
        self._user_names: set[str] = set()
        self._hosts: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._host_text: re.Pattern[str] | None = None
        self._user_text: re.Pattern[str] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Number of replaced names, by kind."""
        return {"hosts": len(set(self._hosts.values())), "users": len(self._users)}

    def collect(self, snapshot: Snapshot) -> None:
        """Add the names in the files of an experiment."""
        for key, data in snapshot.files.items():
            if _is_text(key):
                text = data.decode("utf-8", "surrogateescape")
                self._host_names.update(_HOST_FIELD.findall(text))
                self._user_names.update(_USER_FIELD.findall(text))
                self._user_names.update(_HOME.findall(text))

    def freeze(self) -> None:
        """Choose the pseudonym of each name. Names are numbered in sorted order."""
        hosts = sorted(name for name in self._host_names if not _NO_NAME.fullmatch(name))
        users = sorted(name for name in self._user_names if not _NO_NAME.fullmatch(name))
        short_names = {name: name.partition(".")[0] for name in hosts}
        # A pseudonym that is also a real name would be replaced once more.
        taken = {*hosts, *short_names.values(), *users}
        by_short = dict(zip(dict.fromkeys(short_names.values()), _unused("host-", taken), strict=False))
        for name, short in short_names.items():
            self._hosts[name] = self._hosts[short] = by_short[short]
        self._users = dict(zip(users, _unused("user-", taken), strict=False))
        distinctive = [name for name in self._hosts if _DISTINCTIVE.fullmatch(name)]
        self._host_text = _any_of(distinctive, r"(?<![A-Za-z0-9])({})(?![A-Za-z0-9])")
        self._user_text = _any_of(self._users, r"(?<=[/\\])({})(?![A-Za-z0-9._-])|\b({})(?=@)")

    def folder(self, folder: str) -> str:
        """Return a folder name in which pseudonyms replace the names of hosts and users."""
        return self._text(folder)

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """Return files in which pseudonyms replace the names. An aggregate is computed again from the new raw files.

        Raises:
            ConfigurationError: The aggregate does not follow from the raw files.
        """
        if not (self._hosts or self._users):
            return snapshot
        folder = self.folder(snapshot.folder)
        files = {self._text(key): self._bytes(data) if _is_text(key) else data for key, data in snapshot.files.items()}
        replaced = Snapshot(folder=folder, files=files, left_out=snapshot.left_out)
        older = snapshot.files.get(aggregated_key(snapshot.folder))
        if older is not None and files[aggregated_key(folder)] != older:
            files[aggregated_key(folder)] = _aggregated_again(snapshot, older, replaced)
        return replaced

    def apply_to_selection(self, selection: Selection) -> None:
        """Replace the names in the selection, and store how many names were replaced."""
        document = msgspec.json.encode(selection)
        replaced = SELECTION_DECODER.decode(self._bytes(document))
        for name in Selection.__struct_fields__:
            setattr(selection, name, getattr(replaced, name))
        selection.pseudonyms = self.counts

    def _bytes(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        text = re.sub(
            rf'("(?:{_HOST_KEYS})"\s*:\s*")([^"\\]+)(?=")', lambda match: self._field(match, self._hosts), text
        )
        text = re.sub(
            rf'("(?:{_USER_KEYS})"\s*:\s*")([^"\\]+)(?=")', lambda match: self._field(match, self._users), text
        )
        return self._text(text).encode("utf-8", "surrogateescape")

    @staticmethod
    def _field(match: re.Match[str], known: dict[str, str]) -> str:
        return match[1] + known.get(match[2], match[2])

    def _text(self, text: str) -> str:
        if self._host_text is not None:
            text = self._host_text.sub(lambda match: self._hosts[match[0]], text)
        if self._user_text is not None:
            text = self._user_text.sub(lambda match: self._users[match[0]], text)
        return text


def _unused(prefix: str, taken: set[str]) -> Iterator[str]:
    """Yield the names that are not in `taken`: the prefix and a number from 1."""
    return (name for number in itertools.count(1) if (name := f"{prefix}{number}") not in taken)


def _is_text(key: str) -> bool:
    return ".json" in key.rpartition("/")[2]


def _any_of(names: Iterable[str], pattern: str) -> re.Pattern[str] | None:
    """Return a pattern for any of the names, the longest first. None without names."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    if not longest_first:
        return None
    return re.compile(pattern.replace("{}", "|".join(map(re.escape, longest_first))))


def _aggregated_again(snapshot: Snapshot, older: bytes, replaced: Snapshot) -> bytes:
    """Return the aggregate of the new raw files, with the options of the older aggregate."""
    doing = f"cannot replace the names in {snapshot.folder!r}"
    advice = f"run 'llm-energy-measure aggregate {snapshot.folder} --force'"
    verdict = verdict_on(snapshot).verdict
    if verdict in ("stale", "altered", "unreadable", "external"):
        raise ConfigurationError(doing, f"its aggregate is {verdict}, so it does not follow from the raw files", advice)
    summary = codec.decode_summary(older, snapshot.folder)
    key = aggregated_key(replaced.folder)
    raw = {name: data for name, data in replaced.files.items() if name != key}
    repository = repository_of(raw)
    recovery = repository.recover_raw(replaced.folder)
    sources = {source.name for source in summary.sources or ()}
    partials = [record for record in recovery.partials if record.stored and record.stored.source.name in sources]
    records = recovery.results or partials
    try:
        result = aggregate_results(
            records[0].experiment_id if records else replaced.folder,
            recovery.results,
            strategy=summary.aggregation.method,
            expected_processes=stated_processes(summary),
            manifest=recovery.manifest,
            unreadable=recovery.unreadable,
            partials=partials,
            strict=False,
            assume=summary.assumptions or None,
        )
        repository.save_aggregated(result)
    except ResultsError as error:
        raise ConfigurationError(doing, str(error), advice) from error
    return repository.store.get(key)

"""A results directory with about 40 hostile files, next to a good experiment and a folder outside.

The files outside have our names and valid content: a command that follows a link shows, changes or deletes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import stat
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from llm_energy_measure.catalogue.database import format_version
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store import codec
from llm_energy_measure.storage.temporary import lock_path, temporary_path
from tests.support import factories

GOOD = "good"
ALTERED = "altered"
ODD_NAME = "evil\x1b[31m\u202e\u2066name\u200b"
SPY = "outside-model"
EXPANDING_VALUES = 3_000_000


class HostileFolder:
    """A results directory with hostile files.

    Attributes:
        results: The results directory.
        outside: The folder outside. No command may read, change or delete a file there.
        reported: Keys of the hostile files that `results check` has to name.
    """

    def __init__(self, base: Path) -> None:
        """Create both folders below `base`."""
        self.outside, self.results = base / "outside", base / "results"
        self.reported: list[str] = []
        self._make_outside()
        repository = FileSystemRepository(self.results)
        for name in (GOOD, ALTERED):
            for raw in factories.raws(2, name):
                repository.save_raw(name, raw)
        list(aggregate_all(repository))
        for place in (self._raw, self._entries_of_raw, self._aggregated, self._catalogue, self._dataset, self._hidden):
            place()

    def digest(self) -> str:
        """Return a digest of names, types, contents and modes of all files outside."""
        digest = sha256()
        for path in sorted(self.outside.rglob("*")):
            status = path.lstat()
            digest.update(f"{path} {status.st_mode} {status.st_ino} {status.st_nlink} {status.st_mtime_ns}\n".encode())
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def _make_outside(self) -> None:
        for name in ("raw", "aggregated", "dataset/month=2026-01"):
            (self.outside / name).mkdir(parents=True)
        spies = [factories.raw("spy", index, model_name=SPY) for index in range(2)]
        for index, spy in enumerate(spies):
            (self.outside / "raw" / f"process_{index}.json").write_bytes(codec.encode_raw(spy))
        spy_aggregate = codec.encode_aggregated(factories.aggregated("spy", model_name=SPY))
        (self.outside / "aggregated" / "spy.json").write_bytes(spy_aggregate)
        parquet.write_table(pa.table({"a": [SPY]}), self.outside / "dataset" / "month=2026-01" / "part-0.parquet")
        (self.outside / "file").write_bytes(b"secret outside")

    def _new(self, key: str, *, reported: bool = True) -> Path:
        path = self.results / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if reported:
            self.reported.append(key)
        return path

    def _raw(self) -> None:
        """Place hostile raw results, manifests and other files in folders of experiments."""
        links: dict[str, str | Path] = {
            "process_0.json": self.outside / "raw" / "process_0.json",
            "process_1.json": "../../../outside/raw/process_1.json",
            "process_2.json": "nowhere",
            "process_3.json": "process_3.json",
            "process_4.json": "/dev/zero",
            "process_5.json": self.outside / "raw",
            "manifest.json": self.outside / "file",
            "rejected-process_7-1.json.kept": self.outside / "file",
            "partial-process_8.json": self.outside / "raw" / "process_1.json",
        }
        for name, target in links.items():
            self._new(f"raw/links/{name}").symlink_to(target)
        os.mkfifo(self._new("raw/special/process_0.json"))
        self._new("raw/special/process_1.json/deep").mkdir(parents=True)
        self.reported[-1] = "raw/special/process_1.json"
        with contextlib.suppress(PermissionError):  # needs a privilege
            os.mknod(self.results / "raw/special/process_2.json", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            self.reported.append("raw/special/process_2.json")
        _bind(self._new("raw/special/process_3.json"))
        os.mkfifo(self._new("raw/special/manifest.json"))
        os.mkfifo(self._new("raw/special/claim-cpu-1.json"))
        with self._new("raw/content/process_0.json").open("wb") as file:
            file.truncate(2**43)  # sparse
        document = factories.document(factories.raw("content", 1))
        text = json.dumps({**document, "extra": []})
        expanding = text.replace('"extra": []', f'"extra": [{"{}," * EXPANDING_VALUES}{{}}]')
        self._new("raw/content/process_1.json").write_text(expanding)
        self._new("raw/content/process_2.json").write_bytes(b'{"a":' * 100_000)
        self._new("raw/content/process_3.json").write_bytes(b"")
        self._new("raw/content/process_4.json").write_text(json.dumps({**document, "experiment_id": ODD_NAME}))

    def _entries_of_raw(self) -> None:
        """Place hostile entries of `raw/`: links to folders, special files, and folders with misleading names."""
        self._new("raw/linked").symlink_to(self.outside / "raw", target_is_directory=True)
        os.mkfifo(self._new("raw/fifo"))
        for name in (f"raw/{ODD_NAME}", f"raw/{'l' * 230}"):
            shutil.copytree(self.results / "raw" / GOOD, self._new(name))
        shutil.copytree(self.results / "raw" / GOOD, self._new("raw/process_1.json", reported=False))
        _make_deep(self._new("raw/deep", reported=False))
        self._new("raw/.good~deleted").symlink_to(self.outside / "raw", target_is_directory=True)
        self._new("raw/.good~attempt-0").symlink_to(self.outside / "raw", target_is_directory=True)
        os.mkfifo(self._new("raw/.other~deleted"))

    def _aggregated(self) -> None:
        """Place hostile aggregates and tags, and change a value of an aggregate."""
        path = self._new(f"aggregated/{ALTERED}.json")
        path.write_bytes(path.read_bytes().replace(b'"total_energy_j": 4193.0', b'"total_energy_j": 2096.5', 1))
        self._new("aggregated/linked_aggregate.json").symlink_to(self.outside / "aggregated" / "spy.json")
        os.mkfifo(self._new("aggregated/fifo_aggregate.json"))
        self._new("aggregated/folder_aggregate.json").mkdir()
        with self._new("aggregated/sparse_aggregate.json").open("wb") as file:
            file.truncate(2**43)
        self._new(f"aggregated/{ODD_NAME}.json").write_bytes(b"{}")
        self._new("aggregated/superseded-good-1.json.kept").symlink_to(self.outside / "file")
        self._new(f"tags/{GOOD}.json").symlink_to(self.outside / "file")
        os.mkfifo(self._new("tags/special.json"))

    def _catalogue(self) -> None:
        """Place a crafted catalogue: a view with a costly query for each table, and links next to it."""
        path = self._new(".catalogue.sqlite", reported=False)
        path.unlink(missing_ok=True)
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS folder FROM n"
        with contextlib.closing(sqlite3.connect(path)) as database:
            for table in ("rows", "experiments", "tags", "scans"):
                database.execute(f"CREATE VIEW {table} AS {endless}")
            database.execute(f"PRAGMA user_version = {format_version()}")
        self._new(".catalogue.sqlite-wal").symlink_to(self.outside / "file")
        os.mkfifo(self._new(".catalogue.sqlite-journal"))
        os.mkfifo(self._new(".catalogue.sqlite-seal"))

    def _dataset(self) -> None:
        """Place a dataset with a file of another program, a linked table and a pipe."""
        part = self._new("dataset/experiments/month=2026-01/part-0.parquet", reported=False)
        parquet.write_table(pa.table({"a": [1]}), part)
        self._new("dataset/processes").symlink_to(self.outside / "dataset", target_is_directory=True)
        os.mkfifo(self._new("dataset/findings/month=2026-01/part-0.parquet"))
        self._new("table.csv", reported=False).symlink_to(self.outside / "file")

    def _hidden(self) -> None:
        """Place links with the names of locks and unfinished files of this process."""
        folder = self.results / "raw" / GOOD
        for name in (lock_path("process_0.json"), temporary_path("process_1.json"), temporary_path("process_9.json")):
            self._new(f"raw/{GOOD}/{name}")
            (folder / name).symlink_to(self.outside / "file")


def _make_deep(path: Path) -> None:
    """Create a folder with 3,000 levels, whose path is longer than the system accepts."""
    path.mkdir()
    (path / "process_0.json").write_bytes(codec.encode_raw(factories.raw("deep")))
    here = Path.cwd()
    os.chdir(path)
    try:
        for _ in range(3_000):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)

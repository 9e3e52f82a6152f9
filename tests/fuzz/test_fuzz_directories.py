"""Random changes of a whole results directory between two commands: renames, swaps, links, cuts, permissions.

No command crashes, waits for a pipe, or changes a file outside. No command except `delete` loses a result.
`LLM_ENERGY_MEASURE_FUZZ_CASES` and `LLM_ENERGY_MEASURE_FUZZ_SEED` set number and seed, as for `test_fuzz`. A case
depends only on the seed and its number.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest

from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.tags import change_tags
from llm_energy_measure.storage.temporary import target_name
from tests.support import factories
from tests.support.command import run

CASES = int(os.environ.get("LLM_ENERGY_MEASURE_FUZZ_CASES") or 50_000) // 1_000
SEED = int(os.environ.get("LLM_ENERGY_MEASURE_FUZZ_SEED") or 20260116)
STEPS = 3
LIMIT_SEC = 60
"""Limit of one case, in seconds of real time: a command that waits for a pipe uses no processor time."""

NAMES = ["exp", "Exp", "a_b", "gone", "process_0.json", "process_1.json", "exp.json", "a_b.json", "manifest.json"]
NAMES += [".exp~deleted", ".exp~attempt-0", "superseded-exp-1.json.kept", "rejected-process_0-1.json.kept", "dataset"]
NAMES += [
    "raw",
    "aggregated",
    "tags",
    ".catalogue.sqlite",
    ".catalogue.sqlite-wal",
    ".process_0.json~lock",
    "CON",
    "x y",
]

COMMANDS = [
    "results list --all",
    "results list --all --rehash",
    "results show exp",
    "results show a_b --raw",
    "aggregate --all",
    "aggregate --all --force --no-strict",
    "results verify --all",
    "results check",
    "results check --clean --salvage",
    "results export --to - --raw",
    "results export --to {base}/table.csv",
    "results repeats",
    "results configs",
    "results compare {base}/results {base}/results",
    "aggregate exp --force --assume hosts=1",
    "results tag exp paper=fig3",
    "results delete exp --yes",
    "results delete Exp --yes",
    "-o {base}/merged results merge {base}/results",
    "results sql 'select count(*) from experiments'",
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a results directory and a folder outside of it."""
    base = tmp_path_factory.mktemp("template")
    repository = FileSystemRepository(base / "results")
    for name in ("exp", "a/b", "other"):
        for record in factories.raws(2, name):
            repository.save_raw(name, record)
    list(aggregate_all(repository))
    change_tags(repository.store, "exp", {"a": "b"})
    repository.save_raw("other", factories.raw("other", host="second"), overwrite=True)
    (base / "outside" / "month=2026-01").mkdir(parents=True)
    (base / "outside" / "process_0.json").write_bytes(codec.encode_raw(factories.raw("outside")))
    (base / "outside" / "file").write_bytes(b"secret outside")
    return base


def entries(base: Path) -> list[Path]:
    return sorted(path for path in (base / "results").rglob("*"))


def rename(rng: random.Random, base: Path, path: Path) -> None:
    target = path.with_name(rng.choice(NAMES)) if rng.random() < 0.7 else rng.choice([*entries(base), base / "results"])
    path.rename(target if rng.random() < 0.7 else target / rng.choice(NAMES))


def swap(rng: random.Random, base: Path, path: Path) -> None:
    other, away = rng.choice(entries(base)), base / "away"
    path.rename(away)
    try:
        other.rename(path)
        away.rename(other)
    finally:
        shutil.rmtree(away, ignore_errors=True)
        away.unlink(missing_ok=True)


def cut(rng: random.Random, _base: Path, path: Path) -> None:
    if path.is_file() and not path.is_symlink():
        os.truncate(path, rng.randrange(path.stat().st_size + 1))


def append(rng: random.Random, _base: Path, path: Path) -> None:
    if path.is_file() and not path.is_symlink():
        with path.open("ab") as file:
            file.write(rng.randbytes(rng.randrange(1, 50)))


def remove(_rng: random.Random, _base: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def link(rng: random.Random, base: Path, path: Path) -> None:
    outside = base / "outside"
    targets = [
        outside,
        outside / "file",
        outside / "process_0.json",
        Path("/dev/zero"),
        path,
        rng.choice(entries(base)),
    ]
    remove(rng, base, path)
    path.symlink_to(rng.choice(targets))


def pipe(rng: random.Random, base: Path, path: Path) -> None:
    remove(rng, base, path)
    os.mkfifo(path)


def copy(rng: random.Random, base: Path, path: Path) -> None:
    target = path.with_name(rng.choice(NAMES)) if rng.random() < 0.7 else rng.choice(entries(base)) / rng.choice(NAMES)
    if path.is_dir() and not path.is_symlink():
        if path not in target.parents:
            shutil.copytree(path, target, symlinks=True)
    elif path.is_file() and not target.is_symlink():
        shutil.copyfile(path, target, follow_symlinks=False)


def permit(rng: random.Random, _base: Path, path: Path) -> None:
    if not path.is_symlink():
        path.chmod(rng.choice([0o000, 0o400, 0o444, 0o555, 0o777]))


def touch(rng: random.Random, _base: Path, path: Path) -> None:
    mtime = rng.choice([0, 1, time.time() - 1e6, time.time() + 1e6])
    os.utime(path, (mtime, mtime), follow_symlinks=False)


def create(rng: random.Random, _base: Path, path: Path) -> None:
    folder = path if path.is_dir() else path.parent
    new = folder / rng.choice(NAMES)
    if rng.random() < 0.5:
        new.mkdir()
    elif not os.path.lexists(new):
        new.write_bytes(rng.randbytes(20))


MUTATIONS: list[Callable[[random.Random, Path, Path], None]] = [
    *(rename, rename, swap, cut, append, remove, link, link, pipe, copy, permit, touch, create)
]


def digest(folder: Path) -> str:
    """Return a digest of names, types and contents below a folder, without following links."""
    found = sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.update(f"{path} {status.st_mode} {status.st_ino} {status.st_mtime_ns}\n".encode())
        if path.is_file() and not path.is_symlink():
            found.update(path.read_bytes())
    return found.hexdigest()


def results_in(base: Path) -> Counter[bytes]:
    """Return the contents of the raw results in all folders of experiments, with their number of files."""
    found: Counter[bytes] = Counter()
    for path in (base / "results" / "raw").rglob("*"):
        is_ours = process_index_of(path.name) is not None and target_name(path.name) is None
        if is_ours and path.is_file() and not path.is_symlink():
            found[path.read_bytes()] += 1
    return found


def run_case(seed: int, number: int, template: Path, base: Path) -> list[str]:
    """Change the directory and run a command, several times. Return the steps."""
    import shlex

    rng = random.Random(f"{seed}/directory/{number}")
    shutil.copytree(template, base, symlinks=True)
    outside = digest(base / "outside")
    steps: list[str] = []
    for _ in range(STEPS):
        for _ in range(rng.randrange(1, 4)):
            found = entries(base)
            path, mutate = rng.choice(found or [base / "results"]), rng.choice(MUTATIONS)
            steps.append(f"{mutate.__name__} {path.relative_to(base)}")
            try:
                mutate(rng, base, path)
            except (OSError, shutil.Error) as error:
                steps[-1] += f" ({type(error).__name__})"
        if digest(base / "outside") != outside:  # a copy went through a link: this change is ours
            outside = digest(base / "outside")
        before = results_in(base)
        command = rng.choice(COMMANDS)
        steps.append(command)
        done = run("-o", base / "results", *shlex.split(command.format(base=base)))
        assert done.status in (0, 1, 2), done
        assert "this is a bug" not in done.err, done.err
        assert "Traceback" not in done.err, done.err
        assert "secret outside" not in done.out + done.err
        assert digest(base / "outside") == outside, "a file outside was changed"
        if "delete" not in command:
            assert not before - results_in(base), "a result was lost"
    return steps


def _too_slow(*_: object) -> NoReturn:
    msg = f"more than {LIMIT_SEC} s"
    raise TimeoutError(msg)


def test_commands_survive_changes_of_the_directory(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGALRM, _too_slow)
    base = tmp_path / "case"
    number = 0
    try:
        for number in range(CASES):
            signal.alarm(LIMIT_SEC)
            run_case(SEED, number, template, base)
            signal.alarm(0)
            shutil.rmtree(base)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    except BaseException as bug:
        bug.add_note(f"repeat the case with run_case({SEED}, {number}, ...) in {base}")
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

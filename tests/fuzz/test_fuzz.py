"""Random content of files, ids and cells raises only our own errors, and within a limit of processor time.

`LLM_ENERGY_MEASURE_FUZZ_CASES` sets the number of cases (`make fuzz`: a million), `LLM_ENERGY_MEASURE_FUZZ_SEED` the
seed. A case depends only on the seed and its number, so `run_case(seed, number)` repeats one case.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import random
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llm_energy_measure import importers
from llm_energy_measure.cli import terminal
from llm_energy_measure.domain.experiment import Launcher, Manifest, process_index_of, summary_of
from llm_energy_measure.exceptions import LLMEnergyMeasureError, UnsafePathError
from llm_energy_measure.results import FileSystemRepository, aggregate_all, aggregate_results, exporters
from llm_energy_measure.results.batch import salvage
from llm_energy_measure.results.batch.checking import check_store, remove_leftovers
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.store import codec, layout, samples
from llm_energy_measure.security import is_safe_path, sanitize_experiment_id, validate_path
from llm_energy_measure.storage.local import LocalStore
from llm_energy_measure.storage.temporary import target_name, writer_has_ended
from tests.fuzz import mutate
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Callable

_GIVEN = int(os.environ.get("LLM_ENERGY_MEASURE_FUZZ_CASES") or 0)
CASES = _GIVEN or 10_000
PATH_CASES = _GIVEN or 2_000
# Constant by default: a default run fails only if a change of the code caused the failure.
SEED = int(os.environ.get("LLM_ENERGY_MEASURE_FUZZ_SEED") or 20260116)
LIMIT_SEC = 1.0
"""Limit of one case, in seconds of processor time. Other work on the machine hardly changes processor time."""

EXAMPLES = Path(__file__).parents[2] / "examples" / "results"
DATA = Path(__file__).parents[1] / "data"
ROOT = Path("/nowhere/results")
_FIRST_LETTER = re.compile(rb'"([A-Za-z])')
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class TooSlowError(Exception):
    """A case took more than its processor time."""


@cache
def raw_seeds() -> list[bytes]:
    real = [path.read_bytes() for path in sorted(EXAMPLES.rglob("process_*.json"))]
    assert real
    records = [
        factories.raw(),
        factories.full_raw(),
        factories.full_raw(unknown_fields={"/new/~1~0": {"a": [1, None]}}),
    ]
    naive = factories.timestamps(factories.START.replace(tzinfo=None))
    return [*real, *map(codec.encode_raw, [*records, factories.raw(timestamps=naive, inference_metrics=None)])]


@cache
def aggregated_seeds() -> list[bytes]:
    records = [codec.decode_raw(data, f"process_{index}.json") for index, data in enumerate(raw_seeds()[:2])]
    result = aggregate_results(records[0].experiment_id, records)
    return [codec.encode_aggregated(one) for one in (result, factories.aggregated(), factories.full_aggregated())]


@cache
def manifest_seeds() -> list[bytes]:
    full = Manifest(experiment_id="a/b", expected_processes=4, launcher=Launcher(job_id="7"), config_digest="0" * 64)
    return [codec.encode_manifest(one) for one in (full, Manifest(experiment_id="exp_7"))]


def fuzz_raw(rng: random.Random) -> str:
    data = mutate.mutated(rng, raw_seeds())
    record = codec.decode_raw(data, "exp_7/process_0.json")
    encoded = codec.encode_raw(record)
    again = codec.decode_raw(encoded, "exp_7/process_0.json")
    assert again == record
    assert codec.encode_raw(again) == encoded
    if rng.random() < 0.2:
        table = exporters.table_of([record])
        require_table(exporters.to_csv(table), 2)
        json.loads(exporters.to_json(table))
        aggregate_results(record.experiment_id, [record])
    return "decoded"


def fuzz_aggregated(rng: random.Random) -> str:
    data = mutate.mutated(rng, aggregated_seeds())
    summary = codec.decode_summary(data, "exp_7.json")
    record = codec.decode_aggregated(data, "exp_7.json")
    assert summary_of(record) == summary
    encoded = codec.encode_aggregated(record)
    again = codec.decode_aggregated(encoded, "exp_7.json")
    assert again == record
    assert codec.encode_aggregated(again) == encoded
    if rng.random() < 0.2:
        table = exporters.table_of([record], include_process_breakdown=True)
        require_table(exporters.to_csv(table), 2)
        json.loads(exporters.to_json(table))
    return "decoded"


def fuzz_manifest(rng: random.Random) -> str:
    manifest = codec.decode_manifest(mutate.mutated(rng, manifest_seeds()), "exp_7/manifest.json")
    encoded = codec.encode_manifest(manifest)
    assert codec.decode_manifest(encoded, "exp_7/manifest.json") == manifest
    return "decoded"


def fuzz_salvage(rng: random.Random) -> str:
    data = mutate.mutated(rng, raw_seeds())
    sections = salvage.complete_sections(data[: rng.randrange(len(data) + 1)])
    assert isinstance(sections, dict)
    return "some" if sections else "none"


def fuzz_samples(rng: random.Random) -> str:
    traces = samples.decode_samples(mutate.mutated(rng, sample_seeds()), "samples-process_0.csv.gz")
    encoded = samples.encode_samples(traces)
    assert samples.encode_samples(samples.decode_samples(encoded, "s")) == encoded
    return "decoded"


@cache
def sample_seeds() -> list[bytes]:
    rows = [b"time_s,device,power_w,temperature_c,clock_mhz,throttle", b"0,0,100.5,40,1410,0x0", b"1,0,101,,,"]
    text = b"\n".join([*rows, b""])
    return [text, gzip.compress(text, mtime=0), gzip.compress(text * 3, mtime=0)]


@cache
def import_seeds() -> list[bytes]:
    paths = [path for path in sorted(DATA.rglob("*")) if path.suffix in (".csv", ".txt", ".json", ".jsonl")]
    assert len(paths) > 20
    return [path.read_bytes() for path in paths if path.stat().st_size < 50_000]


def fuzz_import(rng: random.Random) -> str:
    """Import a damaged file of another tool. Each record can be saved, and no importer fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(mutate.mutated(rng, import_seeds()))
        imported = importers.read(path, columns=["timestamp", "index", "power.draw"] if rng.random() < 0.1 else [])
        for record in imported:
            assert codec.require_valid_raw(record) == record
        assert "broke_off" not in {entry.code for entry in imported.report.entries}
        for entry in imported.report.entries:
            if entry.power_log is not None:
                samples.decode_samples(samples.encode_samples(entry.power_log.traces), "s")
    return "read" if imported.report.kept else "refused"


IDS = ["exp_7", "exp/with/slashes", "smollm2_b1_c0", "a b", "../../up", ".hidden", "superseded-exp-1", "m\u00fcller"]


def fuzz_id(rng: random.Random) -> str:
    name = mutate.text(rng, IDS)
    safe = sanitize_experiment_id(name)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}", safe)
    assert safe.strip(".")
    assert sanitize_experiment_id(safe) == layout.folder_name(name) == safe
    assert layout.is_folder_name(safe)
    assert layout.names_folder(name, safe)
    store = LocalStore(ROOT)
    raw, aggregated = layout.raw_key(safe, rng.randrange(1000)), layout.aggregated_key(safe)
    for key in (raw, aggregated, layout.tags_key(safe), layout.manifest_key(safe), layout.rejected_key(safe, name, 1)):
        path = store.path(key)
        assert os.path.normpath(path) == str(path)
        assert path.is_relative_to(ROOT)
        assert all(len(part) <= 255 for part in path.parts)
    assert layout.aggregated_folder_of(aggregated.rpartition("/")[2]) == safe
    assert layout.folder_of_key(raw) == safe
    return "usable"


PATHS = ["raw/exp_7/process_0.json", "../results-evil", "/etc/passwd", "a//b", "./x", "..", "~/x", "a\\b"]


def fuzz_path(rng: random.Random) -> str:
    path = mutate.text(rng, PATHS)
    with contextlib.suppress(UnsafePathError):
        assert LocalStore(ROOT).path(path).parts[: len(ROOT.parts)] == ROOT.parts
        assert ".." not in path.split("/")
    inside = is_safe_path(ROOT, ROOT / path)
    try:
        found = validate_path(path, ROOT)
    except UnsafePathError:
        validate_path(path, must_exist=rng.random() < 0.5)
        return "outside"
    assert inside
    assert found == ROOT or ROOT in found.parents
    return "inside"


NAMES = [
    *(
        "process_0.json",
        "process_12.json",
        "manifest.json",
        "rejected-process_0-1.json",
        "rejected-process_0-1.json.kept",
        "exp_7.json",
        ".exp~attempt-0",
    ),
    *(
        "superseded-exp-7-1.json",
        "superseded-exp-7-1.json.kept",
        ".process_0.json~00000000-00000000-1-0123abcd",
        "partial-process_3.json",
    ),
]


def fuzz_name(rng: random.Random) -> str:
    name = mutate.text(rng, NAMES)
    index = process_index_of(name)
    assert index is None or name == f"process_{index}.json"
    assert index is None or layout.is_kept_in_raw(name)
    folder = layout.aggregated_folder_of(name)
    assert folder is None or (name == f"{folder}.json" and layout.is_folder_name(folder))
    older = layout.superseded_aggregate_folder_of(name)
    assert older is None or re.fullmatch(rf"superseded-{re.escape(older)}-[0-9]+\.json(\.kept)?", name)
    hidden = target_name(name)
    assert hidden is None or (index is None and folder is None)
    assert hidden is not None or not writer_has_ended(name, 1.0)
    assert not (layout.earlier_attempt_of(name) is not None and layout.is_folder_name(name))
    assert not (layout.deleted_folder_of(name) is not None and layout.is_folder_name(name))
    return "ours" if index is not None or folder is not None or hidden is not None else "other"


TEXTS = ["baseline", "meta-llama/Llama-3.2-1B", "NVIDIA A100-PCIE-40GB", "=1+1", "a,b", 'say "x"', "line\nbreak"]


def fuzz_csv(rng: random.Random) -> str:
    texts = [mutate.text(rng, TEXTS) for _ in range(3)]
    records = [factories.raw(texts[0], model_name=texts[1], host=texts[2]), factories.raw(texts[2])]
    table = exporters.table_of(records)
    require_table(exporters.to_csv(table), 3)
    rows = json.loads(exporters.to_json(table))
    assert [row["experiment_id"] for row in rows] == [
        name.encode("utf-8", "backslashreplace").decode() for name in (texts[0], texts[2])
    ]
    return "written"


def require_table(data: bytes, rows: int) -> None:
    """Require this many rows of equal length, and no cell that a spreadsheet or a terminal would execute."""
    text = data.decode("utf-8-sig")
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert len(table) == rows
    assert len({len(row) for row in table}) == 1
    for row in table[1:]:
        for cell in row:
            assert not CONTROL_IN_CSV.search(cell), cell
            if cell.strip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")):
                float(cell)


CONTROL_IN_CSV = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def fuzz_terminal(rng: random.Random) -> str:
    text = mutate.text(rng, TEXTS)
    shown = terminal.escape(text)
    assert not CONTROL.search(shown)
    assert "\n" not in shown
    assert "\t" not in shown
    shown.encode()
    if rng.random() < 0.3:
        require_json_shown(mutate.mutated(rng, manifest_seeds()))
    return "shown"


def require_json_shown(data: bytes) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        terminal.print_json_text(data)
    assert not CONTROL.search(screen.getvalue())
    try:
        document = json.loads(data.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return
    assert json.loads(screen.getvalue()) == document or document != document  # noqa: PLR0124 - NaN


def fuzz_store(rng: random.Random) -> str:
    """Save, load and delete a record with any id. Files outside the store do not change."""
    name = mutate.text(rng, IDS)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine").write_bytes(b"mine")
        repository = FileSystemRepository(Path(folder) / "results")
        try:
            repository.save_raw(name, factories.raw(name))
            assert [record.experiment_id for record in repository.load_all_raw(name)] == [name]
            assert repository.delete_experiment(name)
        finally:
            assert sorted(path.name for path in Path(folder).iterdir()) == ["mine", "results"]
    return "saved"


def fuzz_folder(rng: random.Random) -> str:
    """Write files with any name and content, then check, merge, salvage, clean and aggregate. No result is hidden."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "results"
        (Path(folder) / "mine").write_bytes(b"mine")
        for _ in range(rng.randrange(1, 6)):
            parent = rng.choice(("raw/exp_7", "raw/exp_7", "raw/a_b", "raw", "aggregated", "tags", "raw/not an id"))
            name = rng.choice(NAMES) if rng.random() < 0.8 else mutate.text(rng, NAMES)
            name = re.sub("[/\0\ud800-\udfff]", "_", name)[:60].strip(".") or "x"
            seeds = rng.choice((raw_seeds(), aggregated_seeds(), manifest_seeds()))
            (base / parent).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(IsADirectoryError):
                (base / parent / name).write_bytes(
                    mutate.mutated(rng, seeds) if rng.random() < 0.7 else rng.choice(seeds)
                )
        repository, other = FileSystemRepository(base), FileSystemRepository(Path(folder) / "other")
        before = _seen(repository)
        merged = list(merge_results(other, repository))
        assert all(one.outcome == "copied" or one.reason for one in merged)
        torn = [finding.key for finding in check_store(repository) if finding.code == "raw.torn"]
        assert set(salvage.salvage_all(repository, torn)) == set(torn)
        remove_leftovers(repository, check_store(repository))
        assert _seen(repository) == before
        for outcome in aggregate_all(repository, strict=False):
            assert outcome.result != "aggregated" or repository.load_aggregated(outcome.experiment_id) is not None
        assert sorted(path.name for path in Path(folder).iterdir() if path.name != "other") == ["mine", "results"]
    return "read"


def _seen(repository: FileSystemRepository) -> object:
    experiments = repository.list_experiments()
    return (
        {name: repository.recover_raw(name) for name in experiments},
        {name: repository.read_aggregated(name) for name in repository.list_aggregated()},
    )


KINDS: dict[Callable[[random.Random], str], float] = {
    fuzz_raw: 30,
    fuzz_aggregated: 12,
    fuzz_manifest: 10,
    fuzz_salvage: 5,
    fuzz_id: 12,
    fuzz_path: 8,
    fuzz_name: 8,
    fuzz_csv: 6,
    fuzz_terminal: 8.5,
    fuzz_samples: 1,
    fuzz_import: 3,
    fuzz_store: 0.2,
    fuzz_folder: 0.3,
}


def run_case(seed: int, number: int) -> tuple[str, str]:
    """Return kind and outcome of one case. Any exception from this function is a bug."""
    rng = random.Random(f"{seed}/{number}")
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = kind(rng)
    except LLMEnergyMeasureError as refused:
        outcome = type(refused).__name__
        terminal.escape(refused).encode()
    return kind.__name__.removeprefix("fuzz_"), outcome


DECODERS: tuple[tuple[Callable[[bytes, str], object], Callable[[], list[bytes]], float], ...] = (
    (codec.decode_raw, raw_seeds, 6),
    (codec.decode_aggregated, aggregated_seeds, 1),
    (codec.decode_manifest, manifest_seeds, 2),
)


def escaped(data: bytes) -> bytes:
    """Return a JSON text with the same value, in which the first letter of a string is escaped."""
    return _FIRST_LETTER.sub(lambda match: b'"\\u00%02x' % match[1][0], data, count=1)


def compare_paths(seed: int, number: int) -> tuple[str, str]:
    """Decode a text on both paths: only in a text without a backslash, the decoders count the keys."""
    rng = random.Random(f"{seed}/paths/{number}")
    ((decode, seeds, _),) = rng.choices(DECODERS, [weight for _, _, weight in DECODERS])
    data = mutate.mutated(rng, seeds())
    changed = escaped(data)
    if b"\\" in data or changed == data:
        return decode.__name__, "has no fast path"
    outcomes: list[object] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in (data, changed):
            try:
                outcomes.append(decode(text, "exp_7/process_0.json"))
            except LLMEnergyMeasureError as refused:
                outcomes.append(type(refused).__name__)
    assert outcomes[0] == outcomes[1]
    return decode.__name__, outcomes[0] if isinstance(outcomes[0], str) else "decoded"


def _run(case: Callable[[int, int], tuple[str, str]], cases: int) -> Counter[tuple[str, str]]:
    """Run all cases, and count their outcomes."""
    counts: Counter[tuple[str, str]] = Counter()
    before = signal.signal(signal.SIGPROF, _too_slow)
    number = 0
    try:
        for number in range(cases):
            signal.setitimer(signal.ITIMER_PROF, LIMIT_SEC)
            counts[case(SEED, number)] += 1
    except BaseException as bug:
        bug.add_note(f"repeat the case with tests.fuzz.test_fuzz.{case.__name__}({SEED}, {number})")
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return counts


def _show(title: str, counts: Counter[tuple[str, str]], began: float) -> None:
    print(f"\n{title}: seed {SEED}, {counts.total()} cases in {time.monotonic() - began:.0f} s")  # noqa: T201 - output of `make fuzz`
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{count:>9} {kind}: {outcome}")  # noqa: T201 - as above


def _too_slow(*_: object) -> NoReturn:
    raise TooSlowError(f"more than {LIMIT_SEC} s of processor time")


def test_both_decoding_paths_agree() -> None:
    began = time.monotonic()
    counts = _run(compare_paths, PATH_CASES)
    _show("paths", counts, began)
    for decode, _, _ in DECODERS:
        assert counts[decode.__name__, "decoded"] > counts.total() / 200
        assert counts[decode.__name__, "ResultCorruptError"] > counts.total() / 200


def test_any_content_raises_only_our_own_errors() -> None:
    began = time.monotonic()
    counts = _run(run_case, CASES)
    _show("fuzz", counts, began)
    # Enough cases pass the first check of the decoder.
    for kind in ("raw", "aggregated", "manifest"):
        assert counts[kind, "decoded"] > counts.total() / 200

"""The dataset: three tables with one schema each, incremental writes, and SQL that reads only the tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet

from llm_energy_measure.catalogue.dataset import (
    SUMS,
    TABLES,
    changed_files,
    schemas,
    write_dataset,
)
from llm_energy_measure.catalogue.frames import to_arrow, to_pandas, to_polars
from llm_energy_measure.catalogue.index import Catalogue, query_catalogue
from llm_energy_measure.catalogue.sql import query_dataset
from llm_energy_measure.exceptions import (
    ConfigurationError,
    ExportError,
    MissingExtraError,
    ResultAlteredError,
    ResultCorruptError,
    UnsafePathError,
)
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.columns import AGGREGATED_COLUMNS, RAW_COLUMNS
from llm_energy_measure.results.store.tags import change_tags
from llm_energy_measure.storage.temporary import temporary_path
from tests.support import factories

if TYPE_CHECKING:
    from collections.abc import Callable


def saved(folder: Path) -> FileSystemRepository:
    """Save two experiments of January 2026, one of March, one with unknown start, one pending."""
    repository = FileSystemRepository(folder)
    march = factories.timestamps(factories.START.replace(month=3))
    for name, changes in (("a", {}), ("b", {"world_size": 3}), ("c", {"timestamps": march, "host": "node-1"})):
        for record in factories.raws(2, name, **changes):
            repository.save_raw(name, record)
    list(aggregate_all(repository, strict=False))
    change_tags(repository.store, "a", {"paper": "fig3"})
    repository.save_aggregated(factories.aggregated("d", start_time=None, total_energy_j=None))
    repository.save_raw("pending", factories.raw("pending"))
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> FileSystemRepository:
    return saved(tmp_path / "results")


def parts(folder: Path) -> dict[str, int]:
    """Return the inode of each Parquet file of a dataset. A file that was written again has another inode."""
    return {
        str(path.relative_to(folder)): path.stat().st_ino
        for path in sorted(folder.rglob("*.parquet"))
        if path.is_file()
    }


def read(folder: Path, table: str) -> pa.Table:
    return arrow_dataset.dataset(folder / table, partitioning="hive").to_table()


def test_write_dataset_writes_three_tables_by_month(repository: FileSystemRepository, tmp_path: Path) -> None:
    report = write_dataset(repository, tmp_path / "dataset")
    assert (report.written, report.unchanged, report.problems) == (["2026-01", "2026-03", "unknown"], [], [])
    months = ("2026-01", "2026-03", "unknown")
    assert set(parts(tmp_path / "dataset")) == {f"{t}/month={m}/part-0.parquet" for t in TABLES for m in months}
    rows = read(tmp_path / "dataset", "experiments").sort_by("experiment_id").to_pylist()
    assert [(row["experiment_id"], row["month"], row["total_energy_j"]) for row in rows] == [
        ("a", "2026-01", 4193.0), ("b", "2026-01", 4193.0), ("c", "2026-03", 4193.0), ("d", "unknown", None),
    ]  # fmt: skip
    assert (rows[0]["tags"], rows[0]["gpus"], rows[2]["hosts"]) == (
        *([("paper", "fig3")], ["NVIDIA A100-PCIE-40GB"], ["node-1"]),
    )
    assert [row["status"] for row in rows] == ["current", "current", "current", "external"]
    assert (rows[0]["start_time"], rows[1]["verdict"]) == (factories.START, "partial")
    processes = read(tmp_path / "dataset", "processes").to_pylist()
    assert len(processes) == 8
    assert {row["process_index"] for row in processes} == {0, 1}
    findings = read(tmp_path / "dataset", "findings").to_pylist()
    assert any(row["experiment_id"] == "b" and row["outcome"] == "failed" for row in findings)


def test_schema_contains_the_unit_of_each_column() -> None:
    made = schemas()
    for table, columns in (("experiments", AGGREGATED_COLUMNS), ("processes", RAW_COLUMNS)):
        for column in columns:
            assert (made[table].field(column.name).metadata or {}).get(b"unit", b"").decode() == column.unit


def test_all_files_of_a_table_have_the_same_schema_and_units(repository: FileSystemRepository, tmp_path: Path) -> None:
    write_dataset(repository, tmp_path / "dataset")
    types = query_catalogue(repository, lambda catalogue: catalogue.config_types())
    assert types
    for path in parts(tmp_path / "dataset"):
        found = parquet.read_schema(tmp_path / "dataset" / path)
        wanted = schemas(types)[path.split("/")[0]]
        assert found.remove_metadata() == wanted.remove_metadata()
        assert [found.field(name).metadata for name in found.names if (wanted.field(name).metadata)] == [
            wanted.field(name).metadata for name in wanted.names if wanted.field(name).metadata
        ]


def test_only_changed_months_are_written_again(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_dataset(repository, folder)
    before = parts(folder)
    assert write_dataset(repository, folder).written == []
    assert parts(folder) == before
    change_tags(repository.store, "c", {"x": "1"})
    assert write_dataset(repository, folder).written == ["2026-03"]
    changed = {path for path, inode in parts(folder).items() if before[path] != inode}
    assert changed == {path for path in before if "2026-03" in path}
    repository.save_raw("b", factories.raw("b", 2, world_size=3))
    list(aggregate_all(repository))
    report = write_dataset(repository, folder)
    assert (report.written, report.unchanged) == (["2026-01"], ["2026-03", "unknown"])
    repository.delete_experiment("d")
    assert write_dataset(repository, folder).removed == ["unknown"]
    assert not any("unknown" in path for path in parts(folder))
    (folder / "experiments" / "month=2026-01" / "part-0.parquet").write_bytes(b"PAR1")
    assert write_dataset(repository, folder).written == ["2026-01"]


def test_unreadable_experiment_is_reported_and_left_out(repository: FileSystemRepository, tmp_path: Path) -> None:
    (repository.base_path / "aggregated" / "b.json").write_bytes(b"{")
    report = write_dataset(repository, tmp_path / "dataset")
    [problem] = report.problems
    assert "b.json" in problem
    assert read(tmp_path / "dataset", "experiments").num_rows == 3
    with pytest.raises(ResultCorruptError):
        to_arrow(repository)
    assert write_dataset(repository, tmp_path / "dataset").problems == [problem], "reported until repaired"


@pytest.mark.parametrize("table", TABLES)
def test_deleted_file_is_written_again(repository: FileSystemRepository, tmp_path: Path, table: str) -> None:
    write_dataset(repository, tmp_path / "dataset")
    (tmp_path / "dataset" / table / "month=2026-03" / "part-0.parquet").unlink()
    assert write_dataset(repository, tmp_path / "dataset").written == ["2026-03"]
    assert read(tmp_path / "dataset", table).num_rows > 0


def rewrite_half(part: Path) -> None:
    """Halve the energies of a file as another program would, with the metadata of the file."""
    table = parquet.read_table(part)
    metadata = parquet.read_metadata(part).metadata or {}
    energies = pa.array([joules and joules / 2 for joules in table["total_energy_j"].to_pylist()], pa.float64())
    position = table.column_names.index("total_energy_j")
    table = table.set_column(position, table.schema.field(position), energies)
    parquet.write_table(table.replace_schema_metadata(metadata), part)


def test_file_that_another_program_changed_is_written_again(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_dataset(repository, folder)
    before = read(folder, "experiments").sort_by("experiment_id")
    rewrite_half(folder / "experiments" / "month=2026-03" / "part-0.parquet")
    assert read(folder, "experiments").sort_by("experiment_id") != before
    assert changed_files(folder) == ["experiments/month=2026-03/part-0.parquet"]
    assert write_dataset(repository, folder).written == ["2026-03"]
    assert read(folder, "experiments").sort_by("experiment_id") == before
    assert changed_files(folder) == []


def test_dataset_without_digests_is_written_again(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_dataset(repository, folder)
    (folder / SUMS).write_bytes(b"\xff not a digest\n")
    assert len(write_dataset(repository, folder).written) == 3
    assert write_dataset(repository, folder).written == []


def test_digests_have_the_format_of_sha256sum(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_dataset(repository, folder)
    lines = (folder / SUMS).read_text().splitlines()
    paths = sorted(folder.rglob("*.parquet"))
    assert lines == [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in paths]


def test_link_in_place_of_the_digests_is_replaced(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder, outside = tmp_path / "dataset", tmp_path / "outside"
    write_dataset(repository, folder)
    (folder / SUMS).rename(outside)
    before = outside.read_bytes()
    (folder / SUMS).symlink_to(outside)
    assert len(write_dataset(repository, folder).written) == 3
    assert not (folder / SUMS).is_symlink()
    assert outside.read_bytes() == before


def test_altered_experiment_has_a_row_without_figures(repository: FileSystemRepository, tmp_path: Path) -> None:
    path = repository.base_path / "aggregated" / "a.json"
    path.write_bytes(path.read_bytes().replace(b"4193.0", b"2096.5", 1))
    report = write_dataset(repository, tmp_path / "dataset")
    [problem] = report.problems
    assert "a.json: it is altered: another program changed its values" in problem
    [row] = [row for row in read(tmp_path / "dataset", "experiments").to_pylist() if row["experiment_id"] == "a"]
    assert (row["status"], row["verdict"], row["total_energy_j"]) == ("altered", "altered", None)
    assert row["tags"] == [("paper", "fig3")]
    for table in ("processes", "findings"):
        assert "a" not in read(tmp_path / "dataset", table)["experiment_id"].to_pylist()
    with pytest.raises(ResultAlteredError):
        to_arrow(repository)


def test_change_of_a_row_without_a_new_mtime_is_written(repository: FileSystemRepository, tmp_path: Path) -> None:
    folder, path = tmp_path / "dataset", repository.base_path / "aggregated" / "c.json"
    write_dataset(repository, folder)
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"4193.0", b"2096.5", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    query_catalogue(repository, Catalogue.pending, rehash=True)
    assert write_dataset(repository, folder).written == ["2026-03"]


def test_files_of_other_programs_are_not_removed(repository: FileSystemRepository, tmp_path: Path) -> None:
    theirs = tmp_path / "dataset" / "experiments" / "month=2020-01" / "part-0.parquet"
    theirs.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"a": [1]}), theirs)
    assert write_dataset(repository, tmp_path / "dataset").removed == []
    assert theirs.is_file()


def test_temporary_files_of_killed_exports_are_removed(repository: FileSystemRepository, tmp_path: Path) -> None:
    write_dataset(repository, tmp_path / "dataset")
    folder = tmp_path / "dataset" / "processes" / "month=2026-03"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    own = Path(temporary_path(str(folder / "part-0.parquet")))
    leftover = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    for path in (own, leftover):
        path.write_bytes(b"PAR1")
    write_dataset(repository, tmp_path / "dataset", rehash=True)
    assert sorted(folder.iterdir()) == sorted([own, folder / "part-0.parquet"]), "the file of a running process stays"


def test_unwritable_folder_raises_export_error(repository: FileSystemRepository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="cannot write the dataset"):
        write_dataset(repository, tmp_path / "file")


def test_integer_of_more_than_64_bits_is_null(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_aggregated(factories.aggregated("a", total_tokens=2**70))
    assert to_arrow(repository).column("total_tokens").to_pylist() == [None]


def test_arrow_polars_and_pandas_contain_the_records(repository: FileSystemRepository) -> None:
    table = to_arrow(repository, "processes")
    assert table.schema.field("total_energy_j").metadata == {b"unit": b"J"}
    wanted = [record.energy_metrics.total_energy_j for name in "abc" for record in repository.load_all_raw(name)]
    assert table.column("total_energy_j").to_pylist()[:6] == wanted
    frame = to_polars(repository)
    assert isinstance(frame, pl.DataFrame)
    assert frame["experiment_id"].to_list() == ["a", "b", "c", "d"]
    assert frame["total_energy_j"].to_list() == [4193.0, 4193.0, 4193.0, None]
    pandas = to_pandas(repository)
    assert isinstance(pandas, pd.DataFrame)
    assert pandas["total_tokens"].tolist()[:3] == [16484] * 3
    assert to_arrow(FileSystemRepository("nowhere"), "findings").num_rows == 0
    with pytest.raises(ConfigurationError, match="there is no table 'colours'"):
        to_arrow(repository, "colours")


# Links, pipes and files of other programs below the folder


def link_file(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "experiments" / "month=2026-01" / "part-0.parquet")


def link_month(path: Path, outside: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.symlink_to(outside / "experiments" / "month=2026-01", target_is_directory=True)


def link_table(path: Path, outside: Path) -> None:
    shutil.rmtree(path.parent.parent)
    path.parent.parent.symlink_to(outside / "experiments", target_is_directory=True)


def pipe(path: Path, _outside: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("place", [link_file, link_month, link_table, pipe])
@pytest.mark.parametrize("month", ["2026-01", "2020-01"])
def test_no_file_outside_the_dataset_is_changed_or_read(
    repository: FileSystemRepository, tmp_path: Path, place: Callable[[Path, Path], None], month: str
) -> None:
    folder, outside = tmp_path / "dataset", tmp_path / "outside"
    for target in (folder, outside):
        write_dataset(repository, target)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in outside.rglob("*.parquet")}
    part = folder / "experiments" / f"month={month}" / "part-0.parquet"
    part.parent.mkdir(exist_ok=True)
    place(part, outside)

    for call in (lambda: write_dataset(repository, folder), lambda: query_dataset(folder, "select 1")):
        with pytest.raises(
            UnsafePathError, match="experiments.*: it is a (symbolic link|pipe), not a f.*; move it away"
        ):
            call()
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in outside.rglob("*.parquet")} == before


def test_file_of_another_program_is_not_replaced(repository: FileSystemRepository, tmp_path: Path) -> None:
    part = tmp_path / "dataset" / "findings" / "month=2026-01" / "part-0.parquet"
    part.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"a": [1]}), part)
    for content in (part.read_bytes(), b"text of another program"):
        part.write_bytes(content)
        with pytest.raises(UnsafePathError, match="another program wrote it; move it away"):
            write_dataset(repository, tmp_path / "dataset")
        assert part.read_bytes() == content
    assert [path for path in (tmp_path / "dataset").rglob("*") if path.is_file()] == [part]


# SQL


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset that no test changes: queries only read."""
    folder = tmp_path_factory.mktemp("queried")
    write_dataset(saved(folder / "results"), folder / "dataset")
    return folder / "dataset"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("select count(*) as n from experiments", [{"n": 4}]),
        ("select month, sum(total_energy_j) as j from experiments group by 1 order by 1 limit 1",
         [{"month": "2026-01", "j": 8386.0}]),
        ("select count(*) as n from processes join experiments using (experiment_id) where 'node-1' in hosts",
         [{"n": 2}]),
        ("select tags['paper'] as p from experiments where experiment_id = 'a'", [{"p": "fig3"}]),
        ("with x as (select 1 as one) select * from x;", [{"one": 1}]),
        ("select count(*) > 0 as some from findings where outcome = 'failed'", [{"some": True}]),
    ],
)  # fmt: skip
def test_query_reads_the_tables(dataset: Path, query: str, wanted: list[dict[str, object]]) -> None:
    assert query_dataset(dataset, query).to_pylist() == wanted


@pytest.mark.parametrize(
    "query",
    [
        "",
        "nonsense",
        "select * from nowhere",
        "select 1; select 2",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_blob('/etc/passwd')",
        "select * from read_parquet('{dataset}/experiments/month=2026-01/part-0.parquet')",
        "select * from glob('/*')",
        "copy experiments to '{dataset}/out.csv'",
        "create table t as select 1",
        "attach '{dataset}/other.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "export database '{dataset}/out'",
        "delete from experiments",
        "drop view experiments",
        "pragma database_list",
        "call pragma_version()",
    ],
)
def test_query_cannot_write_or_read_anything_else(dataset: Path, query: str) -> None:
    before = parts(dataset)
    with pytest.raises(ConfigurationError, match="cannot run the query: "):
        query_dataset(dataset, query.format(dataset=dataset))
    assert parts(dataset) == before


def test_query_result_does_not_depend_on_the_time_zone(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        query = "select date_trunc('day', start_time) as day from experiments where start_time < '2026-01-17' limit 1"
        [row] = query_dataset(dataset, query).to_pylist()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert row["day"] == datetime(2026, 1, 16, tzinfo=UTC)


def test_query_leaves_no_file_in_the_working_directory(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    [row] = query_dataset(dataset, "select current_setting('temp_directory') as folder").to_pylist()
    assert not row["folder"]
    assert list((tmp_path / "work").iterdir()) == []


def test_query_cannot_read_python_variables(dataset: Path) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(ConfigurationError, match="secret"):
        query_dataset(dataset, "select * from secret")
    assert secret.num_rows == 1


def test_empty_dataset_has_the_columns(tmp_path: Path) -> None:
    write_dataset(FileSystemRepository(tmp_path / "results"), tmp_path / "dataset")
    answer = query_dataset(tmp_path / "dataset", "select total_energy_j, month from experiments")
    assert (answer.num_rows, answer.column_names) == (0, ["total_energy_j", "month"])


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("pyarrow", write_dataset),
        ("pyarrow", lambda repository, _: to_arrow(repository, "findings")),
        ("polars", lambda repository, _: to_polars(repository)),
        ("pandas", lambda repository, _: to_pandas(repository)),
        ("duckdb", lambda _, folder: query_dataset(folder, "select 1")),
    ],
    ids=["dataset", "arrow", "polars", "pandas", "sql"],
)
def test_missing_library_is_named(
    repository: FileSystemRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    call: Callable[[FileSystemRepository, Path], object],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=f"{missing} is not installed; pip install"):
        call(repository, tmp_path / "dataset")

"""`importers.read`: limits, files that change, links, unknown files, folders."""

from __future__ import annotations

import gzip
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure import importers
from llm_energy_measure.exceptions import ImportFormatError, ResultNotFoundError
from llm_energy_measure.importers import codecarbon
from llm_energy_measure.importers.format import Format, Options
from llm_energy_measure.importers.json_text import parse_json
from llm_energy_measure.importers.limits import MAX_BYTES, MAX_FILES
from llm_energy_measure.importers.registry import FORMATS
from llm_energy_measure.importers.report import RefusedInputError
from tests.support import peers
from tests.support.imports import codes, read_all
from tests.support.peers import LATEST, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.importers.source_file import ImportSource


def write_emissions(path: Path, rows: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(LATEST), *(line(run_id=f"{path.stem}-{row}") for row in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_emissions(tmp_path / "emissions.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultNotFoundError, match="cannot import '': the path is empty; name a file or a folder"):
        importers.read("")
    assert len(list(importers.read("."))) == 1


def read(path: Path, **options: Any) -> tuple[int, list[importers.Entry]]:
    """Return the number of records, and the entries."""
    records, entries = read_all(path, **options)
    return len(records), entries


def test_report_counts_its_entries_and_rejects_unknown_codes(tmp_path: Path) -> None:
    report = importers.ImportReport()
    report.refuse("x", "torn", "it is torn", row=3)
    assert report.document() == {
        "seen": 1,
        "kept": 0,
        "repaired": 0,
        "refused": 1,
        "entries": [
            {
                "file": "x",
                "row": 3,
                "outcome": "refused",
                "code": "torn",
                "message": "it is torn",
                "experiment_id": None,
            }
        ],
    }
    assert (report.kept, report.repaired, report.refused) == (0, 0, 1)
    with pytest.raises(KeyError, match="unknown reason code"):
        report.refuse("x", "nonsense", "")
    assert tmp_path.is_dir()


def test_file_of_two_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_emissions(tmp_path / "emissions.csv")
    os.truncate(path, 2 * 2**30)
    count, [entry] = read(path)
    assert (count, entry.code) == (0, "too_large")
    assert f"it has {2 * 2**30} bytes, and the limit is {2**30}; raise --max-file-size" in entry.message


def test_file_that_is_read_as_a_whole_has_a_lower_limit(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{\n"date": 1}')
    os.truncate(path, MAX_BYTES + 1)
    count, [entry] = read(path)
    assert (count, entry.code) == (0, "too_large")
    assert f"read as a whole, up to {MAX_BYTES // 2**20} MiB" in entry.message


def test_limit_of_a_power_log_is_the_maximum_file_size(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    rows = [f"{1_770_000_000 + row},0,100" for row in range(1000)]
    path.write_text("\n".join(["timestamp,index,power.draw [W]", *rows, ""]))
    os.truncate(path, MAX_BYTES + 1)  # the zeros are one row that is left out
    assert [entry.code for entry in read(path)[1]] == ["damaged_cells"]
    assert [entry.code for entry in read(path, max_bytes=MAX_BYTES)[1]] == ["too_large"]


@pytest.mark.parametrize("how", ["grows", "shrinks", "is replaced", "is rewritten"])
def test_long_log_that_changes_during_the_read_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "power.csv"
    rows = [f"{1_770_000_000 + row},0,100.25,{'x' * 500}" for row in range(6000)]
    content = "\n".join(["timestamp,index,power_w,name", *rows]).encode()
    path.write_bytes(content)

    def change(of: Path, size: int) -> None:
        if size < 2**20 + 1:
            return
        if how == "is replaced":
            (tmp_path / "other").write_bytes(content)
            (tmp_path / "other").replace(of)
        else:
            changed = {
                "grows": content + content,
                "shrinks": content[:100],
                "is rewritten": content.replace(b"2", b"3"),
            }
            of.write_bytes(changed[how])

    count, [entry] = read(path, progress=change)
    assert (count, entry.outcome, entry.code) == (0, "refused", "changed_while_read")
    path.write_bytes(content)
    assert read(path)[0] == 1


@pytest.mark.parametrize("how", ["grows", "shrinks", "is replaced", "is rewritten"])
def test_file_that_changes_during_the_read_is_refused(tmp_path: Path, how: str) -> None:
    path = write_emissions(tmp_path / "emissions.csv")
    content = path.read_bytes()

    def change(of: Path, _size: int) -> None:
        if how == "grows":
            of.write_bytes(content + content)
        elif how == "shrinks":
            of.write_bytes(content[:100])
        elif how == "is rewritten":
            of.write_bytes(content.replace(b"llama", b"mistr"))
        else:
            other = tmp_path / "other"
            other.write_bytes(content)
            other.replace(of)

    count, [entry] = read(path, progress=change)
    assert (count, entry.outcome, entry.code) == (0, "refused", "changed_while_read")
    path.write_bytes(content)
    assert read(path)[0] == 1


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("emissions.csv", b"0" * 10**7)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (zip_bomb, "a ZIP archive"),
        (lambda path: path.write_bytes(gzip.compress(b"0" * 10**7)), "gzip-compressed data"),
        (lambda path: path.write_bytes(b"a,b\n1,2\n"), "a table with the columns a, b"),
        (lambda path: path.write_bytes(b'{"a": 1, "b": 2}'), "a JSON object with the fields a, b"),
        (lambda path: path.write_bytes(b'{"a": 1, "b'), "JSON that is not an object, or is incomplete"),
        (lambda path: path.write_bytes(b"[" * 10**5), "JSON that is not an object, or is incomplete"),
        (lambda path: path.write_bytes(b'{"a":' * 10**5), "JSON that is not an object, or is incomplete"),
        (lambda path: path.write_bytes(bytes(range(128, 256))), "128 bytes that are neither JSON nor a table"),
        (lambda path: path.write_bytes(b"x" * 10**6), "1000000 bytes that are neither JSON nor a table"),
    ],
)
def test_unknown_file_names_its_content_and_the_formats(
    tmp_path: Path, write: Callable[[Path], object], found: str
) -> None:
    path = tmp_path / "emissions.csv"
    write(path)
    with pytest.raises(ImportFormatError) as raised:
        importers.read(path)
    assert (raised.value.doing, raised.value.file, raised.value.tool) == (f"cannot import {path}", path, None)
    count, [entry] = read(tmp_path)
    assert (count, entry.code, entry.message) == (0, "unknown_format", raised.value.found)
    assert found in entry.message
    for form in FORMATS:
        assert form.needs_mapping or form.name in entry.message
    assert len(entry.message) < 500
    with pytest.raises(ImportFormatError, match="zeus needs a CSV header start_time,window_name"):
        importers.read(path, format="zeus")


@pytest.mark.parametrize(
    ("content", "line"),
    [(b'{"a": 1,\n\n"b', 3), (b"[1,\n2", 2), (b'{"a": 1}', None), (b"a,b\n", None), (b"[" * 10**5, None)],
)
def test_error_about_damaged_json_has_its_line(tmp_path: Path, content: bytes, line: int | None) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ImportFormatError) as raised:
        importers.read(tmp_path / "x")
    assert raised.value.line == line


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 4096])
def test_file_without_content_is_refused_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for path in (tmp_path / "x", tmp_path):
        count, [entry] = read(path)
        assert (count, entry.code, entry.file) == (0, "empty_file", str(tmp_path / "x"))


def test_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / ".hidden").touch()
    count, [entry] = read(tmp_path)
    assert (count, entry.code, entry.file) == (0, "no_measurement", str(tmp_path))
    assert entry.message == "the folder has no files"


def test_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    write_emissions(tmp_path / "a" / "emissions.csv", 2)
    write_emissions(tmp_path / "a" / "b" / "more.txt", 3)
    peers.write_json(tmp_path / "c" / "result.json", peers.vllm_result())
    (tmp_path / "c" / "notes.md").write_text("notes")
    (tmp_path / ".hidden").write_text("hidden")
    count, entries = read(tmp_path)
    assert count == 6
    assert [entry.code for entry in entries if entry.outcome == "refused"] == ["unknown_format"]


def test_files_of_a_folder_are_read_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_emissions(tmp_path / name / "emissions.csv")
    assert read(tmp_path)[1] == read(tmp_path)[1]
    assert [entry.file for entry in read(tmp_path)[1]] == [str(tmp_path / name / "emissions.csv") for name in "abc"]


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    outside = write_emissions(tmp_path / "outside" / "emissions.csv")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    (folder / "folder").symlink_to(outside.parent)
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    count, entries = read(folder)
    assert count == 0
    assert sorted((entry.file.rpartition("/")[2], entry.code) for entry in entries) == [
        ("file", "not_a_file"),
        ("pipe", "not_a_file"),
    ]
    assert read(folder / "file")[0] == 1  # the caller named this link


def test_folder_that_exceeds_the_limit_of_files_is_reported(tmp_path: Path) -> None:
    assert MAX_FILES == 100_000
    for number in range(3):
        write_emissions(tmp_path / "a" / f"{number}.csv")
    write_emissions(tmp_path / "b" / "3.csv")
    count, entries = read(tmp_path, max_files=3)
    assert count == 3
    assert [(entry.code, entry.file) for entry in entries[3:]] == [("too_many", str(tmp_path / "b"))]


def test_folder_that_cannot_be_listed_is_reported(tmp_path: Path) -> None:
    write_emissions(tmp_path / "a" / "emissions.csv")

    def vanish(of: Path, _size: int) -> None:
        if (tmp_path / "b").exists():
            (tmp_path / "b").rmdir()
            (tmp_path / "b").write_bytes(b"no folder")
        assert of.name == "emissions.csv"

    (tmp_path / "b").mkdir()
    count, entries = read(tmp_path, progress=vanish)
    assert count == 1
    assert [(entry.file, entry.code) for entry in entries[1:]] == [(str(tmp_path / "b"), "unreadable")]


def test_bug_of_an_importer_costs_only_its_file(tmp_path: Path) -> None:
    write_emissions(tmp_path / "b.csv")
    (tmp_path / "a").write_text("break")
    (tmp_path / "c").write_text("break while it is recognised")

    def recognises(source: ImportSource) -> bool:
        if source.data == b"break while it is recognised":
            raise ArithmeticError
        return True

    def breaks(
        sources: list[ImportSource], options: Options, report: importers.ImportReport
    ) -> Iterator[RawProcessResult]:
        if sources[0].data == b"break":
            raise OverflowError("too large")
        yield from codecarbon.FORMAT.read(sources, options, report)

    form = Format(name="mine", looks_for="anything", recognises=recognises, read=breaks)
    count, entries = read(tmp_path, format=form)
    assert (count, codes(entries)) == (1, ["broke_off", "whole", "broke_off"])
    assert "OverflowError: too large" in entries[0].message


def test_progress_is_called_for_each_file(tmp_path: Path) -> None:
    paths = [write_emissions(tmp_path / f"{number}.csv") for number in range(3)]
    calls: list[tuple[Path, int]] = []
    list(importers.read(tmp_path, progress=lambda path, size: calls.append((path, size))))
    assert calls == [(path, path.stat().st_size) for path in paths]


def test_named_format_is_the_only_one_tried(tmp_path: Path) -> None:
    path = write_emissions(tmp_path / "emissions.csv")
    assert read(path, format="codecarbon")[0] == 1
    count, [entry] = read(tmp_path, format="zeus")
    assert (count, entry.code) == (0, "unknown_format")
    with pytest.raises(ImportFormatError, match="zeus needs a CSV header") as raised:
        importers.read(path, format="zeus")
    assert raised.value.tool == "zeus"
    with pytest.raises(ImportFormatError, match=r"unknown format 'nonsense'; use one of auto, legacy, older-record"):
        importers.read(path, format="nonsense")


def test_invalid_argument_is_an_error_before_the_first_read(tmp_path: Path) -> None:
    path = write_emissions(tmp_path / "emissions.csv")
    for options in ({"format": "nonsense"}, {"mapping": ["energy_j"]}, {"mapping": ["joules=a"]}):
        with pytest.raises(ImportFormatError):
            importers.read(path, **options, progress=lambda *_: pytest.fail("it was read"))


@pytest.mark.parametrize(
    ("content", "mapping"),
    [
        (",".join(LATEST) + "\n", []),
        ("start_time,window_name,elapsed_time,gpu0_energy\n\n", []),
        ('{"model_id": "m", "task": "t", "configurations": []}', []),
        ("j,k\n", ["energy_j=j"]),
    ],
)
def test_file_without_a_row_is_reported(tmp_path: Path, content: str, mapping: list[str]) -> None:
    (tmp_path / "file").write_text(content)
    count, [entry] = read(tmp_path / "file", mapping=mapping)
    assert (count, entry.outcome, entry.code, entry.row) == (0, "refused", "no_measurement", None)


def test_part_that_changes_before_its_second_read_is_refused(tmp_path: Path) -> None:
    peers.write_json(tmp_path / "a_codecarbon.json", peers.codecarbon_task())
    peers.write_json(tmp_path / "b_codecarbon.json", peers.codecarbon_task())

    def change(of: Path, _size: int) -> None:
        if of.name == "b_codecarbon.json":
            (tmp_path / "a_codecarbon.json").write_text('{"another": 1}')

    _, entries = read(tmp_path, progress=change)
    assert codes(entries) == ["changed_while_read", "incomplete_run"]


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_path_that_the_system_refuses_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    count, [entry] = read(tmp_path / name)
    assert (count, entry.code) == (0, "unreadable")


def test_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultNotFoundError, match="the path does not exist"):
        importers.read(tmp_path / "nowhere")


def test_public_names_are_stable() -> None:
    assert importers.__all__ == sorted(importers.__all__)
    assert set(importers.__all__) == {"CODES", "Entry", "ImportReport", "ImportedRecords", "format_names", "read"}
    for form in FORMATS:
        assert form.name in importers.format_names()


@pytest.mark.parametrize(("old", "new"), [("LossReport", "ImportReport"), ("Reading", "ImportedRecords")])
def test_old_name_works_with_a_warning(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"importers.{old} is now {new}; use the new name"):
        assert getattr(importers, old) is getattr(importers, new)


def test_package_can_be_imported_without_extras() -> None:
    import subprocess
    import sys

    code = "import sys, llm_energy_measure.importers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"h5py", "pyarrow", "numpy", "pandas"} & set(done.stdout.split()) == set()


def test_each_reason_code_is_used() -> None:
    from pathlib import Path

    source = Path(importers.__file__).parent
    text = "".join(path.read_text() for path in source.glob("*.py") if path.name != "report.py")
    text += "".join(path.read_text() for path in (source.parent / "cli").glob("import_*.py"))
    assert [code for code in importers.CODES if f'"{code}"' not in text and code != "whole"] == []


def test_message_names_missing_package(tmp_path: Path) -> None:
    import subprocess
    import sys

    peers.write_perun_hdf5(tmp_path / "app.hdf5", peers.perun_tree({}))
    (tmp_path / "table").write_bytes(b"PAR1")
    code = (
        "import sys; sys.modules['h5py'] = sys.modules['pyarrow'] = None\n"
        "from llm_energy_measure import importers\n"
        "for name in ('app.hdf5', 'table'):\n"
        "    reading = importers.read(name, mapping=['energy_j=j'] if name == 'table' else [])\n"
        "    print(list(reading), [(entry.code, entry.message) for entry in reading.report.entries])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("missing_extra") == 2
    assert "pip install h5py" in done.stdout
    assert "pip install pyarrow" in done.stdout


def test_json_of_many_values_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RefusedInputError, match="the file has too many values .* values need .* MB of memory"):
        parse_json(b"[" + b"{}," * 8_000_000 + b"{}]", "the file")

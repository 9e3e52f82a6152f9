"""The ZIP writer gives canonical bytes that other programs read. The reader refuses all other archives."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.bundle.name_table import NameTable, scratch_database
from llm_energy_measure.bundle.names import order_key
from llm_energy_measure.bundle.outcomes import CODES
from llm_energy_measure.bundle.sources import StoredFile, lines, read
from llm_energy_measure.bundle.zip_reader import ZipSource
from llm_energy_measure.bundle.zip_records import ZipEntry, central_header, end_records, local_header
from llm_energy_measure.bundle.zip_writer import ZipWriter
from llm_energy_measure.exceptions import BundleError, ResultNotFoundError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.from_regex(r"[a-z0-9_]{1,6}(/[a-z0-9_]{1,6}){0,2}", fullmatch=True)


def written(files: dict[str, bytes], **options: int) -> bytes:
    buffer = io.BytesIO()
    with closing(ZipWriter(buffer, **options)) as writer:
        for name in sorted(files, key=order_key):
            writer.add(name, files[name])
        writer.finish()
    return buffer.getvalue()


def code_of(path: Path, data: bytes | None = None, **options: int) -> str:
    """Code of the reason why an archive is refused."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BundleError) as refused:
        ZipSource(path, **options)
    assert refused.value.code in CODES
    return refused.value.code


@given(
    files=st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=8),
    limit=st.sampled_from([50, 2**32 - 1]),
)
def test_archive_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], limit: int
) -> None:
    try:
        with scratch_database() as database:
            table = NameTable(database)
            for name in files:
                table.add(name)
    except BundleError:
        return
    data = written(files, limit=limit)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    path.write_bytes(data)
    with closing(ZipSource(path, limit=limit)) as source:
        assert {file.name: read(file) for file in source.files()} == files
    assert written(dict(reversed(files.items())), limit=limit) == data


def test_archive_of_70000_entries_uses_zip64(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(written({f"data/raw/e/{number}": b"x" for number in range(70_000)}))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 70_000
    with closing(ZipSource(path)) as source:
        found = [(file.name, read(file)) for file in source.files()]
    assert len(found) == 70_000
    assert found[-1] == ("data/raw/e/9999", b"x")


def test_headers_of_a_file_of_5_gib_are_those_of_zip64() -> None:
    entry = ZipEntry("data/a", 5 << 30, 1, 6 << 30)
    assert struct.unpack_from("<HHQQ", local_header(entry), 30 + 6) == (1, 16, 5 << 30, 5 << 30)
    assert struct.unpack_from("<HHQQQ", central_header(entry), 46 + 6) == (1, 24, 5 << 30, 5 << 30, 6 << 30)
    assert end_records(1, 100, 11 << 30).startswith(b"PK\x06\x06")


def test_writer_refuses_names_out_of_order() -> None:
    with closing(ZipWriter(io.BytesIO())) as writer:
        writer.add("data/b", b"")
        with pytest.raises(ValueError, match="'data/a' is not after 'data/b' in the canonical order"):
            writer.add("data/a", b"")
        with pytest.raises(BundleError, match="name.parent"):
            writer.add("../c", b"")


def made(
    *entries: tuple[str, bytes],
    method: int = zipfile.ZIP_STORED,
    mode: int = 0o100644,
    date: tuple[int, int, int, int, int, int] = (1980, 1, 1, 0, 0, 0),
) -> bytes:
    """Return an archive that the standard library writes, which accepts any name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, date)
            info.external_attr = mode << 16
            info.compress_type = method
            info.orig_filename = info.filename = name
            archive.writestr(info, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../evil", "name.parent"),
        ("data/../../evil", "name.parent"),
        ("data//evil", "name.parent"),
        ("data/./evil", "name.parent"),
        ("data/", "name.parent"),
        ("data\\..\\evil", "name.parent"),
        ("/etc/passwd", "name.absolute"),
        ("\\evil", "name.absolute"),
        ("C:/evil", "name.absolute"),
        ("c:evil", "name.absolute"),
        ("data/CON", "name.windows"),
        ("data/aux.json", "name.windows"),
        ("data/lpt1", "name.windows"),
        ("data/evil.", "name.windows"),
        ("data/evil ", "name.windows"),
        ("data/a:b", "name.character"),
        ("data/a b", "name.character"),
        ("data/a\\b", "name.character"),
        ("data/a\nb", "name.character"),
        ("data/\u00e9vil", "name.character"),
        ("data/%2e%2e", "name.character"),
    ],
)
def test_unsafe_name_is_refused_by_its_code(tmp_path: Path, name: str, code: str) -> None:
    assert code_of(tmp_path / "a.zip", made((name, b"x"))) == code


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("data/a", "data/a"), "name.duplicate"),
        (("data/a", "data/A"), "name.case"),
        (("data/a/x", "data/A/y"), "name.case"),
        (("data/a", "data/a/b"), "name.folder"),
        (("data/a/b", "data/a"), "name.folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_colliding_names_are_refused(tmp_path: Path, names: tuple[str, str], code: str) -> None:
    assert code_of(tmp_path / "a.zip", made(*((name, b"x") for name in names))) == code


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    assert code_of(tmp_path / "a.zip", made(("data/a", b"/etc/passwd"), mode=kind | 0o777)) == "zip.link"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_bomb_is_refused_before_reading(tmp_path: Path, method: int) -> None:
    data = made(("data/bomb", bytes(20_000_000)), method=method)
    assert len(data) < 100_000
    assert code_of(tmp_path / "a.zip", data) == "zip.compressed"


def test_encrypted_entry_is_refused(tmp_path: Path) -> None:
    data = bytearray(written({"data/a": b"x"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert code_of(tmp_path / "a.zip", bytes(data)) == "zip.compressed"


def assembled(entries: list[tuple[ZipEntry, bytes]], *, between: bytes = b"", at_end: bytes = b"") -> bytes:
    """Return an archive of entries whose offsets may be wrong."""
    body = b"".join(local_header(entry) + data + between for entry, data in entries) + at_end
    directory = b"".join(central_header(entry) for entry, _ in entries)
    return body + directory + end_records(len(entries), len(directory), len(body))


def entry(name: str, data: bytes, offset: int) -> ZipEntry:
    return ZipEntry(name, len(data), zlib.crc32(data), offset)


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """A bomb of overlapping entries expands without compression (Fifield, "A better zip bomb", 2019)."""
    kernel = b"x" * 1000
    shared = [(entry(f"data/{number}", kernel, 0), b"") for number in range(100)]
    body = local_header(shared[0][0]) + kernel
    directory = b"".join(central_header(one) for one, _ in shared)
    data = body + directory + end_records(len(shared), len(directory), len(body))
    assert code_of(tmp_path / "a.zip", data) == "zip.overlap"


def test_entry_that_reaches_into_the_directory_is_refused(tmp_path: Path) -> None:
    large = ZipEntry("data/a", 10_000_000_000, 0, 0)
    assert code_of(tmp_path / "a.zip", assembled([(large, b"x" * 10)])) == "zip.overlap"


def test_bytes_outside_of_entries_are_refused(tmp_path: Path) -> None:
    data = b"x" * 10
    first = entry("data/a", data, 0)
    size = len(local_header(first)) + len(data)
    second = entry("data/b", data, size + 4)
    path = tmp_path / "a.zip"
    assert code_of(path, assembled([(first, data), (second, data)], between=b"evil")) == "zip.gap"
    assert code_of(path, assembled([(first, data)], at_end=b"evil")) == "zip.gap"
    assert code_of(path, assembled([(entry("data/a", data, 4), data)])) in ("zip.gap", "zip.overlap")
    archive = written({"data/a": data})
    end = archive.index(b"PK\x05\x06")
    assert code_of(path, archive[:end] + b"evil" + archive[end:]) == "zip.gap"


def test_archive_with_a_comment_or_other_bytes_is_refused(tmp_path: Path) -> None:
    archive = written({"data/a": b"x"})
    for data in (archive + b"x", archive[:-2] + struct.pack("<H", 5) + b"hello", b"", b"PK", b"x" * 100, archive[:-1]):
        assert code_of(tmp_path / "a.zip", data) == "zip.damaged"


def test_other_order_is_refused(tmp_path: Path) -> None:
    first, second = entry("data/b", b"x", 0), entry("data/a", b"x", 0)
    second = second._replace(offset=len(local_header(first)) + 1)
    assert code_of(tmp_path / "a.zip", assembled([(first, b"x"), (second, b"x")])) == "zip.order"


def test_other_order_of_the_contents_is_refused(tmp_path: Path) -> None:
    """The central directory is in the canonical order, but the entries before it are not."""
    first, second = entry("data/b", b"x", 0), entry("data/a", b"y", 0)
    second = second._replace(offset=len(local_header(first)) + 1)
    body = local_header(first) + b"x" + local_header(second) + b"y"
    directory = central_header(second) + central_header(first)
    assert code_of(tmp_path / "a.zip", body + directory + end_records(2, len(directory), len(body))) == "zip.gap"


def test_other_time_or_permission_of_an_entry_is_refused(tmp_path: Path) -> None:
    """The standard library writes canonical bytes, if time and permissions are those of a bundle."""
    files = {"data/a": b"x", "data/b": b"y"}
    assert made(*files.items()) == written(files)
    assert code_of(tmp_path / "a.zip", made(*files.items(), mode=0o100755)) == "zip.form"
    assert code_of(tmp_path / "a.zip", made(*files.items(), date=(2026, 1, 16, 0, 0, 0))) == "zip.form"


def test_content_with_another_crc_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(written({"data/a": b"12345"}).replace(b"12345", b"12346"))
    with closing(ZipSource(path)) as source, pytest.raises(BundleError, match="CRC-32") as refused:
        read(source.others["data/a"])
    assert refused.value.code == "file.changed"


@pytest.mark.parametrize("parts", [[b"123456\n"], [b"1\n123456\n1\n"], [b"1234", b"56\n"]])
def test_line_above_the_limit_is_refused_in_any_part(parts: list[bytes]) -> None:
    with pytest.raises(BundleError, match="a line has more than 5 bytes"):
        list(lines(StoredFile("data/a", 0, lambda: iter(parts)), 5))
    assert list(lines(StoredFile("data/a", 0, lambda: iter(parts)), 6))[-1] in (b"123456", b"1")


def test_local_header_that_differs_is_refused(tmp_path: Path) -> None:
    data = bytearray(written({"data/a": b"x"}))
    data[10] ^= 1  # the time
    assert code_of(tmp_path / "a.zip", bytes(data)) == "zip.form"


def test_reader_names_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(ResultNotFoundError, match="no.zip: the file was not found"):
        ZipSource(tmp_path / "no.zip")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="not a regular file"):
        ZipSource(tmp_path / "pipe")

"""`ContainedFolder` opens regular files only, and follows no link at any level."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_energy_measure.exceptions import UnsafePathError
from llm_energy_measure.storage.contained import ContainedFolder, remove_tree, unusual_type


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a subfolder, and a link, a pipe and a socket-like name for each."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    (folder / "link").symlink_to(tmp_path / "outside" / "secret")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [("link", "a symbolic link"), ("dangling", "a symbolic link"), ("pipe", "a pipe"), ("real", "a folder")],
)
def test_open_refuses_everything_but_regular_files(folder: Path, name: str, found: str) -> None:
    with ContainedFolder(folder) as opened, pytest.raises(UnsafePathError, match=f"{name}: it is {found}, not a file"):
        opened.open(name)


@pytest.mark.parametrize("name", ["linked", "pipe", "file"])
@pytest.mark.parametrize("create", [False, True])
def test_subfolder_refuses_everything_but_folders(folder: Path, name: str, *, create: bool) -> None:
    with ContainedFolder(folder) as opened, pytest.raises(UnsafePathError, match=f"{name}: it is .*, not a folder"):
        opened.subfolder(name, create=create)


def test_absent_names_raise_file_not_found(folder: Path) -> None:
    with ContainedFolder(folder) as opened:
        for call in (opened.open, opened.subfolder):
            with pytest.raises(FileNotFoundError):
                call("absent")
    with pytest.raises(FileNotFoundError):
        ContainedFolder(folder / "absent")


def test_publish_replaces_a_link_and_not_its_target(folder: Path) -> None:
    with ContainedFolder(folder) as opened:
        temp, file = opened.create_temporary("link")
        with file:
            file.write(b"new")
        opened.publish(temp, "link")
        with opened.open("link") as read:
            assert read.read() == b"new"
    assert (folder.parent / "outside" / "secret").read_bytes() == b"secret"


def test_files_of_a_moved_folder_are_still_found(folder: Path) -> None:
    with ContainedFolder(folder) as opened, opened.subfolder("new", create=True) as new:
        (folder / "new").rename(folder / "moved")
        (folder / "new").symlink_to(folder.parent / "outside", target_is_directory=True)
        new.create_temporary("file")[1].close()
        assert [name.split("~")[0] for name in new.names()] == [".file"]
    assert [path.name for path in (folder.parent / "outside").iterdir()] == ["secret"]


def test_unusual_type_names_what_is_unsafe(folder: Path) -> None:
    (folder / "second").hardlink_to(folder / "file")
    assert unusual_type(folder / "file") == "a file with 2 hard links"
    assert unusual_type(folder / "pipe") == "a pipe"
    assert unusual_type(folder / "link") == "a symbolic link"
    (folder / "second").unlink()
    assert unusual_type(folder / "file") is None
    assert unusual_type(folder / "absent") is None


def test_remove_tree_removes_any_depth_and_follows_no_link(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder / "real")
    try:
        for _ in range(2_000):
            Path("deep").mkdir()
            Path("file").write_bytes(b"")
            os.chdir("deep")
    finally:
        os.chdir(here)
    (folder / "real" / "deep").chmod(0o500)
    (folder / "real" / "linked").symlink_to(folder.parent / "outside", target_is_directory=True)
    remove_tree(str(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["outside"]
    assert (folder.parent / "outside" / "secret").read_bytes() == b"secret"

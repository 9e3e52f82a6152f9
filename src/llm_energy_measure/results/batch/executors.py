"""Executors on other machines: connect to a Dask scheduler, and check its workers before work starts."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_energy_measure._version import __version__
from llm_energy_measure.constants import EXTRA_PACKAGES, HIDDEN_MARK
from llm_energy_measure.exceptions import AggregationError, ConfigurationError, MissingExtraError, ResultsError
from llm_energy_measure.results.repository import FileSystemRepository

if TYPE_CHECKING:
    from concurrent.futures import Executor

_URL = re.compile(r"dask://([^/]+:[0-9]{1,5})/?")
_TIMEOUT_SEC = 15
# Number of times that a batch is run again because its worker was lost.
_RETRIES = 3


class Workers(NamedTuple):
    """Workers that have passed the checks.

    Attributes:
        executor: Runs functions on the workers.
        threads: Number of functions that can run at one time.
    """

    executor: Executor
    threads: int


class WorkerFacts(NamedTuple):
    """Facts about a worker that show whether it can do the work.

    Attributes:
        version: Version of this package on the worker.
        python: Major and minor version of Python on the worker, such as `3.12`.
        sees_token: Whether the worker can read the token in the results directory.
    """

    version: str
    python: str
    sees_token: bool


def address_of(text: str) -> str:
    """Return the host and port in `dask://HOST:PORT`.

    Raises:
        ConfigurationError: The text has another form.

    Example:
        >>> address_of("dask://node-1:8786")
        'node-1:8786'
    """
    match = _URL.fullmatch(text)
    if match is None:
        found, advice = "it is not of the form dask://HOST:PORT", "use for example dask://127.0.0.1:8786"
        raise ConfigurationError(f"cannot use the executor {text!r}", found, advice)
    return match[1]


def facts_of_worker(repository: FileSystemRepository, key: str, token: bytes) -> WorkerFacts:
    """Return the facts about the worker that runs this function; `key` is the key of the token."""
    try:
        sees_token = repository.store.get(key) == token
    except ResultsError:
        sees_token = False
    return WorkerFacts(__version__, ".".join(platform.python_version_tuple()[:2]), sees_token)


@contextlib.contextmanager
def dask_workers(
    url: str, repository: FileSystemRepository, *, timeout_sec: float = _TIMEOUT_SEC, version: str = __version__
) -> Iterator[Workers]:
    """Connect to a Dask scheduler, check its workers, and yield them.

    A batch whose worker is lost runs again on another worker.

    Args:
        url: `dask://HOST:PORT`.
        repository: The results directory, with an absolute path.
        timeout_sec: Time to wait for the scheduler, in seconds.
        version: The version of this package that the workers must have.

    Raises:
        ConfigurationError: The scheduler does not answer, it has no workers, or a worker has another version or does
            not see the results directory.
        MissingExtraError: distributed is not installed.
        AggregationError: The scheduler or too many workers were lost during the work.
    """
    address = address_of(url)
    try:
        import distributed
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        advice = f"pip install {EXTRA_PACKAGES['dask']}"
        raise MissingExtraError(f"cannot use the executor {url!r}", "distributed is not installed", advice) from error
    try:
        # distributed has no type annotations.
        client: Any = distributed.Client(f"tcp://{address}", timeout=timeout_sec, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        found = f"the scheduler does not answer within {timeout_sec:g} s ({error})"
        advice = "start it with 'dask scheduler', and give its address as dask://HOST:PORT"
        raise ConfigurationError(f"cannot use the executor {url!r}", found, advice) from error
    with client:
        threads = _checked_threads(client, url, repository, version)
        try:
            yield Workers(client.get_executor(retries=_RETRIES, pure=False), threads)
        except (distributed.KilledWorker, CommClosedError) as error:
            found = f"the scheduler or several workers were lost ({type(error).__name__})"
            advice = "check the logs of the workers, and run the command again; finished work is kept"
            raise AggregationError(f"cannot use the executor {url!r}", found, advice) from error


def _checked_threads(client: Any, url: str, repository: FileSystemRepository, version: str) -> int:
    """Return the number of threads of the workers. Raise `ConfigurationError` if a worker can't do the work."""
    doing = f"cannot use the executor {url!r}"
    threads: dict[str, int] = client.nthreads()
    if not threads:
        raise ConfigurationError(doing, "the scheduler has no workers", "start some with 'dask worker HOST:PORT'")
    key, token = f".token{HIDDEN_MARK}{os.urandom(8).hex()}", os.urandom(16)
    repository.store.create(key, token)
    try:
        found = client.run(facts_of_worker, repository, key, token, on_error="return")
    finally:
        repository.store.delete(key)
    own = facts_of_worker(repository, key, token)._replace(version=version)
    for worker, facts in sorted(found.items()):
        if isinstance(facts, BaseException):
            advice = f"install llm-energy-measure {version} on the workers"
            raise ConfigurationError(doing, f"the worker {worker} cannot run this package ({facts!r})", advice)
        if (facts.version, facts.python) != (own.version, own.python):
            has = f"version {facts.version} and Python {facts.python}"
            wanted = f"version {own.version} and Python {own.python}"
            advice = "install the same versions on all machines"
            raise ConfigurationError(doing, f"the worker {worker} has {has}, and this process {wanted}", advice)
        if not facts.sees_token:
            reason = f"the worker {worker} does not see {repository.base_path}"
            raise ConfigurationError(doing, reason, "use a directory that all machines share, or a bucket")
    return sum(threads.values())

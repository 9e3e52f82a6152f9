"""Results and bundles for the tests; each is made once per session, and no test changes it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.creation import BundleOptions, create_bundle
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.tags import change_tags
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def model_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three aggregated repeats with tags, and an experiment of one of three processes that is not aggregated."""
    folder = tmp_path_factory.mktemp("model") / "results"
    repository = FileSystemRepository(folder)
    for name, paper in zip(factories.save_repeats(repository), ("fig3", "fig3", "other"), strict=True):
        change_tags(repository.store, name, {"paper": paper})
    list(aggregate_all(repository))
    repository.save_raw("torn", factories.raw("torn", 1, world_size=3))
    return folder


@pytest.fixture
def results(model_results: Path, tmp_path: Path) -> Path:
    """Return a copy of `model_results`, which the test may change."""
    return shutil.copytree(model_results, tmp_path / "results")


@pytest.fixture(scope="session")
def whole(model_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the three repeats."""
    target = tmp_path_factory.mktemp("whole") / "whole.zip"
    selection = Selection(found=[f"llama_c{cycle}" for cycle in range(3)])
    return create_bundle(FileSystemRepository(model_results), target, selection).path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one experiment of one process."""
    folder = tmp_path_factory.mktemp("small")
    repository = FileSystemRepository(folder / "results")
    repository.save_raw("e", factories.raw("e", effective_config={}))
    list(aggregate_all(repository))
    return create_bundle(repository, folder / "small.zip", Selection(found=["e"])).path


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key without a passphrase; `.pub` is the public key."""
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed")
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run([program, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="session")
def signers(key: Path) -> Path:
    """A file of allowed signers that knows the key as `ada`."""
    path = key.with_name("signers")
    path.write_text(f"ada {key.with_suffix('.pub').read_text(encoding='ascii')}", encoding="ascii")
    return path


@pytest.fixture(scope="session")
def signed(model_results: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle of the three repeats."""
    target = tmp_path_factory.mktemp("signed") / "signed.zip"
    selection = Selection(found=[f"llama_c{cycle}" for cycle in range(3)])
    return create_bundle(FileSystemRepository(model_results), target, selection, BundleOptions(sign_with=key)).path

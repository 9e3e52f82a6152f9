"""Programs of other projects read and check a bundle: coreutils, unzip, OpenSSH, jq, bagit, rocrate, roc-validator."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import check_whole
from llm_energy_measure.bundle.opening import open_bundle
from llm_energy_measure.bundle.signature import NAMESPACE

SECONDS = 120


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*arguments: object, folder: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def unzipped(whole: Path, tmp_path: Path) -> Path:
    with opened(whole) as source:
        return open_bundle(source, tmp_path / "unzipped").folder


def test_unzip_extracts_the_files_that_open_extracts(whole: Path, unzipped: Path, tmp_path: Path) -> None:
    unzip = program("unzip")
    assert run(unzip, "-tq", whole, folder=tmp_path).returncode == 0
    other = tmp_path / "other"
    assert run(unzip, "-q", whole, "-d", other, folder=tmp_path).returncode == 0
    files = {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert files == {path.relative_to(unzipped): path.read_bytes() for path in unzipped.rglob("*") if path.is_file()}


def test_sha256sum_checks_the_manifests(unzipped: Path) -> None:
    sha256sum = program("sha256sum")
    command = (sha256sum, "--strict", "-c", "--quiet", "manifest-sha256.txt", "tagmanifest-sha256.txt")
    assert run(*command, folder=unzipped).returncode == 0
    path = unzipped / "data" / "raw" / "llama_c0" / "process_0.json"
    path.write_bytes(path.read_bytes().replace(b"2000.0", b"1000.0"))
    done = run(*command, folder=unzipped)
    assert done.returncode == 1
    assert done.stdout == b"data/raw/llama_c0/process_0.json: FAILED\n"


def test_digest_is_that_of_sha256sum(whole: Path, unzipped: Path) -> None:
    done = run(program("sha256sum"), "tagmanifest-sha256.txt", folder=unzipped)
    with opened(whole) as source:
        assert done.stdout.split()[0].decode() == check_whole(source).digest


def test_jq_adds_the_energies(unzipped: Path) -> None:
    """The command is the one in the README of the bundle."""
    program("jq")
    readme = (unzipped / "README.txt").read_text(encoding="utf-8")
    command = re.search(r"^ +(jq .*)$", readme, re.MULTILINE)
    assert command is not None
    done = run("/bin/bash", "-c", command[1], folder=unzipped)
    assert float(done.stdout) == pytest.approx(sum(2 * (2000 + 10 * cycle) + 250 for cycle in range(3)))


def test_command_of_the_readme_lists_added_files(unzipped: Path) -> None:
    readme = (unzipped / "README.txt").read_text(encoding="utf-8")
    command = re.search(r"^ +(find data .*)$", readme, re.MULTILINE)
    assert command is not None
    assert run("/bin/bash", "-c", command[1], folder=unzipped).stdout == b""
    (unzipped / "data" / "raw" / "llama_c0" / "process_9.json").touch()
    done = run("/bin/bash", "-c", command[1], folder=unzipped)
    assert done.stdout == b"data/raw/llama_c0/process_9.json\n"


def test_ssh_keygen_verifies_the_signature(signed: Path, signers: Path, tmp_path: Path) -> None:
    with opened(signed) as source:
        folder = open_bundle(source, tmp_path / "signed").folder
    purpose = ("-n", NAMESPACE, "-s", "tagmanifest-sha256.txt.sig")
    command = (program("ssh-keygen"), "-Y", "verify", "-f", signers, "-I", "ada", *purpose)
    data = (folder / "tagmanifest-sha256.txt").read_bytes()
    assert run(*command, folder=folder, stdin=data).returncode == 0
    assert run(*command, folder=folder, stdin=data + b"\n").returncode != 0
    assert (
        "ssh-keygen -Y verify -f allowed_signers -I NAME -n llm-energy-measure" in (folder / "README.txt").read_text()
    )


def test_bagit_validates_the_bag(unzipped: Path) -> None:
    if importlib.util.find_spec("bagit") is None:
        pytest.skip("bagit is not installed")
    command = (sys.executable, "-W", "ignore", "-m", "bagit", "--validate", ".")
    done = run(*command, folder=unzipped)
    assert done.returncode == 0, done.stderr.decode()
    (unzipped / "data" / "added.txt").touch()
    assert run(*command, folder=unzipped).returncode != 0


def test_rocrate_reads_the_metadata(unzipped: Path) -> None:
    if importlib.util.find_spec("rocrate") is None:
        pytest.skip("rocrate is not installed")
    code = """
import json, sys
from rocrate.rocrate import ROCrate
crate = ROCrate(sys.argv[1])
parts = sorted(part.id for part in crate.data_entities)
print(json.dumps([crate.name, crate.datePublished.isoformat()[:10], parts]))
"""
    done = run(sys.executable, "-W", "ignore", "-c", code, unzipped / "data", folder=unzipped)
    assert done.returncode == 0, done.stderr.decode()
    name, date, parts = json.loads(done.stdout)
    assert (name, date) == ("Energy results of 3 language model inference experiments", "2026-01-16")
    files = ["environment.json", "selection.json", "verdicts.jsonl"]
    assert parts == ["aggregated/", *files[:1], "raw/", files[1], "tags/", files[2]]
    assert all((unzipped / "data" / part).exists() for part in parts)


# The program validates offline with the responses in its cache. The package rocrate has the context.
FILL_CACHE = """
import io, sys
import requests, requests_cache, urllib3
cache, address, context = sys.argv[1:]
class Local(requests.adapters.HTTPAdapter):
    def send(self, request, **options):
        headers = {"Content-Type": "application/ld+json"}
        body = io.BytesIO(open(context, "rb").read())
        answer = urllib3.HTTPResponse(body, headers, 200, preload_content=False, request_url=request.url)
        return self.build_response(request, answer)
session = requests_cache.CachedSession(cache, expire_after=-1)
session.mount("https://", Local())
session.get(address, headers={"Accept": "application/ld+json"}).raise_for_status()
"""


def test_roc_validator_accepts_the_metadata(unzipped: Path, tmp_path: Path) -> None:
    """`make test-bundle` installs the program."""
    validator = program("rocrate-validator")
    found = importlib.util.find_spec("rocrate")
    if found is None or found.origin is None:
        pytest.skip("rocrate is not installed")
    context = Path(found.origin).parent / "data" / "ro-crate.jsonld"
    python, cache = Path(validator).parent / "python", tmp_path / "cache"
    done = run(python, "-c", FILL_CACHE, cache, "https://w3id.org/ro/crate/1.1/context", context, folder=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    options = ("--no-paging", "--offline", "--cache-path", cache, "-p", "ro-crate-1.1")
    command = (validator, "-y", "validate", "-v", *options, "data")
    done = run(*command, folder=unzipped)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    metadata = unzipped / "data" / "ro-crate-metadata.json"
    metadata.write_bytes(metadata.read_bytes().replace(b"datePublished", b"dateCreated"))
    assert run(*command, folder=unzipped).returncode != 0


def test_digest_depends_on_each_other_file(unzipped: Path) -> None:
    tag_manifest = (unzipped / "tagmanifest-sha256.txt").read_text(encoding="ascii")
    manifest = (unzipped / "manifest-sha256.txt").read_bytes()
    assert f"{hashlib.sha256(manifest).hexdigest()}  manifest-sha256.txt\n" in tag_manifest

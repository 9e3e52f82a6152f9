"""Signatures by ssh-keygen: keys that cannot be used, and files that cannot be read, give one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.bundle import signature
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"some bytes\n"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_signature_of_each_type_of_key_is_valid(tmp_path: Path, kind: str) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed")
    key = tmp_path / "key with blank"
    subprocess.run([program, "-q", "-t", kind, "-N", "", "-C", "", "-f", key], check=True)
    signed = signature.sign(DATA, key)
    found = signature.check(DATA, signed, None)
    assert (found.is_valid, found.signer) == (True, None)
    assert found.fingerprint is not None
    assert found.fingerprint.startswith("SHA256:")
    assert not signature.check(DATA + b"x", signed, None).is_valid


def test_signer_is_known_only_by_a_valid_signature(key: Path, signers: Path) -> None:
    signed = signature.sign(DATA, key)
    assert signature.check(DATA, signed, signers).signer == "ada"
    assert signature.check(b"other", signed, signers).signer is None
    assert not signature.check(b"other", signed, signers).is_valid


def test_signature_for_another_purpose_is_not_valid(key: Path, signers: Path, tmp_path: Path) -> None:
    program = shutil.which("ssh-keygen") or ""
    file = tmp_path / "data"
    file.write_bytes(DATA)
    subprocess.run([program, "-q", "-Y", "sign", "-f", key, "-n", "file", file], check=True, capture_output=True)
    assert not signature.check(DATA, file.with_suffix(".sig").read_bytes(), signers).is_valid


def test_key_that_is_absent_or_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_key: the file was not found; create a key with 'ssh-keygen"):
        signature.sign(DATA, tmp_path / "no_key")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigurationError, match="cannot sign with the key .*text: .*; check the key with"):
        signature.sign(DATA, tmp_path / "text")


def test_missing_or_broken_program_is_named(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory; install OpenSSH 8.2 or newer"):
        signature.sign(DATA, key, program=str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="the program ssh-keygen was not found; install OpenSSH 8.2 or newer"):
        signature.sign(DATA, key)


def test_file_of_signers_that_is_absent_is_named(key: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_signers: No such file or directory; write a line 'NAME KEYTYPE"):
        signature.check(DATA, signature.sign(DATA, key), tmp_path / "no_signers")


def test_key_with_a_passphrase_is_named_without_a_terminal(tmp_path: Path) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed")
    key = tmp_path / "key"
    subprocess.run([program, "-q", "-t", "ed25519", "-N", "secret", "-C", "", "-f", key], check=True)
    code = "import sys; from llm_energy_measure.bundle.signature import sign; sign(b'', sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, key], capture_output=True, text=True, start_new_session=True, check=False
    )
    assert "incorrect passphrase supplied to decrypt private key; check the key with" in done.stderr

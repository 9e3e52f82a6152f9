"""Sign and verify a file with the `ssh-keygen` of OpenSSH 8.2 or newer. Only ssh-keygen reads private keys.

Source: the section "-Y" of ssh-keygen(1), and PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from msgspec import Struct

from llm_energy_measure.exceptions import ConfigurationError

NAMESPACE = "llm-energy-measure"
"""Namespace of the signatures: a signature for another purpose is not valid for a bundle."""

_TIMEOUT_SEC = 300  # a person may have to type a passphrase, or touch a security key
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]+=*")
_CHECKING = "cannot check the signature"
_INSTALL = "install OpenSSH 8.2 or newer (on Debian and Ubuntu: apt install openssh-client)"


class SignatureCheck(Struct, frozen=True, kw_only=True):
    """The result of the check of a signature.

    Attributes:
        is_valid: True if the signature is valid for these bytes.
        fingerprint: Fingerprint of the key. None if unknown.
        signer: Name of the key in the file of allowed signers. None if the file does not have the key.
    """

    is_valid: bool
    fingerprint: str | None = None
    signer: str | None = None


def sign(data: bytes, key: str | Path, *, program: str | None = None) -> bytes:
    """Return the signature of the bytes.

    Args:
        data: The bytes.
        key: A private key file, or a public key file whose private key is in ssh-agent.
        program: Path of ssh-keygen. By default, it is found in PATH.

    Raises:
        ConfigurationError: ssh-keygen is missing, or the key cannot be used.
    """
    doing = require_key(key, program=program)
    done = _run(doing, program, "-Y", "sign", "-f", str(key), "-n", NAMESPACE, data=data)
    if done.returncode != 0 or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        found = _last_line(done.stderr) or f"ssh-keygen ended with status {done.returncode}"
        raise ConfigurationError(doing, found, "check the key with 'ssh-keygen -y -f KEY'")
    return done.stdout


def require_key(key: str | Path, *, program: str | None = None) -> str:
    """Check that a key file and ssh-keygen exist, before long work. Return the first part of error messages.

    Raises:
        ConfigurationError: The key file or ssh-keygen is missing.
    """
    doing = f"cannot sign with the key {key}"
    if not Path(key).is_file():
        raise ConfigurationError(doing, "the file was not found", "create a key with 'ssh-keygen -t ed25519 -f KEY'")
    _program(doing, program)
    return doing


def require_signers(allowed_signers: str | Path | None) -> None:
    """Raise `ConfigurationError` if the file of allowed signers cannot be read."""
    if allowed_signers is None:
        return
    try:
        Path(allowed_signers).read_bytes()
    except OSError as error:
        found = f"{allowed_signers}: {error.strerror or error}"
        advice = "write a line 'NAME KEYTYPE KEY' for each key into this file"
        raise ConfigurationError(_CHECKING, found, advice) from error


def check(
    data: bytes, signature: bytes, allowed_signers: str | Path | None, *, program: str | None = None
) -> SignatureCheck:
    """Check a signature of the bytes, and return the result.

    Args:
        data: The bytes.
        signature: The signature.
        allowed_signers: File with a line `NAME KEYTYPE KEY` for each known key. None: no key is known.
        program: Path of ssh-keygen. By default, it is found in PATH.

    Raises:
        ConfigurationError: ssh-keygen is missing, or the file of allowed signers cannot be read.
    """
    require_signers(allowed_signers)
    doing = _CHECKING
    with tempfile.TemporaryDirectory(prefix="llm-energy-measure-") as folder:
        file = Path(folder, "signature")
        file.write_bytes(signature)
        shared = ("-n", NAMESPACE, "-s", str(file))
        done = _run(doing, program, "-Y", "check-novalidate", *shared, data=data)
        if done.returncode != 0:
            return SignatureCheck(is_valid=False)
        match = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
        valid = SignatureCheck(is_valid=True, fingerprint=match[0] if match else None)
        if allowed_signers is None:
            return valid
        allowed = ("-f", str(allowed_signers))
        known = _run(doing, program, "-Y", "find-principals", "-s", str(file), *allowed, data=data)
        for name in known.stdout.decode("utf-8", "replace").splitlines() if known.returncode == 0 else ():
            done = _run(doing, program, "-Y", "verify", *allowed, "-I", name, *shared, data=data)
            if done.returncode == 0:
                return SignatureCheck(is_valid=True, fingerprint=valid.fingerprint, signer=name)
    return valid


def _run(doing: str, program: str | None, *arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen with arguments and input, and return its status and output."""
    path = _program(doing, program)
    try:
        return subprocess.run([path, *arguments], input=data, capture_output=True, timeout=_TIMEOUT_SEC, check=False)
    except OSError as error:
        raise ConfigurationError(doing, f"{path}: {error.strerror or error}", _INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(doing, f"ssh-keygen did not end in {_TIMEOUT_SEC} s", "try again") from error


def _program(doing: str, program: str | None) -> str:
    """Return the path of ssh-keygen."""
    path = shutil.which("ssh-keygen") if program is None else program
    if path is None:
        raise ConfigurationError(doing, "the program ssh-keygen was not found", _INSTALL)
    return path


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip().removeprefix("Enter passphrase: ").rstrip(".") if lines else ""

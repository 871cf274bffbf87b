"""Who made a file: signatures of OpenSSH beside it, made and checked by ``ssh-keygen``; keys stay where they are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from powergrid.errors import PowerGridError
from powergrid.files import read_bytes, reason_of

#: What a signature is good for: one of another purpose does not pass for it.
NAMESPACE = "powergrid-bench"
_SUFFIX = ".sig"


def signature_of(file: Path) -> Path:
    """Return where the signature of a file lies."""
    return file.with_name(file.name + _SUFFIX)


def sign_file(file: Path, key: Path) -> Path:
    """Sign a file with a private key of OpenSSH, Ed25519 say, and return the signature's file.

    Raises:
        PowerGridError: There is no ``ssh-keygen`` of OpenSSH 8.0 or later, or it does not take the key.
    """
    signature = signature_of(file)
    signature.unlink(missing_ok=True)  # else it asks whether to overwrite
    _run(["-Y", "sign", "-q", "-f", str(key.expanduser()), "-n", NAMESPACE, str(file)])
    return signature


def check_signature(file: Path, signers: Path | None = None) -> str:
    """Return who signed a file: one of the signers where these are given, else the fingerprint of the key.

    Args:
        file: The file, its signature beside it.
        signers: Who may sign: lines of a name and a public key, as ``allowed_signers`` of ``ssh-keygen``.

    Raises:
        PowerGridError: There is no signature, it is not of this content, or of nobody who may sign.
    """
    signature, content = signature_of(file), read_bytes(file)
    if not signature.is_file():
        raise PowerGridError(f"{file}: is not signed: there is no {signature.name} beside it")
    if signers is None:
        told = _run(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)], content)
        found = re.search(r"(SHA256:\S+)", told)
        return found[1] if found else told.strip()
    listed = ["-f", str(signers), "-s", str(signature)]
    names = _run(["-Y", "find-principals", *listed]).split("\n")
    _run(["-Y", "verify", "-n", NAMESPACE, "-I", names[0], *listed], content)
    return names[0]


def _run(arguments: list[str], content: bytes | None = None) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], input=content or b"", capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        text = f"ssh-keygen: {reason_of(error)}; signatures need OpenSSH 8.0 or later, files go without"
        raise PowerGridError(text) from None
    told = (done.stdout + b"\n" + done.stderr).decode(errors="replace").strip()
    if done.returncode:
        raise PowerGridError(f"ssh-keygen {arguments[1]}: {told.splitlines()[0] if told else 'refused'}")
    return told

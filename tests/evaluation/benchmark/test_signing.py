"""Signatures of OpenSSH: whose they are, and that they are of the content."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from powergrid.errors import PowerGridError
from powergrid.evaluation.benchmark.signing import check_signature, sign_file, signature_of

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no OpenSSH here")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(file)], check=True, timeout=60)
    return file


def test_signature_is_the_signers_and_of_the_content(tmp_path: Path, key: Path) -> None:
    file, signers = tmp_path / "r.json", tmp_path / "signers"
    file.write_text("{}\n", encoding="utf-8")
    assert sign_file(file, key) == signature_of(file)
    sign_file(file, key)  # anew, and nobody is asked
    assert check_signature(file).startswith("SHA256:")
    kind, public, *_ = key.with_suffix(".pub").read_text(encoding="utf-8").split()
    signers.write_text(f"me@example.org {kind} {public}\n", encoding="utf-8")
    assert check_signature(file, signers) == "me@example.org"
    file.write_text("{ }\n", encoding="utf-8")
    for given in (None, signers):
        with pytest.raises(PowerGridError, match="ssh-keygen"):
            check_signature(file, given)


def test_signature_of_somebody_else_is_refused(tmp_path: Path, key: Path) -> None:
    file, signers = tmp_path / "r.json", tmp_path / "signers"
    file.write_text("{}\n", encoding="utf-8")
    with pytest.raises(PowerGridError, match="is not signed"):
        check_signature(file)
    sign_file(file, key)
    signers.write_text(f"other@example.org ssh-ed25519 {'A' * 68}\n", encoding="utf-8")
    with pytest.raises(PowerGridError, match="ssh-keygen"):
        check_signature(file, signers)


def test_key_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("{}\n", encoding="utf-8")
    with pytest.raises(PowerGridError, match="ssh-keygen sign"):
        sign_file(file, tmp_path / "no_key")
    assert not signature_of(file).exists()

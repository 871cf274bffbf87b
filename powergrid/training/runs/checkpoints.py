"""Checkpoints of a run: written whole or not at all, signed, pruned and found again; it restores nothing.

RLlib's checkpoints are Python pickle, and a run folder names the environment's class: to load either is to run what
is written there. The signature, of a key of this user's, says that this user wrote the files and that nobody changed
them; it says nothing to anyone who does not have the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from powergrid.errors import PowerGridError, nearest_names
from powergrid.files import make_folder, path_of, read_bytes, read_json, telling, write_whole

logger = logging.getLogger("powergrid.training")

FOLDER = "checkpoints"
STATE_FILE = "powergrid.json"
POLICY_FOLDER = "policy"
#: Environment variable: the folder of the key.
FOLDER_VARIABLE = "POWERGRID_STATE"
SIGNATURE_FILE = "signature.json"
KEY_FILE = "checkpoint.key"
_KEY_BYTES = 32


class Checkpoints:
    """Keep a run's newest checkpoints and its best one.

    ``checkpoints/iteration_000040`` is an RLlib checkpoint with a ``policy`` folder beside RLlib's
    files. ``checkpoints/latest`` and ``checkpoints/best`` are text files that name one of them.
    """

    def __init__(self, run_folder: Path, keep: int, claims: Mapping[str, Any] | None = None) -> None:
        """Look after a run's checkpoints, ``keep`` of them beside the best, each signed for ``claims``."""
        self.folder = run_folder / FOLDER
        self.keep = keep
        self.claims = dict(claims or {})
        make_folder(self.folder)
        for unfinished in self.folder.glob(".unfinished-*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def save(self, algorithm: Any, policy: Any, iteration: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint beside its final name and rename it, so that a kill leaves no half of one."""
        final = self.folder / f"iteration_{iteration:06d}"
        if not final.exists():
            unfinished = self.folder / f".unfinished-{os.getpid()}-{iteration:06d}"
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                with telling(final):
                    algorithm.save_to_path(str(unfinished.resolve()))  # of a relative path: URI has empty scheme
                    policy.save(unfinished / POLICY_FOLDER)
                    write_whole(unfinished / STATE_FILE, json.dumps({"iteration": iteration, **state}) + "\n")
                    sign(unfinished, self.claims)
                    unfinished.rename(final)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        write_whole(self.folder / "latest", final.name + "\n")
        self._prune()
        return final

    def mark_best(self, checkpoint: Path) -> None:
        """Let ``checkpoints/best`` name this checkpoint."""
        write_whole(self.folder / "best", checkpoint.name + "\n")
        self._prune()

    def _prune(self) -> None:
        pointed = {read_pointer(self.folder, name) for name in ("latest", "best")}
        for old in sorted(self.folder.glob("iteration_*"))[: -self.keep]:
            if old.name not in pointed:
                shutil.rmtree(old, ignore_errors=True)


def read_pointer(folder: Path, name: str) -> str | None:
    """Return the checkpoint that ``latest`` or ``best`` names; None where there is none."""
    file = folder / name
    written = read_bytes(file, 1000).decode("utf-8", "replace").strip() if file.is_file() else ""
    # One name of a folder beside it: a path in its place would lead out of the run.
    return written if written.isprintable() and 0 < len(written) < 200 and Path(written).name == written else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what the training loop stored beside RLlib's state.

    Raises:
        PowerGridError: It is missing or damaged.
    """
    return read_json(checkpoint / STATE_FILE, _State).model_dump()


class _State(BaseModel):
    """What the loop goes on from."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    iteration: int = Field(ge=0, le=10**9)
    env_steps: int = Field(0, ge=0, le=10**15)
    elapsed_s: float = Field(0.0, ge=0, le=1e12)
    best_score: float | None = None


def find_checkpoint(path: Path, which: tuple[str, ...] = ("best", "latest")) -> Path:
    """Find the checkpoint of a run folder, or take the checkpoint itself.

    Raises:
        PowerGridError: There is none.
    """
    path = path_of(path)
    if (path / STATE_FILE).is_file():
        return path
    for name in which:
        pointed = read_pointer(path / FOLDER, name)
        if pointed and (path / FOLDER / pointed / STATE_FILE).is_file():
            return path / FOLDER / pointed
    if not path.exists():
        raise PowerGridError(say_missing(path))
    left = sorted(each.parent for each in (path / FOLDER).glob(f"iteration_*/{STATE_FILE}"))
    if left:
        named = " and ".join(f"{FOLDER}/{name}" for name in which)
        raise PowerGridError(f"{path}: {named} name no checkpoint that is there; the last one that is: {left[-1]}")
    raise PowerGridError(f"{path}: holds no checkpoint; a run has checkpoints/latest after its first one")


def say_missing(path: Path) -> str:
    """Say that there is no run at a place, and which ones beside it are called most like it."""
    beside: list[str] = []
    with suppress(OSError):
        beside = [each.name for each in path.parent.iterdir() if (each / FOLDER).is_dir()]
    near = [str(path.parent / name) for name in nearest_names(path.name, beside)]
    return f"{path}: no such run or checkpoint" + (f" (did you mean {' or '.join(near)}?)" if near else "")


def _state_folder() -> Path | None:
    """Return the folder that keeps this user's key, None where there is no place for it."""
    written = os.environ.get(FOLDER_VARIABLE)
    if written:
        return path_of(written).absolute()
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(base) / "powergrid" if base else Path.home() / ".local" / "state" / "powergrid"
    except RuntimeError:  # nobody's home
        return None


def trust_claims(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``run.json`` decides which code a resume runs: checkpoints are signed for it."""
    claims = {name: manifest[name] for name in ("env", "env_config", "policies")}
    curriculum = manifest.get("settings", {}).get("curriculum")
    return claims | ({"curriculum": curriculum} if isinstance(curriculum, str) else {})  # which is imported


def sign(checkpoint: Path, claims: Mapping[str, Any] | None = None) -> bool:
    """Write ``signature.json`` into a complete checkpoint; return whether there was a key to sign it with.

    ``claims`` stand elsewhere and must be unchanged too, such as the environment's class.
    """
    key = _key(make=True)
    if key is None:
        logger.info("No place to keep a key: %s stays unsigned, to load it needs trust.", checkpoint)
        return False
    write_whole(checkpoint / SIGNATURE_FILE, json.dumps({"hmac_sha256": _digest(key, checkpoint, claims)}) + "\n")
    return True


def is_ours(checkpoint: Path, claims: Mapping[str, Any] | None = None) -> bool:
    """Tell whether this user signed the checkpoint and nothing in it has changed since."""
    key = _key(make=False)
    if key is None:
        return False
    try:
        signature = read_json(checkpoint / SIGNATURE_FILE, _Signature).hmac_sha256
        return hmac.compare_digest(signature.encode(), _digest(key, checkpoint, claims).encode())
    except (PowerGridError, OSError, ValueError):
        return False


class _Signature(BaseModel):
    hmac_sha256: str


def require_trust(
    checkpoint: Path | None, claims: Mapping[str, Any] | None = None, *, remedy: str, shown: str | None = None
) -> None:
    """Refuse a checkpoint that this user did not write.

    Args:
        checkpoint: Its folder; None where its files cannot be looked at.
        claims: As :func:`sign` was given.
        remedy: What loads it all the same.
        shown: What to call it.

    Raises:
        PowerGridError: It is not signed with this user's key, or was changed since.
    """
    if checkpoint is not None and not checkpoint.is_dir():
        raise PowerGridError(f"{checkpoint}: no such checkpoint")
    if checkpoint is None or not is_ours(checkpoint, claims):
        raise PowerGridError(
            f"{shown or checkpoint}: was not written by this user on this machine, or was changed since. To load a "
            f"checkpoint is to run the code in it: where you trust whoever made it, {remedy}. To act with its policy "
            "needs no trust: powergrid.load_policy."
        )


def _digest(key: bytes, checkpoint: Path, claims: Mapping[str, Any] | None) -> str:
    """Return the keyed digest of every file's name and content, and of the claims."""
    seal = hmac.new(key, digestmod=hashlib.sha256)
    as_read_back = json.loads(json.dumps(dict(claims or {}), default=str))
    seal.update(json.dumps(as_read_back, sort_keys=True).encode())
    for file in sorted(checkpoint.rglob("*")):
        if file.is_symlink():
            raise ValueError(f"{file} is a link")
        if file.is_file() and file != checkpoint / SIGNATURE_FILE:
            name = file.relative_to(checkpoint).as_posix().encode()
            seal.update(hashlib.sha256(name).digest() + hashlib.sha256(file.read_bytes()).digest())
    return seal.hexdigest()


def _key(*, make: bool) -> bytes | None:
    """Read this user's key, made on first use and readable by nobody else; None where there is none."""
    folder = _state_folder()
    if folder is None:
        return None
    file = folder / KEY_FILE
    try:
        if make and not file.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = folder / f".{KEY_FILE}-{os.getpid()}-{secrets.token_hex(4)}"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):
                os.link(temporary, file)  # unlike a rename, it leaves the key of a process that was faster
            temporary.unlink()
        key = file.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None

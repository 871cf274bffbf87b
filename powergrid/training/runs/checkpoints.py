"""Checkpoints of a run: written whole or not at all, pruned, and found again; it restores nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError
from powergrid.training.policies.trust import sign

FOLDER = "checkpoints"
STATE_FILE = "powergrid.json"
POLICY_FOLDER = "policy"


class Checkpoints:
    """Keep a run's newest checkpoints and its best one.

    ``checkpoints/iteration_000040`` is an RLlib checkpoint with a ``policy`` folder beside RLlib's
    files. ``checkpoints/latest`` and ``checkpoints/best`` are text files that name one of them.
    """

    def __init__(self, run_folder: Path, keep: int, claims: Mapping[str, Any] | None = None) -> None:
        """Look after a run's checkpoints.

        Args:
            run_folder: The run's folder.
            keep: How many to keep, beside the best one.
            claims: What each is signed for, see :func:`powergrid.training.policies.trust.sign`.
        """
        self.folder = run_folder / FOLDER
        self.keep = keep
        self.claims = dict(claims or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(".unfinished-*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def save(self, algorithm: Any, policy: Any, iteration: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint beside its final name and rename it, so that a kill leaves no half of one."""
        final = self.folder / f"iteration_{iteration:06d}"
        if not final.exists():
            unfinished = self.folder / f".unfinished-{os.getpid()}-{iteration:06d}"
            shutil.rmtree(unfinished, ignore_errors=True)
            algorithm.save_to_path(str(unfinished.resolve()))
            policy.save(unfinished / POLICY_FOLDER)
            (unfinished / STATE_FILE).write_text(json.dumps({"iteration": iteration, **state}) + "\n")
            sign(unfinished, self.claims)
            unfinished.rename(final)
        self._point("latest", final)
        self._prune()
        return final

    def mark_best(self, checkpoint: Path) -> None:
        """Let ``checkpoints/best`` name this checkpoint."""
        self._point("best", checkpoint)
        self._prune()

    def _point(self, name: str, checkpoint: Path) -> None:
        temporary = self.folder / f".{name}-{os.getpid()}"
        temporary.write_text(checkpoint.name + "\n")
        temporary.replace(self.folder / name)

    def _prune(self) -> None:
        pointed = {read_pointer(self.folder, name) for name in ("latest", "best")}
        for old in sorted(self.folder.glob("iteration_*"))[: -self.keep]:
            if old.name not in pointed:
                shutil.rmtree(old, ignore_errors=True)


def read_pointer(folder: Path, name: str) -> str | None:
    """Return the checkpoint that ``latest`` or ``best`` names; None where there is none."""
    file = folder / name
    return file.read_text().strip() if file.is_file() else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what the training loop stored beside RLlib's state."""
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
    return state


def find_checkpoint(path: Path, which: tuple[str, ...] = ("best", "latest")) -> Path:
    """Find the checkpoint of a run folder, or take the checkpoint itself.

    Raises:
        PowerGridError: There is none.
    """
    if (path / STATE_FILE).is_file():
        return path
    for name in which:
        pointed = read_pointer(path / FOLDER, name)
        if pointed and (path / FOLDER / pointed / STATE_FILE).is_file():
            return path / FOLDER / pointed
    if not path.exists():
        raise PowerGridError(f"{path}: no such run or checkpoint")
    raise PowerGridError(f"{path}: holds no checkpoint; a run has checkpoints/latest after its first one")

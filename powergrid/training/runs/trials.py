"""Trials of a tuning: what each came to, kept on disk after every change; it runs none and knows no Ray."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TRIALS = "trials.csv"


@dataclass
class Trial:
    """One trial and what it came to.

    Attributes:
        number: Its number, from 0; its run folder is ``trial_000`` and on.
        drawn: The settings that were varied, as they were drawn for it.
        state: ``"waiting"``, ``"running"``, ``"finished"``, ``"stopped"`` or ``"failed"``.
        validation_return: Mean return of the validation episodes at its best checkpoint; NaN before the first.
        last_validation_return: The same, of the last validation.
        iterations: Iterations it has.
        env_steps: Environment steps it has.
        time_s: How long it trained [s].
        error: Why it failed.
    """

    number: int
    drawn: dict[str, Any]
    state: str = "waiting"
    validation_return: float = math.nan
    last_validation_return: float = math.nan
    iterations: int = 0
    env_steps: int = 0
    time_s: float = 0.0
    error: str = ""

    @property
    def folder(self) -> str:
        """Return the name of its run folder."""
        return f"trial_{self.number:03d}"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("finished", "stopped", "failed")

    def take(self, told: Mapping[str, Any]) -> None:
        """Take in what the trial reports after an iteration."""
        self.state = "running"
        self.iterations, self.env_steps = int(told["iterations"]), int(told["env_steps"])
        self.time_s = float(told["time_s"])
        score = float(told["validation_return"])
        if math.isfinite(score):
            self.last_validation_return = score
            before = self.validation_return
            self.validation_return = score if math.isnan(before) else max(before, score)


TuneProgress = Callable[[Trial, Sequence[Trial]], None]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials by validation return, the best first, those without one last."""
    return sorted(trials, key=lambda trial: (math.isnan(trial.validation_return), -trial.validation_return))


@dataclass
class TrialBook:
    """Keep the account of all trials, on disk after every change."""

    folder: Path
    trials: list[Trial]
    varied: Sequence[str]
    progress: TuneProgress | None

    def take(self, number: int, told: Mapping[str, Any]) -> None:
        """Take down what a trial reports."""
        trial = self.trials[number]
        if told.get("error"):
            trial.state, trial.error = "failed", str(told["error"])
        elif "iterations" in told:
            trial.take(told)
        self._changed(trial)

    def end(self, number: int, error: str = "") -> None:
        """Take down that a trial is over."""
        trial = self.trials[number]
        if trial.over:
            return
        trial.state, trial.error = ("failed", error) if error else (self._how_it_ended(trial), "")
        self._changed(trial)

    def close(self) -> None:
        """Take down the trials that were under way, or never begun, as stopped."""
        for trial in self.trials:
            if not trial.over:
                trial.state = "stopped"
        self.write()

    def _how_it_ended(self, trial: Trial) -> str:
        try:
            manifest = json.loads((self.folder / trial.folder / "run.json").read_text())
            return "finished" if manifest["sessions"][-1]["stopped"] == "finished" else "stopped"
        except (OSError, ValueError, KeyError):
            return "stopped"

    def _changed(self, trial: Trial) -> None:
        self.write()
        if self.progress is not None:
            self.progress(trial, self.trials)

    def write(self) -> None:
        """Write ``trials.csv``, whole or not at all."""
        temporary = self.folder / f".{TRIALS}"
        columns = [name for name in asdict(self.trials[0]) if name not in ("drawn", "error")]
        with temporary.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([*columns, *self.varied, "folder", "error"])
            for trial in self.trials:
                values = [getattr(trial, name) for name in columns]
                shown = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
                drawn = [trial.drawn.get(name, "") for name in self.varied]
                writer.writerow([*shown, *drawn, trial.folder, trial.error.splitlines()[-1] if trial.error else ""])
        temporary.replace(self.folder / TRIALS)

"""What OpenDSS gives by itself for a folder of scripts, in a process without this package, and how far that is off."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from powergrid.errors import PowerGridError
from powergrid.evaluation.opendss.played import PlayedDay

FloatArray = npt.NDArray[np.float64]

BARE = Path(__file__).with_name("bare.py")
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class EnginePlay:
    """What the engine gave by itself, step by step.

    Attributes:
        nodes: ``bus.phase`` of each node.
        v: Voltage magnitude [V], shape (n_steps, n_nodes).
        converged: Whether each step converged.
        losses_kw, source_kw: Losses and import, shape (n_steps,).
        taps: Position of each regulator control, before the first step and after each, shape (n_steps + 1, n_controls).
        states: Steps on of each capacitor, likewise, shape (n_steps + 1, n_capacitors).
        capacitors: Their names.
        hunting: Steps in which controls did not come to rest, and were held where they were.
        tables: What monitors and meters recorded, by ``monitor:NAME`` and ``meter:NAME``.
    """

    nodes: tuple[str, ...]
    v: FloatArray
    converged: npt.NDArray[np.bool_]
    losses_kw: FloatArray
    source_kw: FloatArray
    taps: npt.NDArray[np.int64]
    states: npt.NDArray[np.int64]
    capacitors: tuple[str, ...]
    hunting: int
    tables: Mapping[str, pd.DataFrame]

    def v_pu(self, day: PlayedDay) -> FloatArray:
        """Return the voltages in the order and by the bases of a day's nodes [pu], shape (n_steps, n_nodes).

        Raises:
            PowerGridError: the engine has other nodes.
        """
        place = {name: i for i, name in enumerate(self.nodes)}
        if missing := [name for name in day.nodes if name not in place]:
            raise PowerGridError(f"played by itself the feeder has no node {missing[0]}, and {len(missing)} in all")
        voltages: FloatArray = self.v[:, [place[name] for name in day.nodes]] / day.v_base
        return voltages


def play_alone(folder: str | Path) -> EnginePlay:
    """Let the engine play a folder of scripts in a process of its own that has none of this package's code.

    Raises:
        PowerGridError: it does not get through.
    """
    with tempfile.TemporaryDirectory(prefix="powergrid-opendss-") as scratch:
        result = Path(scratch) / "result.npz"
        # Isolated: neither this package's folder nor what the user's environment says is on its path.
        command = [sys.executable, "-I", str(BARE), str(Path(folder).resolve()), str(result)]
        try:
            ended = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise PowerGridError(f"{folder}: the engine has not played it within {_TIMEOUT_S:g} s") from None
        if ended.returncode or not result.is_file():
            # OpenDSS's own words come last, on several lines.
            said = " ".join(ended.stderr.rpartition("Exception: ")[2].split()) or f"it ended with {ended.returncode}"
            raise PowerGridError(f"{folder}: the engine cannot play it: {said}")
        with np.load(result) as arrays:
            header = json.loads(str(arrays["header"]))
            return EnginePlay(
                nodes=tuple(arrays["nodes"].tolist()),
                **{key: arrays[key] for key in ("v", "converged", "losses_kw", "source_kw", "taps", "states")},
                capacitors=tuple(arrays["capacitors"].tolist()),
                hunting=int(arrays["hunting"]),
                tables={name: _table(arrays[name], columns) for name, columns in header.items()},
            )


def _table(values: FloatArray, columns: Sequence[str]) -> pd.DataFrame:
    """Return what was recorded as a table; a monitor has its hour and second before its channels."""
    names = [str(each).strip() for each in columns]
    names = [*(["hour", "sec"] if values.ndim == 2 and values.shape[1] == len(names) + 2 else []), *names]
    return pd.DataFrame(values.reshape(-1, len(names)), columns=names)


@dataclass(frozen=True)
class Difference:
    """How far the engine's own play of a day is from what the environment saw.

    Attributes:
        largest_pu: Largest difference of any node's voltage in any step [pu].
        node, step: Where and when, steps from 1.
        n_nodes, n_steps: Of how many.
        steps_over: Steps in which any node differs by more than 1e-6 pu.
    """

    largest_pu: float
    node: str
    step: int
    n_nodes: int
    n_steps: int
    steps_over: int

    def __str__(self) -> str:
        over = f"; more than 1e-6 pu in {self.steps_over} steps" if self.steps_over else ""
        return (
            f"OpenDSS alone gives the same voltages within {self.largest_pu:.1e} pu, {self.n_nodes} nodes x "
            f"{self.n_steps} steps (most at {self.node} in step {self.step}){over}"
        )


def compare_with_engine(day: PlayedDay, played: EnginePlay) -> Difference:
    """Compare every node's voltage in every step.

    Raises:
        PowerGridError: the engine has other nodes or steps, or did not converge.
    """
    if len(played.v) != day.n_steps or not played.converged.all():
        done = int(played.converged.sum())
        raise PowerGridError(f"played by itself {done} of {day.n_steps} steps converge")
    apart = np.abs(played.v_pu(day) - day.v_pu)
    step, node = np.unravel_index(int(apart.argmax()), apart.shape)
    over = int((apart.max(axis=1) > 1e-6).sum())
    return Difference(float(apart.max()), day.nodes[node], int(step) + 1, len(day.nodes), day.n_steps, over)

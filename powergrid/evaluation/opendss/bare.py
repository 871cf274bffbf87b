"""Play a folder of OpenDSS scripts in the engine alone, and write what it gave: needs opendssdirect and numpy.

    python replay.py FOLDER RESULT.npz

No other module of this package is used: it may be copied beside the scripts and run where PowerGrid is not installed.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect as dss


def commands(file: Path) -> Iterator[str]:
    """Yield the commands of a script; of those it redirects to, only the day is read line by line."""
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        line = line.strip()
        words = line.split()
        if not line or line.startswith("!") or words[0].lower() == "export":
            continue
        if words[0].lower() == "redirect":
            own = file.parent / words[1]
            if own.name == "Day.dss":
                yield from commands(own)
                continue
            line = f'redirect "{own}"'
        yield line


class Record:
    """What is read after each solve."""

    def __init__(self) -> None:
        self.v: list[Any] = []
        self.solved: list[Any] = []
        self.taps: list[Any] = []
        self.states: list[Any] = []
        self.meters: dict[str, list[Any]] = {}
        self.nodes: list[str] = []
        self.hunting = 0

    def look_at_switchgear(self) -> None:
        """Read tap positions of regulators and steps of capacitors."""
        self.taps.append([dss.RegControls.TapNumber() for _ in _each(dss.RegControls)])
        self.states.append([sum(dss.Capacitors.States()) for _ in _each(dss.Capacitors)])

    def look(self) -> None:
        """Read voltages, losses, taps, capacitor steps and meters."""
        self.nodes = self.nodes or [name.lower() for name in dss.Circuit.YNodeOrder()]
        self.v.append(np.abs(np.asarray(dss.Circuit.YNodeVArray()).view(complex)))
        losses, _ = np.asarray(dss.Circuit.Losses()).view(float)[:2]
        self.solved.append((dss.Solution.Converged(), losses / 1000.0, -dss.Circuit.TotalPower()[0]))
        self.look_at_switchgear()
        for name in _each(dss.Meters):
            self.meters.setdefault(name, []).append(list(dss.Meters.RegisterValues()))

    def write(self, file: Path) -> None:
        """Write all of it, and what monitors recorded."""
        monitors = {
            name: (list(dss.Monitors.Header()), np.asarray(dss.Monitors.AsMatrix())) for name in _each(dss.Monitors)
        }
        tables: dict[str, Any] = {f"monitor:{name}": matrix for name, (_, matrix) in monitors.items()}
        tables |= {f"meter:{name}": np.array(rows) for name, rows in self.meters.items()}
        header = {f"monitor:{name}": columns for name, (columns, _) in monitors.items()}
        if self.meters:
            dss.Meters.First()
            header |= {f"meter:{name}": list(dss.Meters.RegisterNames()) for name in self.meters}
        solved = np.array(self.solved, dtype=float).reshape(-1, 3)
        np.savez(
            file, nodes=np.array(self.nodes), v=np.array(self.v), converged=solved[:, 0] > 0, losses_kw=solved[:, 1],
            source_kw=solved[:, 2], taps=np.array(self.taps), states=np.array(self.states),
            header=np.array(json.dumps(header)), capacitors=np.array(list(_each(dss.Capacitors)), dtype=str),
            hunting=np.array(self.hunting), **tables,
        )  # fmt: skip


def _each(collection: Any) -> Iterator[str]:
    at = collection.First()
    while at:
        yield collection.Name()
        at = collection.Next()


def solve(record: Record) -> None:
    """Solve a step; controls that hunt are held where they got to."""
    if not record.v:
        record.look_at_switchgear()
    try:
        dss.Text.Command("solve")
    except dss.DSSException:
        record.hunting += 1
        dss.Text.Command("get number")  # the engine refuses to go on until some command
        dss.Solution.SolveNoControl()
    record.look()


def main(folder: Path, result: Path) -> None:
    """Play a folder's master file."""
    dss.Basic.AllowForms(False)
    dss.Basic.AllowEditor(False)
    dss.Basic.AllowChangeDir(False)
    record = Record()
    with tempfile.TemporaryDirectory() as scratch:
        dss.Basic.DataPath(scratch)
        for command in commands(folder.resolve() / "Master.dss"):
            if command.lower() == "solve":
                solve(record)
            else:
                dss.Text.Command(command)
        record.write(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

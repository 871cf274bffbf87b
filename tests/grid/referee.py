"""OpenDSS in a mode of its own, as a referee of what we play: the file as it stands, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from powergrid.grid.engine import Engine, PowerReader

#: Classes whose elements draw or feed.
CLASSES = ("Vsource", "Load", "Generator", "PVSystem", "Storage", "Isource", "IndMach012")


@contextmanager
def compiled(master: Path, *, tolerance: float = 1e-9) -> Iterator[Engine]:
    """Compile a file line by line in an engine of its own, and nothing else."""
    engine = Engine()
    try:
        engine.set_folder(master.parent)
        for line in master.read_text().splitlines():
            if line.strip():
                engine.command(line)
        for option in (f"tolerance={tolerance}", "maxiterations=100", "maxcontroliter=100"):
            engine.command(f"set {option}")
        yield engine
    finally:
        engine.close()


def play(
    engine: Engine, mode: str, n_steps: int, step_minutes: int, *, hour: int = 0, taps: Mapping[str, float] = {}
) -> dict[str, np.ndarray]:
    """Step a compiled circuit through a mode of the engine's own.

    Returns:
        What each element draws, ``class.name`` in lower case, complex [kVA]; ``losses`` [kW], ``v`` of all nodes [V]
        and the taps of each transformer, ``tap.name``: each with a row a step.
    """
    for name, tap in taps.items():
        engine.command(f'edit "Transformer.{name}" wdg=2 tap={tap!r}')
    engine.command(f"set mode={mode} stepsize={step_minutes}m number=1 hour={hour} sec=0")
    names = [(c, name, handle) for c in CLASSES for name, handle in engine.handles(c).items()]
    reader = PowerReader([handle for _, _, handle in names])
    rows: dict[str, list[complex]] = {f"{c}.{name}".lower(): [] for c, name, _ in names}
    v, found = [], {name: [] for name in engine.handles("Transformer")}
    for _ in range(n_steps):
        engine.command("solve")
        for key, power in zip(rows, reader.read().tolist(), strict=True):
            rows[key].append(power)
        v.append(engine.voltages(len(engine.node_names()))[1:].copy())
        for name, handle in engine.handles("Transformer").items():
            found[name].append(engine.get_floats(handle, "Transformer", "Taps")[-1])
    played = {key: np.array(own) for key, own in rows.items()}
    losses = -np.sum([own.real for own in played.values()], axis=0)  # what goes in and does not come out
    return played | {"v": np.array(v), "losses": losses} | {f"tap.{name}": np.array(own) for name, own in found.items()}

"""Read all that can be read off an environment: the readings that perfect meters would send."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from powergrid.advice.catalogue import Catalogue
from powergrid.envs.core import GridTask


def readings_of(task: GridTask, catalogue: Catalogue, *, kinds: Collection[str] = ()) -> dict[str, float]:
    """Return all that can be read of the one environment of a task, by name: what a perfect meter would tell.

    Args:
        task: The task, after a reset or a step.
        catalogue: What may be read of it.
        kinds: Only readings of these targets; all if none is given.
    """
    simulation = task.simulation
    snapshot, row, channels = simulation.snapshot, int(simulation.step_index[0]), task.channels.state()
    seen = task.channels.values[0]
    taken: dict[str, float] = {}
    for reading in catalogue.readings:
        target, where = reading.target, reading.where
        if kinds and target not in kinds:
            continue
        if target == "known":
            number = channels[0, row, where[0]]
        elif target == "channel":
            number = seen[where[0]]
        elif target == "node":
            number = snapshot.v_pu[0, where[0]]
        elif target in ("p", "q"):
            number = getattr(snapshot.terminal_kva, "real" if target == "p" else "imag")[0, where[0]]
        elif target == "loading":
            number = snapshot.loading_pu[0, where[0]]
        elif target == "load":
            number = (simulation.day_load_kw, simulation.day_load_kvar)[where[0]][0, max(row - 1, 0), where[1]]
        elif target == "delivered":
            number = simulation.delivered[where[0], 0, where[1]]
        else:
            number = _read_fleet(simulation.fleets[where[0]], target, where[1:])
        taken[reading.name] = float(number)
    return taken


def _read_fleet(fleet: Any, target: str, where: Sequence[int]) -> float:
    if target == "set_p":
        return float(fleet.previous_p_kw[0, where[0]])
    if target != "state":
        return float(getattr(fleet, target)[0, where[0], where[1]])
    attribute, device = fleet.held[where[0]]
    return float(getattr(fleet, attribute)[0, device])

"""Write what a policy does on a day as OpenDSS scripts, and hold the engine's own play of them against it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from powergrid.evaluation.opendss import script
from powergrid.evaluation.opendss.engine_play import BARE, Difference, compare_with_engine, play_alone
from powergrid.evaluation.opendss.played import PlayedDay, play_day
from powergrid.evaluation.opendss.recorders import find_recorders, write_tables
from powergrid.evaluation.players import Policy, find_players, seat_players
from powergrid.evaluation.replay import pick_day
from powergrid.evaluation.replay.tables import TableFormat
from powergrid.evaluation.rollout import read_scenario
from powergrid.files import telling
from powergrid.scenario import Scenario, load_scenario

#: Beside the scripts: what the environment saw, and what plays them without this package.
SEEN, REPLAY = "voltages_seen.csv", "replay.py"
#: Tolerance of the power flow that days are played with to be written [pu]; that of a scenario leaves more than 1e-6.
TOLERANCE = 1e-9


def write_day(day: PlayedDay, folder: str | Path, recorders: Sequence[str] = ()) -> list[Path]:
    """Write a played day as OpenDSS scripts.

    Args:
        day: The day.
        folder: Where they go; it is made.
        recorders: Commands that define monitors and meters.

    Returns:
        The files: a master file, what it redirects to, the voltages that the environment saw, and a program that
        plays them with nothing but opendssdirect.

    Raises:
        OSError: the folder cannot be written to.
    """
    place = Path(folder)
    texts = {
        script.MASTER: script.write_master(day, recorders=bool(recorders)),
        script.FEEDER: script.write_feeder(day),
        script.DEMAND: script.write_demand(day),
        script.DAY: script.write_day(day),
    }
    if recorders:
        texts[script.RECORDERS] = "\n".join(recorders) + "\n"
    with telling(place):
        place.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        seen = pd.DataFrame(day.v_pu, columns=list(day.nodes), index=pd.RangeIndex(1, day.n_steps + 1, name="step"))
        seen.to_csv(place / SEEN, float_format="%.9f")
        shutil.copyfile(BARE, place / REPLAY)
    return [place / name for name in (*texts, SEEN, REPLAY)]


@dataclass(frozen=True)
class Export:
    """What was written of a day.

    Attributes:
        day: The day.
        files: The files.
        difference: How far the engine's own play is off; None where nobody asked.
        notes: What has to be known besides, a sentence each.
    """

    day: PlayedDay
    files: tuple[Path, ...]
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what there is to say, a line each."""
        day = self.day
        told = [f"{day.policy} in {day.scenario} on {day.date}, {day.n_steps} steps of {day.step_minutes} min"]
        told += map(str, self.files)
        return [*told, *self.notes, *([str(self.difference)] if self.difference is not None else [])]


def export_day(
    env_config: Mapping[str, Any] | Scenario,
    policy: str | tuple[str, Policy],
    when: int | str | None,
    out_dir: str | Path,
    *,
    seed: int = 0,
    verify: bool = False,
    monitors: bool = False,
    table_format: TableFormat = "csv",
) -> Export:
    """Play a day with a policy and write it as OpenDSS scripts.

    Args:
        env_config: As for ``NetworkedGridEnv``, or a scenario.
        policy: Name of a baseline, or a name with an object that has ``act``.
        when: The day from the first of the profiles, or its date; the first of the test split if not given.
        out_dir: Where the files go.
        seed: Seed of what is random in the day, as :func:`powergrid.evaluation.evaluate` takes it.
        verify: Let the engine play the scripts by itself and compare the voltages.
        monitors: Write what the feeder's own monitors and meters record while it does.
        table_format: Of these tables, ``csv`` or ``parquet``.

    Raises:
        ScenarioError: the settings, the policy's name or the day are wrong.
        FeederError: the feeder does not compile or solve.
        PowerGridError: a step does not converge, or the folder cannot be written to.
    """
    scenario, players = exactly(env_config), find_players([policy])
    profiles = scenario.read_profiles()
    for name, task, player in seat_players(scenario, players, 1, seed):
        chosen = int(task.simulation.days[0]) if when is None else pick_day(profiles, when)
        day, feeder = play_day(task, player, chosen, policy=name, seed=seed), task.simulation.feeder
    notes = [_say_handed_back(day)] if day.handed_back else []
    recorders = find_recorders(feeder, day, notes) if monitors else []
    place = Path(out_dir)
    files = write_day(day, place, recorders)
    difference = None
    if verify or monitors:
        played = play_alone(place)
        difference = compare_with_engine(day, played)
        files += write_tables(played, place, table_format) if monitors else []
    return Export(day, tuple(files), difference if verify else None, tuple(notes))


def _say_handed_back(day: PlayedDay) -> str:
    own = "are where the feeder's own controls have them, as never_worse_than says: written is what was played"
    return f"in {len(day.handed_back)} of {day.n_steps} steps, so marked in {script.DAY}, devices {own}"


def exactly(env_config: Mapping[str, Any] | Scenario) -> Scenario:
    """Return a scenario whose days are played as exactly as they are written."""
    scenario = read_scenario(env_config, "test")
    solver = scenario.solver.model_copy(update={"tolerance": min(TOLERANCE, scenario.solver.tolerance)})
    return load_scenario(scenario, {"solver": solver.model_dump()})

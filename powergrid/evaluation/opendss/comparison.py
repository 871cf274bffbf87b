"""Settings of OpenDSS's own controls beside the policy that they were fitted to, on days that were not fitted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from powergrid.errors import ScenarioError
from powergrid.evaluation.opendss import script
from powergrid.evaluation.opendss.curves import count_moves
from powergrid.evaluation.opendss.engine_play import EnginePlay, play_alone
from powergrid.evaluation.opendss.export import exactly, write_day
from powergrid.evaluation.opendss.played import PlayedDay, play_day
from powergrid.evaluation.opendss.settings import Settings, fit_settings, sun_shape
from powergrid.evaluation.players import Policy, find_players, seat_players
from powergrid.evaluation.replay import DayRecording, record_day
from powergrid.evaluation.report.tables import as_table
from powergrid.evaluation.rollout import Progress
from powergrid.files import telling
from powergrid.grid.profiles.profiles import eligible_days, pick_days
from powergrid.scenario import Scenario

if TYPE_CHECKING:
    from rich.table import Table

COMPARISON = "comparison.csv"
#: What adds up over days and is told of both.
_SUMS = {"node_hours_outside": "node-hours outside", "losses_kwh": "losses [kWh]", "import_kwh": "import [kWh]",
         "moves": "moves of switchgear"}  # fmt: skip
_CONTROLS = ("RegControl", "CapControl", "SwtControl", "InvControl", "ExpControl", "StorageController",
             "GenDispatcher", "Relay", "Recloser", "Fuse")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What settings lose against the policy that they were fitted to.

    Attributes:
        policy, scenario: Of whom and what.
        settings: The settings.
        fitted, told: Dates of the days fitted, and of those that the table is of.
        band: Limits of the voltage [pu].
        frame: A row for each day and player, ``policy`` and ``settings``, units in the names.
    """

    policy: str
    scenario: str
    settings: Settings
    fitted: tuple[str, ...]
    told: tuple[str, ...]
    band: tuple[float, float]
    frame: pd.DataFrame

    def totals(self) -> pd.DataFrame:
        """Return sums over the days, and the extremes, a row for each player."""
        by = self.frame.groupby("player", sort=False)
        return by[list(_SUMS)].sum().join(by.agg({"v_min_pu": "min", "v_max_pu": "max"}))

    def apart_pu(self) -> float:
        """Return the largest difference in the voltage of any node in any step [pu]."""
        return float(self.frame["apart_max_pu"].max())

    def sentence(self) -> str:
        """Say in a sentence what is lost or won, as it was computed."""
        totals = self.totals()
        policy, own = totals.loc["policy"], totals.loc["settings"]
        overlap = set(self.fitted) & set(self.told)
        days = f"{len(self.told)} days" if len(self.told) > 1 else "one day"
        which = f"{days}, {len(overlap)} of them among those fitted" if overlap else f"{days} that were not fitted"
        low, high = self.band
        return (
            f"On {which}, the settings have {own['node_hours_outside']:.1f} node-hours outside {low:g}..{high:g} pu "
            f"where the policy has {policy['node_hours_outside']:.1f}, {own['losses_kwh']:.0f} kWh of losses for "
            f"{policy['losses_kwh']:.0f}, and {own['moves']:.0f} moves for {policy['moves']:.0f}; voltages are up to "
            f"{self.apart_pu():.4f} pu apart."
        )

    def table(self) -> Table:
        """Return the totals as a table for the terminal."""
        totals, rows = self.totals(), list[Sequence[str]]()
        for column, words in (_SUMS | {"v_min_pu": "lowest voltage [pu]", "v_max_pu": "highest voltage [pu]"}).items():
            form = ".4f" if column.endswith("_pu") else ",.1f"
            policy, own = totals[column].astype(float).tolist()
            rows.append((words, f"{policy:{form}}", f"{own:{form}}", f"{own - policy:+{form}}"))
        rows.append(("largest difference in voltage [pu]", "", "", f"{self.apart_pu():.4f}"))
        if hunting := int(self.frame["hunting_steps"].sum()):
            rows.append(("steps in which controls hunt", "", f"{hunting}", ""))
        title = f"{self.policy} in {self.scenario}: settings fitted, in plain OpenDSS"
        return as_table(title, ["", "policy", "settings", "difference"], rows)

    def write(self, folder: str | Path) -> Path:
        """Write the rows as a CSV file."""
        place = Path(folder)
        with telling(place):
            place.mkdir(parents=True, exist_ok=True)
            self.frame.to_csv(place / COMPARISON, index=False, float_format="%.6g")
        return place / COMPARISON


def compare_settings(
    env_config: Mapping[str, Any] | Scenario,
    policy: str | tuple[str, Policy],
    days: int = 7,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Fit settings to days of the train split, and play them in plain OpenDSS on as many of the test split.

    Args:
        env_config: As for ``NetworkedGridEnv``, or a scenario.
        policy: Name of a baseline, or a name with an object that has ``act``.
        days: How many days are fitted, and how many told; each spread evenly over its split.
        seed: Seed of what is random in a day.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: the settings or the policy's name are wrong.
        FeederError: the feeder does not compile or solve.
        PowerGridError: a step of the policy's does not converge.
    """
    scenario = exactly(env_config)
    fitted, told = _choose_days(scenario, days)
    done, total = 0, len(fitted) + 2 * len(told)
    recordings = list[DayRecording]()
    for day in fitted:
        recordings += record_day(scenario, [policy], day, seed=seed)
        done += 1
        if progress is not None:
            progress(done, total)
    rows, settings = list[dict[str, Any]](), None
    for name, task, player in seat_players(scenario, find_players([policy]), 1, seed):
        for day in told:
            played = play_day(task, player, day, policy=name, seed=seed)
            settings = settings or fit_settings(recordings, played.elements)
            recording = record_day(scenario, [policy], day, seed=seed)[0]
            rows += _tell_day(played, recording, settings)
            done += 2
            if progress is not None:
                progress(done, total)
    assert settings is not None
    dates = tuple(dict.fromkeys(row["date"] for row in rows))
    own = tuple(recording.date for recording in recordings)
    return Comparison(name, scenario.name, settings, own, dates, recordings[0].band, pd.DataFrame(rows))


def export_settings(
    env_config: Mapping[str, Any] | Scenario,
    policy: str | tuple[str, Policy],
    day: PlayedDay,
    out_dir: str | Path,
    days: int = 7,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Comparison, list[Path]]:
    """Fit settings, compare them, and write them, the table of the days told, and a day to be played with them.

    Args:
        day: The day to be written with settings.
        out_dir: Where the files go.
        env_config, policy, days, seed, progress: As of :func:`compare_settings`.

    Raises:
        ScenarioError: the settings or the policy's name are wrong.
        FeederError: the feeder does not compile or solve.
        PowerGridError: a step of the policy's does not converge, or the folder cannot be written to.
    """
    found = compare_settings(env_config, policy, days, seed=seed, progress=progress)
    recording = record_day(exactly(env_config), [policy], day.day, seed=seed)[0]
    folder = Path(out_dir)
    return found, [*_write_fitted(day, recording, found.settings, folder), found.write(folder)]


def _choose_days(scenario: Scenario, count: int) -> tuple[list[int], list[int]]:
    """Return days to fit and days to tell; halves of all where there are no splits."""
    profiles, horizon, minutes = scenario.read_profiles(), scenario.episode_length, scenario.step_minutes
    try:
        fit, tell = (eligible_days(profiles, split, horizon, minutes) for split in ("train", "test"))
    except ScenarioError:
        every = eligible_days(profiles, "all", horizon, minutes)
        fit, tell = (every[: -(-len(every) // 2)], every[len(every) // 2 :])
    return pick_days(fit, count).tolist(), pick_days(tell, count).tolist()


def _write_fitted(day: PlayedDay, recording: DayRecording, settings: Settings, folder: Path) -> list[Path]:
    """Write a day with settings in place of what the policy did, as scripts that OpenDSS plays alone.

    Args:
        day, recording: The day as the policy played it: its demand, its sun, and what no setting stands for.
        settings: The settings.
        folder: Where the scripts go; it is made.
    """
    fits = settings.fits.values()
    fitted = [name for fit in fits for name in (fit.element, fit.replaces) if name]
    texts = {
        script.MASTER: (
            f"! {day.scenario} on {day.date} with OpenDSS's own controls, set as {day.policy} acts.\nClear\n"
            + "".join(f"Redirect {name}\n" for name in
                      (script.FEEDER, script.DEMAND, script.SUN, script.SETTINGS, script.DAY))
        ),
        script.FEEDER: script.write_feeder(day) + _take_out_controls(day.feeder),
        script.DEMAND: script.write_demand(day),
        script.SUN: _write_sun(recording),
        script.SETTINGS: settings.text(),
        script.DAY: script.write_day(day, fitted=fitted, controls="static"),
    }  # fmt: skip
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return [folder / name for name in texts]


def _take_out_controls(feeder: str) -> str:
    """Disable the controls of the model: settings stand for those that matter, and edits for what others did."""
    there = [name for name in _CONTROLS if f'New "{name}.' in feeder]
    return "".join(f"BatchEdit {name}..* enabled=no\n" for name in there)


def _write_sun(recording: DayRecording) -> str:
    """Return the sun of the day as shapes, one for each inverter."""
    lines = ["! What the sun offers each inverter, in parts of its panels."]
    for name, spec in recording.specs.items():
        if spec.kind == "inverter":
            parts = recording.devices.of(name, "available_kw") / float(spec.p_max_kw)
            values = " ".join(script.number(round(float(part), 9)) for part in parts)
            minutes = script.number(float(recording.step_minutes))
            lines.append(f"New LoadShape.{sun_shape(name)} npts={len(parts)} minterval={minutes} mult=[{values}]")
    return "\n".join(lines) + "\n"


def _tell_day(day: PlayedDay, recording: DayRecording, settings: Settings) -> list[dict[str, Any]]:
    """Play a day alone as the policy had it and with settings, and return a row for each."""
    with tempfile.TemporaryDirectory(prefix="powergrid-settings-") as scratch:
        policy, own = Path(scratch) / "policy", Path(scratch) / "settings"
        write_day(day, policy)
        _write_fitted(day, recording, settings, own)
        plays = {"policy": play_alone(policy), "settings": play_alone(own)}
    moves = {"policy": float(recording.network["operations"].sum())}
    moves["settings"] = (
        moves["policy"] - _moves_of_policy(recording, settings) + _moves_alone(plays["settings"], settings)
    )
    apart = np.abs(plays["settings"].v_pu(day) - plays["policy"].v_pu(day))[day.energised].max()
    return [
        {
            "date": day.date,
            "day": day.day,
            "player": player,
            **_measure(play, day, recording),
            "moves": moves[player],
            "apart_max_pu": float(apart),
            "hunting_steps": play.hunting,
            "converged_share": float(play.converged.mean()),
        }
        for player, play in plays.items()
    ]


def _measure(play: EnginePlay, day: PlayedDay, recording: DayRecording) -> dict[str, float]:
    v_pu, dt_h = play.v_pu(day), day.step_minutes / 60.0
    low, high = recording.band
    counts = day.energised & ~recording.feeder_network.is_neutral
    return {
        "node_hours_outside": float((((v_pu < low) | (v_pu > high)) & counts).sum() * dt_h),
        "v_min_pu": float(v_pu[counts].min()),
        "v_max_pu": float(v_pu[counts].max()),
        "losses_kwh": float(play.losses_kw.sum() * dt_h),
        "import_kwh": float(play.source_kw.sum() * dt_h),
    }


def _moves_of_policy(recording: DayRecording, settings: Settings) -> float:
    """Return how often the policy moved what settings move now."""
    moved = [name for name in settings.fits if recording.specs[name].kind in ("regulator", "capacitor")]
    return float(sum(recording.devices.of(name, "operations").sum() for name in moved))


def _moves_alone(play: EnginePlay, settings: Settings) -> float:
    """Return how often settings moved it."""
    banks = {fit.element.partition(".")[2].lower() for fit in settings.fits.values() if fit.element.startswith("Capac")}
    own: Sequence[int] = [i for i, name in enumerate(play.capacitors) if name.lower() in banks]
    return float(count_moves(play.taps) + count_moves(play.states[:, own]))

"""Where a policy loses against the optimum of the same days: by reward term, hour and device, in USD a day.

A device's part is measured: a day is played anew with that device alone doing as in the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.baselines import BASELINES, Baseline
from powergrid.evaluation.players import Player, Policy, find_players, seat_players
from powergrid.evaluation.report.tables import as_table, write_tables
from powergrid.evaluation.rollout import play_steps, read_scenario, start_days
from powergrid.quantities import TERMS
from powergrid.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FloatArray = npt.NDArray[np.float64]

#: Parts of a day that the table by term tells apart [h].
_PARTS = ((0, 6), (6, 12), (12, 18), (18, 24))
#: Less is not shown [USD/day].
_SHOWN_USD = 0.5


@dataclass(frozen=True)
class PlayedDay:
    """A day as somebody played it.

    Attributes:
        policy: Who.
        day, date: The day, from the first of the profiles, and its date.
        reward: Its reward, mean over agents.
        usd: What each weighed term took from the reward, all agents, shape (n_steps, n_terms) [USD].
        terms: Names of the terms.
        actions: What was done, shape (n_steps, n_actions).
        series: What the picture shows by step, by name: batteries and panels in kW and kvar, charge as a part of what
            all batteries hold, power from the source in kW, lowest and highest voltage in pu.
        hours: Hour of the day at which each step begins, shape (n_steps,).
        movable: Whether the actions alone make the day, so that one device may be given another's.
    """

    policy: str
    day: int
    date: str
    reward: float
    usd: FloatArray
    terms: tuple[str, ...]
    actions: FloatArray
    series: Mapping[str, FloatArray]
    hours: FloatArray
    movable: bool


class _Recorder:
    """Take down what a task of one environment plays."""

    def __init__(self, task: GridTask) -> None:
        scenario, simulation = task.scenario, task.simulation
        self._task = task
        told = [(place, name) for place, name in enumerate(task.info_names) if name in TERMS]
        told = [(place, name) for place, name in told if scenario.weight_of(name)]
        self._columns, self.terms = [place for place, _ in told], tuple(name for _, name in told)
        self._weights = np.array([scenario.weight_of(name) for name in self.terms])
        fleets = {fleet.kind: fleet for fleet in simulation.fleets}
        self._storage = fleets.get("storage")
        places = {name: place for place, name in enumerate(simulation.power_device_names)}
        self._of = {
            what: [places[name] for name in (fleets[kind].names if kind in fleets else ())]
            for what, kind in (("batteries", "storage"), ("panels", "inverter"))
        }
        kwh = [float(spec.e_max_kwh) for spec in self._storage.specs] if self._storage is not None else []
        self._share = np.array(kwh) / max(sum(kwh), 1e-9)
        self.usd, self.series = list[FloatArray](), dict[str, list[float]]()

    def add(self) -> None:
        """Take the step that was just played."""
        task, simulation = self._task, self._task.simulation
        self.usd.append(task.infos()[0][:, self._columns].sum(axis=0) * self._weights)
        p_kw, q_kvar = simulation.delivered[0][0], simulation.delivered[1][0]
        now: dict[str, float] = {"source_kw": float(simulation.snapshot.source_kva.real[0])}
        for what, places in self._of.items():
            if places:
                now |= {f"{what}_kw": float(p_kw[places].sum()), f"{what}_kvar": float(q_kvar[places].sum())}
        if self._storage is not None:
            now["charge"] = float(self._storage.soc[0] @ self._share)
        now |= {"v_min_pu": float(task.metrics.v_min_pu[0]), "v_max_pu": float(task.metrics.v_max_pu[0])}
        for name, value in now.items():
            self.series.setdefault(name, []).append(value)


def play_day(scenario: Scenario, players: Sequence[Player], day: int, seed: int = 0) -> Iterator[PlayedDay]:
    """Yield a day as each player plays it."""
    for name, task, player in seat_players(scenario, players, 1, seed):
        policy = dict(players)[name]
        start_days(task, player, [day], seed)
        recorder, actions, reward = _Recorder(task), list[FloatArray](), 0.0
        for action, _ in play_steps(task, player, 1):
            recorder.add()
            actions.append(action[0].copy())
            reward += float(task.rewards[0].mean())
        simulation = task.simulation
        start = simulation.profiles.start
        first = float((start - start.astype("datetime64[D]")) / np.timedelta64(1, "h"))
        yield PlayedDay(
            name,
            day,
            str(start.astype("datetime64[D]") + day),
            reward,
            np.array(recorder.usd),
            recorder.terms,
            np.array(actions),
            {key: np.array(values) for key, values in recorder.series.items()},
            np.asarray(first + (int(simulation.first_step[0]) + np.arange(len(actions))) * simulation.dt_h, np.float64),
            policy is not None or not BASELINES[name].overrides(scenario),
        )


class _Replay(Baseline):
    """Play actions that are known."""

    def __init__(self, actions: FloatArray) -> None:
        self._actions = actions

    def reset(self, task: GridTask, env: int) -> None:
        """Nothing to get ready."""

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come."""
        chosen: FloatArray = self._actions[int(task.simulation.step_index[0])][None]
        return chosen


def replay(task: GridTask, day: int, seed: int, actions: FloatArray) -> float:
    """Return the reward of a day with known actions, mean over agents."""
    player = _Replay(actions)
    start_days(task, player, [day], seed)
    return sum(float(task.rewards[0].mean()) for _ in play_steps(task, player, 1))


@dataclass(frozen=True)
class Gap:
    """Where a policy loses against the optimum, over some days.

    Attributes:
        policy: The policy.
        days: The days, policy's and optimum's.
        by_term: Lost by term and hour of the day, columns ``term``, ``hour``, ``usd`` [USD/day].
        by_device: By device: ``alone_usd``, what the policy's day gains where that device alone does as in the optimum;
            ``without_usd``, what the optimum's loses where it alone does as under the policy; both [USD/day].
    """

    policy: str
    days: tuple[tuple[PlayedDay, PlayedDay], ...]
    by_term: pd.DataFrame
    by_device: pd.DataFrame

    @property
    def usd(self) -> float:
        """What the policy loses [USD/day]."""
        return float(self.by_term["usd"].sum())

    def tables(self) -> list[Table]:
        """Return the gap by term, by hour and by device, as tables of the command line."""
        return [table for table in (self._term_table(), self._hour_table(), self._device_table()) if table is not None]

    def _term_table(self) -> Table:
        terms = sorted(self.by_term["term"].unique(), key=lambda term: -self._sum(term))
        rows: list[Sequence[str]] = [
            (term, f"{self._sum(term):+.0f}", *(f"{self._sum(term, *span):+.0f}" for span in _PARTS))
            for term in terms
            if any(abs(self._sum(term, *span)) >= _SHOWN_USD for span in _PARTS)
        ]
        rows.append(("all", f"{self.usd:+.0f}", *(f"{self._sum(None, *span):+.0f}" for span in _PARTS)))
        caption = "USD/day that the reward loses against the optimum; negative where the policy does better"
        headings = ["term", "a day", *(f"{begin}-{end} h" for begin, end in _PARTS)]
        return as_table(f"where {self.policy} loses: by term", headings, rows, caption=caption)

    def _sum(self, term: str | None, begin: int = 0, end: int = 24) -> float:
        """Return what is lost in some hours, by one term or by all [USD/day]."""
        chosen = (self.by_term["hour"] >= begin) & (self.by_term["hour"] < end)
        if term is not None:
            chosen &= self.by_term["term"] == term
        return float(self.by_term.loc[chosen, "usd"].sum())

    def _hour_table(self) -> Table:
        rows: list[Sequence[str]] = []
        for hour, own in self.by_term.groupby("hour"):
            most = own.sort_values("usd", key=np.abs, ascending=False).head(2)
            told = [
                f"{t} {usd:+.0f}" for t, usd in zip(most["term"], most["usd"], strict=True) if abs(usd) >= _SHOWN_USD
            ]
            if told:
                rows.append((str(hour), f"{own['usd'].sum():+.0f}", ", ".join(told)))
        headings, caption = (
            ["hour", "USD", "mostly"],
            "energy moved to another hour is lost in one and won in the other",
        )
        title = f"where {self.policy} loses: by hour"
        return as_table(title, headings, rows, texts=("hour", "mostly"), caption=caption)

    def _device_table(self) -> Table | None:
        if self.by_device.empty:
            return None
        order = self.by_device.sort_values("alone_usd", ascending=False)
        rows = [(row.device, f"{row.alone_usd:+.0f}", f"{row.without_usd:+.0f}") for _, row in order.iterrows()]
        caption = (
            "USD/day. Gains: the policy's day with this device alone as in the optimum. Costs: the optimum's with this "
            "device alone as under the policy. They do not add up: devices act together"
        )
        headings = ["device", "gains", "costs"]
        return as_table(f"where {self.policy} loses: by device", headings, rows, caption=caption)

    def write(self, folder: str | Path) -> list[Path]:
        """Write the gap by term and hour and by device, each as CSV, and both as ``gap_<policy>.json``."""
        name = f"gap_{self.policy.strip('/').replace('/', '_')}"
        devices: list[dict[str, Any]] = self.by_device.to_dict("records")  # type: ignore[assignment]
        told = {"policy": self.policy, "days": [own.date for own, _ in self.days], "usd_per_day": self.usd}
        csv, json = write_tables(Path(folder), name, self.by_term, {**told, "by_device": devices})
        return [csv, json]


def explain(
    env_config: Mapping[str, Any] | Scenario,
    policy: str | tuple[str, Policy],
    days: Sequence[int],
    *,
    beside: Sequence[str] = ("rule_based",),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Gap, list[PlayedDay]]:
    """Return where a policy loses against the optimum, and the first day as both and others played it.

    Args:
        env_config: As for :func:`powergrid.evaluation.evaluate`.
        policy: The name of a baseline, or a name and a policy.
        days: The days, from the first of the profiles.
        beside: Baselines that play the first day too.
        seed: Seed of what is random in a day.
        progress: Called with the number of days done and to do.

    Raises:
        ScenarioError: The settings are wrong, or the scenario has what no program tells.
    """
    scenario = read_scenario(env_config, "all")
    if policy == "optimum":
        raise ScenarioError("explain", ["the optimum loses nothing against itself; name another policy"])
    players = find_players([policy, "optimum"])
    name = players[0][0]
    beside = [each for each in beside if each not in (name, "optimum")]
    pairs, swapped, first = list[tuple[PlayedDay, PlayedDay]](), list[FloatArray](), list[PlayedDay]()
    task = GridTask(scenario, 1)
    try:
        for place, day in enumerate(days):
            others: list[Player] = [(each, None) for each in beside] if not place else []
            mine, best, *more = play_day(scenario, [*players, *others], day, seed)
            pairs.append((mine, best))
            first = first or [mine, *more, best]
            swapped.append(_swap(task, mine, best, seed))
            if progress is not None:
                progress(place + 1, len(days))
        names = list(task.simulation.device_names)
    finally:
        task.close()
    return Gap(name, tuple(pairs), _by_term(pairs), _by_device(names, swapped, scenario, len(task.agents))), first


def _swap(task: GridTask, mine: PlayedDay, best: PlayedDay, seed: int) -> FloatArray:
    """Return what each device wins the one day and loses the other, shape (n_devices, 2); NaN of what does not act."""
    names = task.simulation.device_names
    found = np.full((len(names), 2), np.nan)
    if not mine.movable:
        return found
    for place, device in enumerate(names):
        own = [column for column, action in enumerate(task.simulation.actions) if action.device == device]
        if not own or mine.actions.shape != best.actions.shape:
            continue
        for side, (of, other) in enumerate(((mine, best), (best, mine))):
            actions = of.actions.copy()
            actions[:, own] = other.actions[:, own]
            found[place, side] = (replay(task, mine.day, seed, actions) - of.reward) * (1.0 - 2.0 * side)
    return found


def _by_term(pairs: Sequence[tuple[PlayedDay, PlayedDay]]) -> pd.DataFrame:
    import pandas as pd

    mine, best = pairs[0]
    lost = np.mean([own.usd - other.usd for own, other in pairs], axis=0)
    hours = mine.hours.astype(np.int64) % 24
    rows = [
        {"term": term, "hour": int(hour), "usd": float(lost[hours == hour, place].sum())}
        for place, term in enumerate(best.terms)
        for hour in np.unique(hours)
    ]
    return pd.DataFrame(rows)


def _by_device(names: Sequence[str], swapped: Sequence[FloatArray], scenario: Scenario, n_agents: int) -> pd.DataFrame:
    import pandas as pd

    usd = np.mean(swapped, axis=0) * n_agents / scenario.reward.scale
    rows = zip(names, usd[:, 0], usd[:, 1], strict=True)
    return pd.DataFrame(rows, columns=["device", "alone_usd", "without_usd"]).dropna()

"""Play the same days with several policies, on one feeder or on several; tables are made in ``report``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.envs.draws import tell
from powergrid.errors import ScenarioError, find_number_problems, show_briefly
from powergrid.evaluation.baselines import BASELINES, Baseline
from powergrid.evaluation.players import Player, Policy, find_players, seat_players
from powergrid.evaluation.players.trained import find_all_differences
from powergrid.evaluation.report import EvaluationReport, FeederComparison
from powergrid.evaluation.report.seeds import find_seeds, group_seeds
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.grid.profiles.profiles import pick_days
from powergrid.quantities import MONEY_TERMS, TERMS, VIOLATION_SUFFIXES
from powergrid.scenario import Scenario, as_env_config, load_scenario, scenario_from_config

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]


def evaluate(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    *,
    split: str = "test",
    days: int | Sequence[int] = 30,
    seed: int = 0,
    progress: Progress | None = None,
    n_envs: int = 4,
) -> EvaluationReport:
    """Play the same days with every policy and compare them.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        policies: Names of baselines, or a name with an object that has ``act``. Those loaded from runs that differ in
            nothing but the seed are one row of the report's tables, with intervals over seeds and days.
        split: Which days: train, validation, test or all.
        days: How many; they are spread evenly over the split, all of it where it has fewer. Or which, from the first of
            the profiles.
        seed: Seed of whatever is random in an episode, and of ``random``; with the day it starts each episode's own
            stream, so every policy meets the same cars.
        progress: Called with the number of episodes played and to play.
        n_envs: Episodes played at once; the results do not depend on it.

    Raises:
        ScenarioError: the settings, a policy's name or the split are wrong.
        FeederError: the feeder does not compile or solve.
    """
    scenario = read_scenario(env_config, split)
    players = find_players(policies)
    needed = {"days": days, "n_envs": n_envs, "seed": seed}
    problems = [f"{name} is None; leave it out, or give a number" for name, value in needed.items() if value is None]
    problems += [*_find_day_problems(days), *find_number_problems(1, n_envs=n_envs)]
    problems += find_number_problems(0, MOST_SEED, seed=seed)
    if problems:
        raise ScenarioError("evaluate", problems)
    days = [int(day) for day in days] if isinstance(days, Sequence | np.ndarray) else int(days)
    count = days if isinstance(days, int) else len(days)
    rows: list[dict[str, Any]] = []
    for name, batch, n_days in _play(scenario, players, days, min(n_envs, count), seed):
        rows += ({"policy": name, **row} for row in batch)
        if progress is not None:
            progress(len(rows), len(players) * n_days)
    played = [row["day"] for row in rows[:n_days]]
    kinds = {name: _kind_of(name) if policy is None else "policy" for name, policy in players}
    differ = {name: list(map(str, own)) for name, own in find_all_differences(policies, scenario).items()}
    return EvaluationReport.from_rows(
        rows, kinds, scenario=scenario, split=split, days=played, seed=seed, differences=differ,
        seeds=find_seeds(policies), groups=group_seeds(policies),
    )  # fmt: skip


def _kind_of(baseline: str) -> str:
    entry = BASELINES[baseline]
    return "optimum" if entry.optimum else "foresight" if entry.foresight else "baseline"


def evaluate_feeders(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    feeders: Sequence[str],
    *,
    split: str = "test",
    days: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
    n_envs: int = 4,
) -> FeederComparison:
    """Play the same days with every policy on several feeders.

    Args:
        env_config: As for :func:`evaluate`.
        policies: As for :func:`evaluate`. One with an attribute ``feeders``, digest by name, is told to be trained on
            these; :func:`powergrid.training.load_policy` reads it from the run.
        feeders: Names of shipped feeders, or paths of master files; none for all of the scenario's own. The scenario is
            placed on those it was not made for as its ``placement`` says, by demand where that says nothing.
        split, days, seed, n_envs: As for :func:`evaluate`.
        progress: Called with the number of episodes played and to play, feeder by feeder.

    Raises:
        ScenarioError: the settings are wrong, or something has no place on a feeder.
        FeederError: a feeder does not compile or solve.
    """
    scenario = env_config if isinstance(env_config, Scenario) else scenario_from_config(env_config)
    asked = (
        [str(each) for each in ([feeders] if isinstance(feeders, str) else feeders)]
        or list(scenario.feeders)
        or [scenario.feeder]
    )
    twice = sorted({name for name in asked if asked.count(name) > 1})
    if twice:
        raise ScenarioError("feeders", [f"{name!r} is given {asked.count(name)} times" for name in twice])
    scenarios = {_label(name, asked): put_on_feeder(scenario, name) for name in asked}
    reports = {}
    for place, (name, own) in enumerate(scenarios.items()):
        advance = None if progress is None else partial(_advance, progress, place, len(scenarios))
        reports[name] = evaluate(own, policies, split=split, days=days, seed=seed, progress=advance, n_envs=n_envs)
    # By what files hold, not by name: a feeder that was edited since the training is another one.
    digests = {name: own.read_feeder().digest for name, own in scenarios.items()}
    trained_on = {
        player[0]: tuple(name for name, digest in digests.items() if digest in set(seen.values()))
        for player in policies
        if not isinstance(player, str) and (seen := getattr(player[1], "feeders", None))
    }
    placements = {name: _say_placement(own) for name, own in scenarios.items()}
    return FeederComparison(reports, trained_on, placements)


def baseline_returns(
    env_config: Mapping[str, Any] | Scenario, names: Sequence[str], days: Sequence[int], *, split: str = "validation"
) -> dict[str, float]:
    """Return each baseline's mean return of an episode, summed over agents, on certain days.

    Args:
        env_config: As :func:`evaluate` takes it.
        names: The baselines.
        days: The days of the profiles to play; one may come more than once.
        split: The split that the days are of.

    Raises:
        ScenarioError: the settings or a name are wrong, or a day is not in the profiles.
    """
    scenario = read_scenario(env_config, split)
    players = find_players(names)
    return {
        name: float(np.mean([row["reward"] for row in rows])) * len(scenario.agents)
        for name, rows, _ in _play(scenario, players, days, len(days), seed=0)
    }


def _play(
    scenario: Scenario, players: Sequence[Player], days: int | Sequence[int], n_envs: int, seed: int
) -> Iterator[tuple[str, list[dict[str, Any]], int]]:
    """Yield the rows of as many days at once as there are environments, player by player, and the number of days."""
    for name, task, player in seat_players(scenario, players, n_envs, seed):
        there = task.simulation.days
        chosen = pick_days(there, days) if isinstance(days, int) else np.asarray(days)
        for batch in np.split(chosen, range(n_envs, len(chosen), n_envs)):
            yield name, play_days(task, player, batch, seed), len(chosen)


def _find_day_problems(days: Any) -> list[str]:
    """Say what is wrong with a number of days, or with a list of them."""
    if not isinstance(days, list | tuple | np.ndarray) or (isinstance(days, np.ndarray) and days.ndim == 0):
        return find_number_problems(1, days=days)
    whole = [isinstance(day, int | np.integer) and not isinstance(day, bool) and day >= 0 for day in days]
    if all(whole):
        return find_number_problems(1, days=len(days))
    wrong = show_briefly(days[whole.index(False)])
    return [f"days: {wrong} is no day; give whole numbers, counted from the first of the profiles, or how many"]


def play_days(task: GridTask, player: Baseline, days: Sequence[int] | IntArray, seed: int = 0) -> list[dict[str, Any]]:
    """Play one episode a day, all at once, and give what each came to.

    Args:
        task: The task; it must have at least as many environments as there are days.
        player: What acts.
        days: Days of the profiles.
        seed: With the day it starts the stream of what is random in the episode.

    Returns:
        A row for each day; see ``docs/evaluation.md`` for the columns.
    """
    start_days(task, player, days, seed)
    totals = DayTotals(task)
    for _, alive in play_steps(task, player, len(days)):
        totals.add(alive)
    return [totals.row(env) for env in range(len(days))]


def start_days(task: GridTask, player: Baseline, days: Sequence[int] | IntArray, seed: int = 0) -> None:
    """Put all environments at the start of a day each, the last of them again where there are fewer days."""
    # An environment without a day of its own plays the last one again; its rows are dropped.
    played = [int(day) for day in days] + [int(days[-1])] * (task.n_envs - len(days))
    for env, day in enumerate(played):
        # Of seed and day alone, so that every policy meets the same cars, in batches of any size.
        task.reset(env, np.random.default_rng([seed, day]), {"day": day})
        player.reset(task, env)


def play_steps(task: GridTask, player: Baseline, n_days: int) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Play the days that were started to their ends, or until all of the first so many have diverged.

    Yields:
        After each step the actions that were played, shape (n_envs, n_actions), and which environments' episodes the
        step still belongs to, shape (n_envs,).
    """
    alive = np.ones(task.n_envs, dtype=bool)
    for _ in range(task.simulation.options.horizon_steps):
        action = task.action_buffer()[:] = player.act(task)
        task.step()
        yield action, alive
        alive = alive & ~task.terminated
        if not alive[:n_days].any():
            break


class DayTotals:
    """Add up rewards, terms and metrics of the episodes of a batch.

    Args:
        task: The task that has just been reset.
    """

    def __init__(self, task: GridTask) -> None:
        self._task = task
        n_envs, n_agents = task.n_envs, len(task.agents)
        self._storage = next((fleet for fleet in task.simulation.fleets if fleet.kind == "storage"), None)
        self._sums = np.zeros((n_envs, n_agents, len(task.info_names)))
        self._reward = np.zeros((n_envs, n_agents))
        self._steps = np.zeros(n_envs)
        self._most: dict[str, FloatArray] = {}
        self._worst_pu = np.full(n_envs, -np.inf)
        self._worst_node = np.zeros(n_envs, dtype=np.int64)
        self._cycles = np.zeros(n_envs)
        self._handed_back = np.zeros((n_envs, len(task.simulation.device_names)))

    def add(self, alive: npt.NDArray[np.bool_]) -> None:
        """Add the last step of the environments whose episode goes on, shape (n_envs,)."""
        task = self._task
        metrics, snapshot, limits = task.metrics, task.simulation.snapshot, task.metrics.limits
        self._sums[alive] += task.infos()[alive]  # those that diverged are stepped on with the others, unseen
        self._reward[alive] += task.rewards[alive]
        self._steps += alive
        for name, now in (
            ("v_max_pu", metrics.v_max_pu),
            ("-v_min_pu", -metrics.v_min_pu),
            ("import_peak_kw", snapshot.source_kva.real),
            ("unbalance_max_pu", metrics.unbalance_pu),
            ("loading_max_pu", snapshot.loading_pu.max(axis=1)),
        ):
            most = self._most.setdefault(name, np.full(task.n_envs, -np.inf))
            np.maximum(most, now, out=most, where=alive)
        outside = np.maximum(metrics.v_max_pu - limits[1], limits[0] - metrics.v_min_pu)
        worse = alive & (outside > self._worst_pu)
        self._worst_pu[worse] = outside[worse]
        self._worst_node[worse] = metrics.worst_node[worse]  # by number: infos hold no names
        if self._storage is not None:
            self._cycles[alive] = self._storage.cycles.mean(axis=1)[alive]
        if task.simulation.handed_back is not None:
            self._handed_back[alive] += task.simulation.handed_back.changed[alive]

    def row(self, env: int) -> dict[str, Any]:
        """Return the totals of one environment's episode, units in the names."""
        task, simulation = self._task, self._task.simulation
        horizon = simulation.options.horizon_steps
        return sum_up(
            day=int(simulation.day[env]),
            start=simulation.profiles.start,
            dt_h=simulation.dt_h,
            steps=int(self._steps[env]),
            finished=bool(self._steps[env] == horizon and not task.terminated[env]),
            agents=[agent.name for agent in task.agents],
            rewards=self._reward[env],
            sums=dict(zip(task.info_names, self._sums[env].T, strict=True)),
            most={name: float(values[env]) for name, values in self._most.items()},
            outside_pu=float(self._worst_pu[env]),
            worst_node=simulation.network.nodes[int(self._worst_node[env])],
            n_nodes=len(simulation.network.nodes),
            cycles=float(self._cycles[env]),
            drawn={} if task.drawn is None else tell(task.drawn[env]),
            handed_back={
                name: steps
                for name, steps in zip(simulation.device_names, self._handed_back[env].tolist(), strict=True)
                if simulation.handed_back is not None and simulation.devices[name].control == "agent"
            },
        )


def sum_up(
    *,
    day: int,
    start: np.datetime64,
    dt_h: float,
    steps: int,
    finished: bool,
    agents: Sequence[str],
    rewards: FloatArray,
    sums: Mapping[str, FloatArray],
    most: Mapping[str, float],
    outside_pu: float,
    worst_node: str,
    n_nodes: int,
    cycles: float,
    handed_back: Mapping[str, float] | None = None,
    drawn: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return what a day came to, a column for each number of an evaluation, units in the names.

    Args:
        day, start: The day, from the first of the profiles, and when these start.
        dt_h, steps, finished: Length of a step [h], steps played, and whether these are all, without divergence.
        agents, rewards: Names of the agents, and the sum of each one's rewards, shape (n_agents,).
        sums: Sums over the steps of what infos hold, by name, each of shape (n_agents,).
        most: The highest of all steps; of the lowest voltage, ``-v_min_pu``, its negative.
        outside_pu, worst_node, n_nodes: How far a node came outside the band, negative where none did, which one came
            farthest, and of how many.
        cycles: Equivalent full cycles, mean over batteries.
        handed_back: Steps in which each device was handed back, where a limit has devices handed back.
        drawn: What the episode has drawn, by name as in infos.
    """
    of_all = {name: float(values.sum()) for name, values in sums.items()}  # the agents' own, added up
    shared = {name: float(values[0]) for name, values in sums.items()}  # the same for every agent
    violation_steps = shared["network_violations"]
    return {
        "day": day,
        "date": str(start.astype("datetime64[D]") + day),
        "hours": steps * dt_h,
        "finished": finished,
        "reward": float(rewards.mean()),
        **{f"reward:{agent}": float(reward) for agent, reward in zip(agents, rewards, strict=True)},
        "cost_usd": sum(of_all.get(term, 0.0) for term in MONEY_TERMS),
        **{term: of_all[term] for term in TERMS if term in of_all},
        "violation_node_hours": violation_steps * dt_h,
        **{
            f"violation_node_hours{level}": shared[f"network_violations{level}"] * dt_h
            for level in VIOLATION_SUFFIXES
            if f"network_violations{level}" in shared
        },
        "violation_share": violation_steps / (steps * n_nodes),
        "violation_max_pu": max(outside_pu, 0.0),
        "worst_node": worst_node,
        "v_min_pu": -most["-v_min_pu"],
        "v_max_pu": most["v_max_pu"],
        "overload_branch_hours": shared["network_overloads"] * dt_h,
        "loading_max_pu": most["loading_max_pu"],
        "import_kwh": shared["source_p_kw"] * dt_h,
        "import_peak_kw": most["import_peak_kw"],
        "unbalance_max_pu": most["unbalance_max_pu"],
        "storage_cycles": cycles,
        "operations": shared["operations"],
        "converged_share": shared["converged"] / steps,
        "projection_kwh": of_all["projection_kw"] * dt_h,
        "projection_kvarh": of_all["projection_kvar"] * dt_h,
        **({"handed_back": shared["handed_back"]} if "handed_back" in shared else {}),
        **{f"handed_back:{device}": count for device, count in (handed_back or {}).items()},
        **(drawn or {}),
    }


def read_scenario(env_config: Mapping[str, Any] | Scenario, split: str) -> Scenario:
    """Return a scenario that plays days of a split."""
    if isinstance(env_config, Scenario):
        return load_scenario(env_config, {"split": split})
    return scenario_from_config({**as_env_config(env_config), "split": split})


def _advance(progress: Progress, place: int, n_feeders: int, done: int, total: int) -> None:
    """Tell how far all feeders are, from how far the one at a place is."""
    progress(place * total + done, n_feeders * total)


def put_on_feeder(scenario: Scenario, name: str) -> Scenario:
    """Return a scenario on a feeder by name or master file, placed by demand where it says no other rule."""
    placement = scenario.placement
    if placement.rule is None and not placement.map:  # the one rule that has an answer on every feeder
        placement = placement.model_copy(update={"rule": "load"})
    return load_scenario(scenario, {"feeder": name, "placement": placement.model_dump()})


def _label(name: str, names: Sequence[str]) -> str:
    """Return a feeder's short name, the whole one where two have the same."""
    stems = [Path(each).stem for each in names]
    stem = Path(name).stem
    return stem if stems.count(stem) == 1 else name.replace("/", "_")


def _say_placement(scenario: Scenario) -> str:
    if not scenario.placed.home:
        return ""
    wish = scenario.placement
    return " and ".join(filter(None, ["map" if wish.map else "", f"rule {wish.rule}" if wish.rule else ""]))

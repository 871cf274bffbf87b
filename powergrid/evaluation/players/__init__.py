"""Who plays: baselines by name, and policies, which turn observations into actions; this module loads none."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ActionWriter, CentralActions
from powergrid.envs.backends import find_seen
from powergrid.envs.core import GridTask
from powergrid.envs.observations.view import View
from powergrid.errors import ActionError, ScenarioError, describe_unknown
from powergrid.evaluation.baselines import BASELINES, Baseline
from powergrid.evaluation.players.trained import Sight, fit_sights, shown_to
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]


class Policy(Protocol):
    """What turns observations into actions, agent by agent, as a trained policy does."""

    def act(self, observations: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Any]:
        """Return each observed agent's action."""


#: A policy with its name, or the name of a baseline and None.
Player = tuple[str, Policy | None]


def find_sides(
    policies: Sequence[str | tuple[str, Policy]], against: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], list[Player]]:
    """Return the names of policies, of the baselines beside them that are none of them, and all who play."""
    subjects = find_players(policies)
    names = tuple(name for name, _ in subjects)
    beside = tuple(name for name in against if name not in names)
    return names, beside, subjects + (find_players(beside) if beside else [])


def find_players(policies: Sequence[str | tuple[str, Policy]]) -> list[Player]:
    """Tell baselines, which come as names, from policies; names must differ."""
    players: list[Player] = []
    problems: list[str] = []
    asked: Sequence[Any] = policies if isinstance(policies, list | tuple) else [policies]
    for given in asked:
        match given:
            case str():
                players.append((given, None))
            case (str() as label, policy) if isinstance(policy, type):
                problems.append(f"policy {label!r} is the class {policy.__name__}; give one that is made of it")
            case (str() as label, policy) if getattr(policy, "view", "agents") not in ("agents", "central"):
                unknown = describe_unknown("view", policy.view, ("agents", "central"))
                problems.append(f"policy {label!r}: {unknown}")
            case (str() as label, policy) if hasattr(policy, "act"):
                players.append((label, policy))
            case _:
                problems.append(f"{type(given).__name__}: give the name of a baseline, or a name and a policy")
    problems += [
        describe_unknown("policy", name, BASELINES) for name, p in players if p is None and name not in BASELINES
    ]
    names = [name for name, _ in players]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"policy {name!r} is given {names.count(name)} times" for name in twice]
    if not players and not problems:
        problems.append(f"give at least one policy; baselines are {', '.join(BASELINES)}")
    if problems:
        raise ScenarioError("policies", problems)
    return players


def seat_players(
    scenario: Scenario, players: Sequence[Player], n_envs: int, seed: int, usual: Sight | None = None
) -> Iterator[tuple[str, GridTask, Baseline]]:
    """Yield each player with its name and the task that it plays, which is closed after the last of them.

    ``usual`` is what policies see whose training is not known, where that is not what the task shows.

    Raises:
        ScenarioError: a policy does not fit the task, see :func:`powergrid.evaluation.players.trained.fit_sights`.
    """
    tasks: dict[str, GridTask] = {}  # by what a player changes of the scenario: nearly all of them share one

    def build(overrides: Mapping[str, Any]) -> GridTask:
        key = repr(sorted(overrides.items()))  # overrides hold dicts, which no dict takes for a key
        if key not in tasks:
            task = GridTask(load_scenario(scenario, overrides) if overrides else scenario, n_envs)
            tasks[key] = stack.enter_context(closing(task))
        return tasks[key]

    with ExitStack() as stack:
        policies = {name: policy for name, policy in players if policy is not None}
        shown = {name: shown_to(policy, scenario) for name, policy in policies.items()}
        views: dict[str, View | None] = {}
        for outlook in shown.values():  # all of them before anybody plays for an hour
            alike = {name: policies[name] for name, own in shown.items() if own == outlook and name not in views}
            views |= fit_sights(alike, build(outlook), usual)
        for name, policy in players:
            if policy is None:
                yield name, build(BASELINES[name].overrides(scenario)), BASELINES[name].make(seed)
            else:
                yield name, build(shown[name]), PolicyPlayer(policy, views[name])


class PolicyPlayer:
    """Let a policy play a batch: one that takes dicts of observations, or one vector of all where its view is central.

    Args:
        policy: The policy.
        view: What it sees of the task, see :func:`.trained.fit_sights`; what agents see if None.
    """

    def __init__(self, policy: Policy, view: View | None = None) -> None:
        self._policy, self._view, self._copies = policy, view, dict[int, Any]()
        self._central = getattr(policy, "view", "agents") == "central"
        self._reading: CentralActions | None = None

    def reset(self, task: GridTask, env: int) -> None:
        """Tell the policy of the day and of what it will see, where it has ``start_day``: most remember nothing."""
        own: Any = self._policy
        if self._central and self._view is None:
            self._view = View(task.channels, find_seen(task, "central"), task.n_envs)
        if getattr(own, "remembers", False):
            own = self._copies[env] = copy.deepcopy(own)  # each environment's has a memory of its own
            own.reset(task, env)
        start_day = getattr(own, "start_day", None)
        if start_day is not None:
            columns = [agent.observed for agent in task.agents] if self._view is None else self._view.columns
            table, names = task.channels.table, ["central"] if self._central else [agent.name for agent in task.agents]
            seen = zip(names, columns, strict=True)
            start_day(int(task.simulation.day[env]), {name: [table[i].name for i in each] for name, each in seen})

    def act(self, task: GridTask) -> FloatArray:
        """Ask the policy once for each environment."""
        if self._central:
            return self._act_centrally(task)
        action, writer = task.action_buffer().copy(), ActionWriter(task.agents)
        looked = task.observe() if self._view is None else self._view.look()
        told: list[dict[str, npt.NDArray[Any]]] = [
            dict(zip([agent.name for agent in task.agents], looked, strict=True))
        ]
        if getattr(self._policy, "masked", False):
            reach = task.simulation.reach()
            told.append({agent.name: agent.masks.read(reach) for agent in task.agents if agent.masks.size})
        for env in range(task.n_envs):  # a policy acts as it would be deployed: on one grid at a time
            own = ({name: rows[env] for name, rows in each.items()} for each in told)
            actions = self._copies.get(env, self._policy).act(*own)
            with self._naming():
                writer.write(actions, action[env : env + 1])
        return action

    def _act_centrally(self, task: GridTask) -> FloatArray:
        """Ask the policy for all agents at once, by everything that can be seen, as :func:`powergrid.make_central`."""
        assert self._view is not None
        if self._reading is None:
            self._reading = CentralActions(task.agents, *getattr(self._policy, "form", ("auto", 33)))
        action, reading, seen = task.action_buffer().copy(), self._reading, self._view.gather()
        masks = reading.masks.read(task.simulation.reach()) if getattr(self._policy, "masked", False) else None
        for env in range(task.n_envs):
            beside = () if masks is None else (masks[env],)
            chosen = self._copies.get(env, self._policy).act(seen[env], *beside)
            with self._naming():
                reading.write(chosen, action[env : env + 1])
        return action

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say in errors of actions whose they are."""
        try:
            yield
        except ActionError as error:
            name = getattr(self._policy, "name", None)
            raise error if name is None else ActionError(f"policy {name}: {error.where}", error.details) from None

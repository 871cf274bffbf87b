"""A day's steps side by side: each an environment of its own, in the state that a trajectory has there.

So what a change of one action does at every step of a day is known after one step of a batch. All of it is what the
environment itself plays: there is no second formula of a device, of the power flow or of a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask, State
from powergrid.quantities import TERMS
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Terms that are told otherwise than by slopes: sums of what is beyond a limit, moves from where gear stands, and what
#: the day leaves in batteries.
_KINKED = tuple(
    TERMS.index(term)
    for term in ("voltage_violation_pu", "overload_pu", "switching_wear_usd", "stored_energy_usd", "soc_deviation_kwh")
)
#: What batteries and customers carry from step to step, by fleet.
_CARRIED = {"storage": "soc", "flexible_load": "owed_kwh"}


@dataclass(frozen=True)
class Trajectory:
    """A day as it was played.

    Attributes:
        actions: As the task takes them, shape (n_steps, n_actions).
        rewards: Mean over agents by step, shape (n_steps,).
        states: The state before each step.
    """

    actions: FloatArray
    rewards: FloatArray
    states: tuple[State, ...]

    @property
    def reward(self) -> float:
        """The day's reward."""
        return float(self.rewards.sum())


@dataclass(frozen=True)
class Outcome:
    """What one step of every hour of a day came to.

    Attributes:
        smooth: Reward of the smooth terms, shape (n_steps,).
        levels: Voltage of each node, then loading of each branch [pu], shape (n_steps, n_levels).
        carried: What batteries and customers carry into the next step, shape (n_steps, n_carried).
        converged: Whether the power flow did, shape (n_steps,).
    """

    smooth: FloatArray
    levels: FloatArray
    carried: FloatArray
    converged: npt.NDArray[np.bool_]

    def slope_to(self, other: Outcome, change: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return by how much each number changes for each unit of a change, 0 where that is 0 or did not converge."""
        moved = (change != 0.0) & self.converged & other.converged
        per_unit = np.divide(1.0, np.abs(change), out=np.zeros_like(change), where=moved)
        return (
            (other.smooth - self.smooth) * per_unit,
            (other.levels - self.levels) * per_unit[:, None],
            (other.carried - self.carried) * per_unit[:, None],
        )


class StackedDay:
    """Play a day of a scenario, and all its steps at once from where a trajectory was.

    Args:
        scenario: The scenario; without events, islands or controls of the feeder's own.

    Attributes:
        task: The task that plays it step by step.
        n_steps: Steps of the day.
        low, high: Limits of the levels [pu], shape (n_levels,).
        weights: What each pu of a level beyond its limit takes from the reward, shape (n_levels,).
        carried_low, carried_high, carried_start: Between what that stays which is carried from step to step, and what
            it is at first, shape (n_carried,).
        left_value: What each unit of it is worth that the day leaves, shape (n_carried,).
        left_weight: What each unit takes from the reward that it ends from where it started, shape (n_carried,).
        left: Whether an action is left as the baseline has it, shape (n_actions,): a car park's means another power
            with every car that has charged, which no slope tells.
        gear: Column of the action of each device that wears by moves, and what a position moved takes from the reward.
        gear_start: Where each action stands at first, shape (n_actions,).
    """

    def __init__(self, scenario: Scenario) -> None:
        self.task, self.n_steps = GridTask(scenario, 1), scenario.episode_length
        self._stack = GridTask(scenario, self.n_steps)
        weights = np.array([scenario.weight_of(term) for term in TERMS]) * scenario.reward.scale / len(self.task.agents)
        move_weight, self._stored_weight, self._deviation_weight = weights[list(_KINKED[2:])].tolist()
        self._fleets = {name: (f, i) for f in self.task.simulation.fleets for i, name in enumerate(f.names)}
        fleets = [self._fleets[action.device][0] for action in self.task.simulation.actions]
        self.left = np.array([fleet.kind == "ev_charger" for fleet in fleets], dtype=bool)
        specs = [self._spec(action.device) for action in self.task.simulation.actions]
        prices = [move_weight * float(getattr(spec, "cost_usd_per_operation", 0.0)) for spec in specs]
        self.gear = [(column, price) for column, price in enumerate(prices) if price]
        told = [name for name in self.task.info_names if name in TERMS]
        self._terms = [i for i, name in enumerate(told) if TERMS.index(name) not in _KINKED]
        self._smooth_weights = weights[[TERMS.index(told[i]) for i in self._terms]]
        self._find_levels(scenario, weights)
        self._find_carried()
        self.left_weight = self._kwh * self._deviation_weight

    def open(self, day: int, seed: int = 0) -> None:
        """Start a day of the profiles; of seed and day comes all that is random in it, as in an evaluation."""
        self._day, self._seed = day, seed
        rngs = [self._rng() for _ in range(self.n_steps)]
        self._stack.reset_all(range(self.n_steps), rngs, {"day": day})
        self._template, fleets = self._stack.state(), self._stack.simulation.fleets
        start = [self._read(fleets[place], name, column)[0] for place, name, column in self._carried_in]
        price = float(self._stack.simulation.day_price[0, :-1].mean())
        self.carried_start, self.left_value = np.array(start), self._kwh * price * self._stored_weight
        self.gear_start: FloatArray = self._stack.simulation.neutral()[0]

    def _spec(self, device: str) -> Any:
        fleet, place = self._fleets[device]
        return fleet.specs[place]

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._day])

    def close(self) -> None:
        """Release the engines."""
        self.task.close()
        self._stack.close()

    def _find_levels(self, scenario: Scenario, weights: FloatArray) -> None:
        network = self.task.simulation.network
        zones = [spec.zone.find_buses(network) for spec in scenario.agents.values()]
        phases = [spec.zone.phases for spec in scenario.agents.values()]
        nodes, b = np.zeros(len(network.nodes)), network.branches
        first = b.terminal_bus[np.searchsorted(b.terminal_branch, np.arange(len(b.names)))]
        branches = np.zeros(len(b.names))
        for buses, own in zip(zones, phases, strict=True):
            nodes[network.nodes_within(buses, own)] += 1.0
            branches += network.among(buses, first)
        # What is in no zone is shared by all agents, so that it counts once.
        nodes, branches = np.maximum(nodes, 1.0), np.maximum(branches, 1.0)
        nodes[network.neutrals] = 0.0
        self.weights = np.concatenate([nodes * weights[_KINKED[0]], branches * weights[_KINKED[1]]])
        self.high = np.concatenate([np.full(len(nodes), scenario.voltage.v_max_pu), np.ones(len(branches))])
        self.low = np.concatenate([np.full(len(nodes), scenario.voltage.v_min_pu), np.full(len(branches), -np.inf)])

    def _find_carried(self) -> None:
        self._carried_in: list[tuple[int, str, int]] = []
        rows: list[tuple[float, float, float]] = []
        for place, fleet in enumerate(self.task.simulation.fleets):
            for column, spec in enumerate(fleet.specs if fleet.kind in _CARRIED else ()):
                self._carried_in.append((place, _CARRIED[fleet.kind], column))
                if fleet.kind == "storage":
                    rows.append((spec.soc_min, spec.soc_max, float(spec.e_max_kwh)))
                else:
                    rows.append((0.0, float(spec.owed_max_kwh), 0.0))
        self.carried_low, self.carried_high, self._kwh = np.array(rows, dtype=np.float64).reshape(-1, 3).T

    # -- playing

    def play(self, choose: Callable[[int], FloatArray]) -> Trajectory:
        """Play the day from its start.

        Args:
            choose: Returns the actions of a step, shape (n_actions,), given its number.
        """
        task, actions, states = self.task, [], []
        rewards = np.zeros(self.n_steps)
        task.reset(0, self._rng(), {"day": self._day})
        for step in range(self.n_steps):
            states.append(task.state())
            chosen = np.array(choose(step), dtype=np.float64)
            task.action_buffer()[0] = chosen
            task.step()
            actions.append(self._as_set(chosen))
            rewards[step] = task.rewards.mean()
        return Trajectory(np.array(actions), rewards, tuple(states))

    def _as_set(self, chosen: FloatArray) -> FloatArray:
        """Return the actions that ask for just what the last step set, whatever more was asked."""
        simulation, taken = self.task.simulation, chosen.copy()
        names = {name: place for place, name in enumerate(simulation.power_device_names)}
        for column, spec in enumerate(simulation.actions):
            fleet, place = self._fleets[spec.device]
            if spec.discrete:
                if hasattr(fleet, "position"):
                    taken[column] = float(fleet.previous_position[0, place]) - spec.low
                continue
            if fleet.kind == "inverter" and spec.name == "p_kw":  # a part of what the sun gives
                continue
            if spec.name in ("p_kw", "q_kvar"):
                value = float(simulation.setpoints[int(spec.name == "q_kvar"), 0, names[spec.device]])
            elif fleet.kind == "flexible_load":
                value = float(fleet.share[0, place])
            else:
                continue
            taken[column] = np.clip((value - spec.offset) / spec.gain, -1.0, 1.0)
        return taken

    # -- all steps at once

    def stand(self, trajectory: Trajectory) -> State:
        """Return the state in which each environment stands where a trajectory was before a step."""
        template, states = self._template, trajectory.states
        return replace(
            template,
            simulation=_stack([state.simulation for state in states], template.simulation),
            rewards=_stack([state.rewards for state in states], template.rewards),
        )

    def step(self, state: State, actions: FloatArray) -> Outcome:
        """Play one step from a state, shape of the actions (n_steps, n_actions)."""
        task = self._stack
        task.restore(state)
        task.action_buffer()[...] = actions
        task.step()
        terms = task.infos()[:, :, self._terms].sum(axis=1)
        snapshot = task.simulation.snapshot
        return Outcome(
            -terms @ self._smooth_weights,
            np.concatenate([snapshot.v_pu, snapshot.loading_pu], axis=1),
            np.stack([self._read(task.simulation.fleets[p], name, c) for p, name, c in self._carried_in], axis=1)
            if self._carried_in
            else np.zeros((self.n_steps, 0)),
            snapshot.converged.copy(),
        )

    @staticmethod
    def _read(fleet: Any, name: str, column: int) -> FloatArray:
        held: FloatArray = getattr(fleet, name)[:, column]
        return held.copy()

    def carry(self, state: State, which: int, change: FloatArray) -> State:
        """Return a state in which something that is carried is more by a change, shape (n_steps,)."""
        place, name, column = self._carried_in[which]
        fleets = list(state.simulation["fleets"])
        held = fleets[place][name].copy()
        held[:, column] += change
        fleets[place] = {**fleets[place], name: held}
        return replace(state, simulation={**state.simulation, "fleets": fleets})


def _stack(single: Sequence[Any], template: Any) -> Any:
    """Return the parts of states of one environment each, side by side as in a template of as many environments."""
    first = single[0]
    if isinstance(template, Mapping):
        return {key: _stack([each[key] for each in single], template[key]) for key in template}
    if isinstance(template, list | tuple):
        if len(first) == 1 and len(template) == len(single):  # one for each environment
            return type(template)(each[0] for each in single)
        return type(template)(_stack([each[i] for each in single], own) for i, own in enumerate(template))
    if not isinstance(template, np.ndarray) or template.shape == first.shape:
        return template
    (axis,) = (i for i, (one, all_) in enumerate(zip(first.shape, template.shape, strict=True)) if one != all_)
    return np.concatenate(single, axis=axis)

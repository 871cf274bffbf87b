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
from powergrid.envs.draws import Values, as_options
from powergrid.evaluation.optimum.devices import Devices, Place, as_actions
from powergrid.quantities import TERMS
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

#: Terms that a program prices by slopes of what the environment counts.
BY_SLOPE = (
    *("energy_cost_usd", "reference_cost_usd", "generation_cost_usd", "storage_wear_usd", "unserved_kwh"),
    *("curtailed_kwh", "losses_kwh", "shared_losses_usd", "reactive_kvarh", "infeasible_kwh"),
)
#: Those that it tells otherwise: sums of what is beyond a limit, moves from where gear stands, what a day leaves in
#: batteries, and its highest import.
OTHERWISE = (
    *("voltage_violation_pu", "overload_pu", "switching_wear_usd", "stored_energy_usd", "soc_deviation_kwh"),
    "peak_rise_kw",
)
#: What nothing feeds has less voltage [pu].
DEAD_PU = 1e-3
#: Part of what a customer could pay back after a plan's last step, at the demand of that step, that is counted upon:
#: demand falls towards a day's end.
_PAYS_BACK = 0.5


@dataclass(frozen=True)
class Trajectory:
    """Steps as they were played.

    Attributes:
        actions: As the task takes them, shape (n_steps, n_actions).
        plan: What they asked for as far as it was feasible, see :func:`as_actions`; of the same shape.
        rewards: Mean over agents by step, shape (n_steps,).
        states: The state before each step.
        end: The state after the last step.
        left: What customers are owed after the last step is worth, no more than 0; nothing where the day ends.
    """

    actions: FloatArray
    plan: FloatArray
    rewards: FloatArray
    states: tuple[State, ...]
    end: State
    left: float = 0.0

    @property
    def reward(self) -> float:
        """The reward of all steps."""
        return float(self.rewards.sum())

    @property
    def worth(self) -> float:
        """The reward of all steps, and what they leave for later ones."""
        return self.reward + self.left


@dataclass(frozen=True)
class Outcome:
    """What one step of every hour of a day came to, or how much that is for each unit of a change.

    Attributes:
        smooth: Reward of all that is told by slopes, shape (n_steps,).
        levels: Voltage of each node, then loading of each branch [pu], shape (n_steps, n_levels).
        carried: What batteries and customers carry into the next step, shape (n_steps, n_carried).
        import_kw: Power from the source [kW], shape (n_steps,).
        unserved_kwh: What cars left without, which ``smooth`` leaves out, shape (n_steps,).
        converged: Whether the power flow did, shape (n_steps,).
    """

    smooth: FloatArray
    levels: FloatArray
    carried: FloatArray
    import_kw: FloatArray
    unserved_kwh: FloatArray
    converged: npt.NDArray[np.bool_]

    def slope_to(self, other: Outcome, change: FloatArray) -> Outcome:
        """Return by how much each number changes for each unit of a change, 0 where that is 0 or did not converge."""
        moved = (change != 0.0) & self.converged & other.converged
        per_unit = np.divide(1.0, change, out=np.zeros_like(change), where=moved)
        return Outcome(
            (other.smooth - self.smooth) * per_unit,
            (other.levels - self.levels) * per_unit[:, None],
            (other.carried - self.carried) * per_unit[:, None],
            (other.import_kw - self.import_kw) * per_unit,
            (other.unserved_kwh - self.unserved_kwh) * per_unit,
            moved,
        )


class StackedDay:
    """Play a day of a scenario, or some steps of it, and all these steps at once from where a trajectory was.

    :meth:`open` starts a day, :meth:`open_at` goes on from any state; then :meth:`play` plays, and the functions of
    ``slopes`` and ``program`` say what would be better.

    Args:
        scenario: The scenario; see :func:`require_foreseeable`.
        most_steps: Most steps that are looked at together, a whole episode if None.

    Attributes:
        task: The task that plays it step by step.
        devices: What devices mean to a program.
        most_steps: Most steps that are looked at together.
        n_steps: Steps that are looked at, fewer than ``most_steps`` where the episode ends before.
        low, high: Limits of the levels [pu], shape (n_levels,).
        weights: What each pu of a level beyond its limit takes from the reward, shape (n_levels,).
        weight_of: What a unit of each term takes from the reward, mean over agents.
        begin: The state before the first step.
        carried_start: What is carried at the episode's start, shape (n_carried,).
        left_value: What each unit of what is carried is worth after the last step, shape (n_carried,).
        left_weight: What each unit takes from the reward that it ends from where it started, shape (n_carried,).
        payable_kwh: What of it can be paid back after the last step, infinite of batteries and where the day ends,
            shape (n_carried,).
        overdue_weight: What each unit beyond that takes from the reward besides, shape (n_carried,).
    """

    def __init__(self, scenario: Scenario, most_steps: int | None = None) -> None:
        self.task, self.most_steps = GridTask(scenario, 1), most_steps or scenario.episode_length
        self._stack = GridTask(scenario, self.most_steps)
        per_agent = scenario.reward.scale / len(self.task.agents)
        self.weight_of = {term: scenario.weight_of(term) * per_agent for term in TERMS}
        self.devices = Devices.of(self.task, self.weight_of)
        self._fleets = {name: (f, i) for f in self.task.simulation.fleets for i, name in enumerate(f.names)}
        told = [name for name in self.task.info_names if name in TERMS]
        self._terms = [place for place, name in enumerate(told) if name not in OTHERWISE]
        self._smooth_weights = np.array([self.weight_of[told[place]] for place in self._terms])
        metrics, n_nodes = self.task.metrics, len(self.task.simulation.network.nodes)
        (self.low, self.high), self.weights = metrics.level_limits, metrics.level_weights.copy()
        self.weights[:n_nodes] *= self.weight_of["voltage_violation_pu"]
        self.weights[n_nodes:] *= self.weight_of["overload_pu"]
        kwh = np.array([each.kwh for each in self.devices.carried])
        self.left_weight = kwh * self.weight_of["soc_deviation_kwh"]
        rngs = [np.random.default_rng(place) for place in range(self.most_steps)]
        self._stack.reset_all(range(self.most_steps), rngs, {"day": int(self._stack.simulation.days[0])})
        self._template = self._stack.state()

    def close(self) -> None:
        """Release the engines."""
        self.task.close()
        self._stack.close()

    # -- playing

    def open(self, day: int, seed: int = 0, drawn: Values | None = None) -> None:
        """Start a day of the profiles; of seed and day comes all that is random in it, as in an evaluation.

        Args:
            day, seed: The day, and the seed.
            drawn: Numbers that it has in place of the scenario's, where not those that seed and day draw.
        """
        self.task.reset(0, np.random.default_rng([seed, day]), {"day": day, **as_options(drawn)})
        self.open_at(self.task.state())

    def open_at(self, state: State) -> None:
        """Go on from a state of one environment, see :meth:`state_of`.

        What it holds of demand, sun, prices and cars to come is what is planned by: the day itself, or a forecast.
        What the last step leaves in batteries is worth what the reward says of it at the end of the day.
        """
        self.begin = state
        clock, rewards = state.simulation["clock"], state.rewards
        left = int(clock["last_step"][0] - clock["step_index"][0])
        self.n_steps = min(self.most_steps, left)
        stored = float(rewards["_stored_price"][0, 0]) * self.weight_of["stored_energy_usd"]
        # what is owed is paid back at the day's mean price; in the day's last step counts what nobody serves
        owed = float(rewards["_stored_price"][0, 0]) * self.weight_of["energy_cost_usd"] * (left > self.n_steps)
        carried = self.devices.carried
        self.left_value = np.array([each.kwh * stored if each.kwh else -owed for each in carried])
        self.carried_start = np.array([rewards["_soc_initial"][0, e.at.own] if e.kwh else 0.0 for e in carried])
        self.payable_kwh = self._find_payable(state, left - self.n_steps)
        self.overdue_weight = np.where(
            np.isfinite(self.payable_kwh), max(self.weight_of["unserved_kwh"] - owed, 0.0), 0.0
        )

    def _find_payable(self, state: State, steps_after: int) -> FloatArray:
        """Return what customers can pay back in steps after the last, as far as its demand tells."""
        simulation, payable = self.task.simulation, np.full(len(self.devices.carried), np.inf)
        last = int(state.simulation["clock"]["step_index"][0]) + self.n_steps - 1
        places = {name: i for i, name in enumerate(simulation.power_device_names)}
        for which, each in enumerate(self.devices.carried):
            if each.kwh or not steps_after:
                continue
            fleet = simulation.fleets[each.at.fleet]
            load = simulation.circuits[0].load_of_device[places[fleet.names[each.at.own]]]
            kwh = float(state.simulation["days"]["day_load_kw"][0, last, load]) * simulation.dt_h
            payable[which] = _PAYS_BACK * steps_after * (fleet.specs[each.at.own].share_max - 1.0) * max(kwh, 0.0)
        return payable

    def price_owed(self, carried: FloatArray) -> float:
        """Return what is owed after the last step takes from the reward later, given what is carried then."""
        owing = np.array([not each.kwh for each in self.devices.carried], dtype=bool)
        later = -self.left_value * carried * owing + self.overdue_weight * np.maximum(carried - self.payable_kwh, 0.0)
        return float(later.sum())

    def state_of(self, task: GridTask, env: int) -> State:
        """Return the state of one environment of another task of the scenario, as :meth:`open_at` takes it."""
        whole, single = task.state(), self.task.state()
        return replace(
            single,
            simulation=_pick(whole.simulation, single.simulation, env),
            rewards=_pick(whole.rewards, single.rewards, env),
            drawn=None if whole.drawn is None else (whole.drawn[env],),
        )

    def play(self, choose: Callable[[int], FloatArray], *, planned: bool = True) -> Trajectory:
        """Play all steps from the first on.

        Args:
            choose: Returns what is done in a step, shape (n_actions,), given its number from the first.
            planned: Whether that is a plan, see :func:`as_actions`, or the task's own actions.
        """
        task, actions, plan, states = self.task, list[FloatArray](), list[FloatArray](), list[State]()
        rewards, parks = np.zeros(self.n_steps), [park.at.column for park in self.devices.parks] if planned else []
        task.restore(self.begin)
        late = np.zeros(len(parks))  # cars may be full that were to charge: others make up for it in the next steps
        for step in range(self.n_steps):
            states.append(task.state())
            chosen = np.array(choose(step), dtype=np.float64)
            chosen[parks] += late
            taken = as_actions(task, chosen[None])[0] if planned else chosen
            buffer = task.action_buffer()
            buffer[0, self.devices.owned] = taken[self.devices.owned]
            actions.append(buffer[0].copy())
            task.step()
            plan.append(self._as_set(buffer[0]))
            late = np.maximum(chosen[parks] - plan[-1][parks], 0.0)
            rewards[step] = task.rewards.mean()
        fleets = task.simulation.fleets
        carried = np.array([getattr(fleets[e.at.fleet], e.name)[0, e.at.own] for e in self.devices.carried])
        return Trajectory(
            np.array(actions), np.array(plan), rewards, tuple(states), task.state(), -self.price_owed(carried)
        )

    def _as_set(self, actions: FloatArray) -> FloatArray:
        """Return the plan that asks for just what the last step set, whatever more was asked."""
        simulation, plan = self.task.simulation, actions.copy()
        names = {name: place for place, name in enumerate(simulation.power_device_names)}
        for park in self.devices.parks:
            device = names[simulation.actions[park.at.column].device]
            plan[park.at.column] = -simulation.setpoints[0, 0, device] / park.half_kw - 1.0
        for each in self.devices.gear:
            position = simulation.fleets[each.at.fleet].previous_position[0, each.at.own]
            plan[each.at.column] = float(position) - simulation.actions[each.at.column].low
        for column, spec in enumerate(simulation.actions):
            fleet, own = self._fleets[spec.device]
            if spec.discrete or fleet.kind == "ev_charger":
                continue
            if simulation.islands is not None and not simulation.islands.device_on[0, names[spec.device]]:
                continue  # what nothing feeds is set to nothing, whatever was asked
            if fleet.kind == "flexible_load":
                value = float(fleet.share[0, own])
            elif fleet.kind == "inverter" and spec.name == "p_kw":  # a part of what the sun gives
                continue
            else:
                value = float(simulation.setpoints[int(spec.name == "q_kvar"), 0, names[spec.device]])
            plan[column] = np.clip((value - spec.offset) / spec.gain, -1.0, 1.0)
        return plan

    # -- all steps at once

    def stand(self, trajectory: Trajectory) -> State:
        """Return the state in which each environment stands where a trajectory was before a step."""
        template, states = self._template, trajectory.states
        states += (states[-1],) * (self.most_steps - len(states))  # those beyond the last step are not looked at
        return replace(
            template,
            simulation=_stack([state.simulation for state in states], template.simulation),
            rewards=_stack([state.rewards for state in states], template.rewards),
            drawn=None if states[0].drawn is None else states[0].drawn * self.most_steps,  # of one day all
        )

    def step(self, state: State, plan: FloatArray) -> Outcome:
        """Play one step of a plan from a state, shape of the plan (n_steps, n_actions)."""
        task, n = self._stack, len(plan)
        task.restore(state)
        whole = np.concatenate([plan, np.repeat(plan[-1:], self.most_steps - n, axis=0)])
        buffer = task.action_buffer()
        buffer[:, self.devices.owned] = as_actions(task, whole)[:, self.devices.owned]
        task.step()
        simulation, terms = task.simulation, task.infos()[:, :, self._terms].sum(axis=1)
        fleets, snapshot = simulation.fleets, simulation.snapshot
        smooth, unserved = -terms @ self._smooth_weights, np.zeros(self.most_steps)
        for park in self.devices.parks:
            fleet, own = fleets[park.at.fleet], park.at.own
            unserved += fleet.terms["unserved_kwh"][:, own] + task.truncated * fleet.unserved_at_end_kwh()[:, own]
        smooth += unserved * self.weight_of["unserved_kwh"]
        for unit in self.devices.units:
            fleet, own = fleets[unit.at.fleet], unit.at.own
            smooth += fleet.terms["starts"][:, own] * unit.start_price + fleet.on[:, own] * unit.step_price
        carried = [getattr(fleets[each.at.fleet], each.name)[:n, each.at.own] for each in self.devices.carried]
        return Outcome(
            smooth[:n],
            np.concatenate([snapshot.v_pu[:n], snapshot.loading_pu[:n]], axis=1),
            np.array(carried).reshape(len(carried), n).T.copy(),
            snapshot.source_kva.real[:n].copy(),
            unserved[:n],
            snapshot.converged[:n].copy(),
        )

    def price_beyond(self, levels: FloatArray) -> FloatArray:
        """Return what levels beyond their limits take from the reward, shape (n_steps,); nothing of what is not fed."""
        below = np.where(levels > DEAD_PU, np.maximum(self.low - levels, 0.0), 0.0)
        price: FloatArray = (np.maximum(levels - self.high, 0.0) + below) @ self.weights
        return price

    def carry(self, state: State, which: int, change: FloatArray) -> State:
        """Return a state in which something that is carried is more by a change, shape (n_steps,)."""
        each = self.devices.carried[which]
        return self._changed(state, each.at, each.name, self._fill(change))

    def with_room(self, state: State) -> State:
        """Return a state that stops no action: what is carried in the middle, cars asking for a step's full power more.

        A full battery takes nothing more, and yet it would, were it emptied before: how far that goes a program knows.
        """
        for each in self.devices.carried:
            held = state.simulation["fleets"][each.at.fleet][each.name][:, each.at.own]
            state = self._changed(state, each.at, each.name, 0.5 * (each.low + each.high) - held)
        for park in self.devices.parks:
            there = state.simulation["fleets"][park.at.fleet]["port_steps_left"][:, park.at.own] > 0.0
            state = self._changed(state, park.at, "port_owed_kwh", there * (park.port_kw * park.kwh_per_kw))
        return state

    def _fill(self, values: FloatArray) -> FloatArray:
        return np.concatenate([values, np.zeros(self.most_steps - len(values))])

    @staticmethod
    def _changed(state: State, at: Place, name: str, more: FloatArray) -> State:
        fleets = list(state.simulation["fleets"])
        held = fleets[at.fleet][name].copy()
        held[:, at.own] += more
        fleets[at.fleet] = {**fleets[at.fleet], name: held}
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
    if len(single) == 1:
        return first
    if not isinstance(template, np.ndarray) or template.shape == first.shape:
        return template
    (axis,) = (i for i, (one, all_) in enumerate(zip(first.shape, template.shape, strict=True)) if one != all_)
    return np.concatenate(single, axis=axis)


def _pick(whole: Any, single: Any, env: int) -> Any:
    """Return the part of one environment of the state of several, as in the state of a task that has one."""
    if isinstance(single, Mapping):
        return {key: _pick(whole[key], single[key], env) for key in single}
    if isinstance(single, list | tuple):
        one_each = len(single) == 1 and len(whole) > 1
        parts = [whole[env]] if one_each else [_pick(own, one, env) for own, one in zip(whole, single, strict=True)]
        return tuple(parts) if isinstance(single, tuple) else parts
    if not isinstance(single, np.ndarray) or whole.shape == single.shape:
        return whole
    (axis,) = (i for i, (one, all_) in enumerate(zip(single.shape, whole.shape, strict=True)) if one != all_)
    size = single.shape[axis]
    return whole.take(np.arange(env * size, (env + 1) * size), axis=axis)

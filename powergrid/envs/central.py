"""The same core as a single-agent Gymnasium Env: one controller sees everything and decides over every device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import Agent
from powergrid.envs.channels import View
from powergrid.envs.describe import Description, describe
from powergrid.envs.task import AGENT_METRICS, MONEY_TERMS, GridTask
from powergrid.errors import ActionError, ScenarioError, describe_unknown
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
Observation = npt.NDArray[np.float32]
ActionForm = Literal["auto", "multidiscrete", "box", "mixed"]

#: How the agents' own numbers become one: everything else is added up.
_COMBINED = {"zone_v_min_pu": np.min, "zone_v_max_pu": np.max}
_NAME = "central"


class CentralGridEnv(gym.Env[Observation, Any]):
    """Play a scenario as one controller; physics, terms and days as in ``NetworkedGridEnv``.

    Description:
        Every device that an agent of the scenario owns is decided over by this one. Devices of no agent are left to
        themselves, as they are for agents.

    Action Space:
        ``actions`` says which form it has; in each the actions stand in the order of the table of actions.

        - ``mixed``: what the devices are. ``MultiDiscrete`` where all have positions, ``Box`` where none has, else a
          ``Dict`` of ``continuous`` and ``discrete``.
        - ``multidiscrete``: ``MultiDiscrete``; a continuous action becomes ``levels`` evenly spaced values.
        - ``box``: ``Box(-1, 1)``; an action with n positions reads the interval as n equal parts, lowest first.
        - ``auto``: as ``mixed``, but a ``Box`` where that would be a ``Dict``, which few single-agent libraries take.

    Observation Space:
        ``Box(-1, 1)`` of float32: every channel of the table once, that is the world, every zone, the network with the
        voltage of every node, and every device.

    Rewards:
        The sum of what the scenario's agents get.

    Starting State:
        A day of the scenario's split, drawn by the seed or given as ``options={"day": n}``.

    Episode End:
        ``truncated`` at the horizon; ``terminated`` where the power flow diverges and the scenario says so.

    Args:
        scenario: The scenario.
        actions: Form of the action space.
        levels: Number of values of a continuous action in the form ``multidiscrete``, at least 2.

    Raises:
        ScenarioError: ``actions`` or ``levels`` is not one of these, or whatever is wrong in the scenario.
        FeederError: the feeder does not compile or solve.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self, scenario: Scenario, actions: ActionForm = "auto", levels: int = 33) -> None:
        problems = []
        if actions not in get_args(ActionForm):
            problems.append(f"actions: {describe_unknown('form', actions, get_args(ActionForm))}")
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
            problems.append(f"levels {levels!r} is not a whole number of at least 2")
        if problems:
            raise ScenarioError("make_central", problems)
        self.scenario, self._form, self._levels = scenario, actions, levels
        self.task = GridTask(scenario)
        self._rng: np.random.Generator | None = None
        self._over = True
        table = self.task.channels.table
        everything = np.arange(len(table))
        self._view = View(table, [everything])
        self._agent = _as_one(self.task, everything)
        self.observation_space = self._agent.observation_space
        self._columns, self._sizes = _columns(self.task, self._agent)
        self._binned = np.where(self._sizes > 0, self._sizes, levels)
        none = np.array([], dtype=np.int64)
        self._as_box = Agent(_NAME, (), everything, self._columns, none, none)
        self._as_bins = Agent(_NAME, (), everything, none, self._columns, self._binned)
        mixed = len(self._agent.continuous) > 0 and len(self._agent.discrete) > 0
        form = ("box" if mixed else "mixed") if actions == "auto" else actions
        self._reading = {"mixed": self._read_mixed, "box": self._read_box, "multidiscrete": self._read_bins}[form]
        self.action_space: gym.spaces.Space[Any] = {
            "mixed": self._agent,
            "box": self._as_box,
            "multidiscrete": self._as_bins,
        }[form].action_space

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Starts the stream of days and other draws anew; None goes on with it. The first reset without one
                takes the scenario's ``seed``.
            options: ``{"day": n}`` picks the day.

        Raises:
            ScenarioError: an option is unknown or wrong, or the power flow does not converge at the start.
        """
        super().reset(seed=seed)
        if seed is not None or self._rng is None:
            entropy = self.scenario.seed if seed is None else seed
            self._rng = np.random.default_rng(None if entropy is None else [entropy])
        self.task.reset(0, self._rng, options)
        self._over = False
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one step.

        Raises:
            ActionError: the action has a wrong shape, type or value.
            ScenarioError: no episode is being played.
        """
        if self._over:
            raise ScenarioError(self.scenario.name, ["no episode is being played; call reset() before step()"])
        task = self.task
        problems = self._reading(action, task.action_buffer()[0])
        if problems:
            raise ActionError("action", problems)
        task.step()
        terminated = bool(task.terminated[0])
        truncated = bool(task.truncated[0]) and not terminated
        self._over = terminated or truncated
        return self._observe(), float(task.rewards[0].sum()), terminated, truncated, self._info()

    def neutral_action(self) -> Any:
        """Give the action that leaves every device to itself, as in ``action_space``."""
        vector = self.task.simulation.neutral()[0]
        if self._reading == self._read_mixed:
            return self._agent.read_action(vector)
        values = vector[self._columns]
        if self._reading == self._read_box:
            sizes = np.maximum(self._sizes, 1)
            return np.where(self._sizes > 0, (2.0 * values + 1.0) / sizes - 1.0, values).astype(np.float32)
        return np.where(self._sizes > 0, values, np.rint((values + 1.0) / 2.0 * (self._binned - 1))).astype(np.int64)

    def describe(self) -> Description:
        """Give tables of observations, actions, rewards, infos, agents and devices, agent by agent."""
        return describe(self.task)

    def render(self) -> None:
        """Draw nothing: there is no render mode."""

    def close(self) -> None:
        """Give the engine back."""
        self.task.close()

    # -- parts of a step

    def _read_mixed(self, action: Any, out: FloatArray) -> list[str]:
        return self._agent.write_action(action, out)

    def _read_box(self, action: Any, out: FloatArray) -> list[str]:
        values = np.zeros(len(out))
        problems = self._as_box.write_action(action, values)
        share = (np.clip(values[self._columns], -1.0, 1.0) + 1.0) / 2.0
        positions = np.minimum(np.floor(share * self._sizes), self._sizes - 1)
        out[self._columns] = np.where(self._sizes > 0, positions, values[self._columns])
        return problems

    def _read_bins(self, action: Any, out: FloatArray) -> list[str]:
        values = np.zeros(len(out))
        problems = self._as_bins.write_action(action, values)
        chosen = values[self._columns]
        out[self._columns] = np.where(self._sizes > 0, chosen, 2.0 * chosen / (self._binned - 1) - 1.0)
        return problems

    def _observe(self) -> Observation:
        seen: Observation = self._view.look(self.task.channels.values)[0][0]
        return seen

    def _info(self) -> dict[str, Any]:
        """Give every term and metric once, agents' own added up or taken at their extreme."""
        by_agent = list(self.task.info_dicts(0).values())
        info = dict(by_agent[0])
        for name in self.task.info_names[: self.task.info_names.index(AGENT_METRICS[-1][0]) + 1]:
            info[name] = float(_COMBINED.get(name, np.sum)([own[name] for own in by_agent]))
        info["cost_usd"] = sum(info[term] for term in MONEY_TERMS)
        return info

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scenario, self._form, self._levels)


def set_battery_levels(scenario: Scenario, battery: str | None, levels: int) -> Scenario:
    """Give a scenario whose storage has ``levels`` powers (``discrete``), any (``continuous``), or as it was (None).

    Raises:
        ScenarioError: ``battery`` is none of these, or a battery cannot have so many levels.
    """
    if battery is None:
        return scenario
    forms = ["discrete", "continuous"]
    if battery not in forms:
        raise ScenarioError("make_central", [f"battery: {describe_unknown('form', battery, forms)}"])
    chosen = levels if battery == "discrete" else None
    storage = [name for name, spec in scenario.devices.items() if spec.kind == "storage"]
    return load_scenario(scenario, {f"devices.{name}.levels": chosen for name in storage})


def _as_one(task: GridTask, observed: npt.NDArray[np.int64]) -> Agent:
    """Give the agent that owns what all agents own."""
    agents = task.agents
    continuous = np.sort(np.concatenate([agent.continuous for agent in agents]))
    discrete = np.sort(np.concatenate([agent.discrete for agent in agents]))
    sizes = np.array([task.simulation.actions[i].n for i in discrete], dtype=np.int64)
    devices = tuple(name for agent in agents for name in agent.devices)
    return Agent(_NAME, devices, observed, continuous, discrete, sizes)


def _columns(task: GridTask, agent: Agent) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the columns of an agent's actions in table order, and how many positions each has, 0 for none."""
    columns = np.sort(np.concatenate([agent.continuous, agent.discrete]))
    return columns, np.array([task.simulation.actions[i].n for i in columns], dtype=np.int64)

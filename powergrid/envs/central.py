"""The same core as a single-agent Gymnasium Env: one controller sees everything and decides over every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.central_actions import ActionForm, CentralActions, find_form_problems
from powergrid.envs.channels import View
from powergrid.envs.core import GridTask
from powergrid.envs.describe import Description, describe
from powergrid.errors import ActionError, ScenarioError, describe_unknown
from powergrid.quantities import AGENT_METRICS, MONEY_TERMS
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
Observation = npt.NDArray[np.float32]

#: How the agents' own numbers become one: everything else is added up.
_COMBINED = {"zone_v_min_pu": np.minimum.reduce, "zone_v_max_pu": np.maximum.reduce}


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
        problems = find_form_problems(actions, levels)
        if problems:
            raise ScenarioError("make_central", problems)
        self.scenario, self._form, self._levels = scenario, actions, levels
        self.task = GridTask(scenario)
        self._rng: np.random.Generator | None = None
        self._over = True
        table = self.task.channels.table
        self._view = View(table, [np.arange(len(table))], self.task.n_envs)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (len(table),), np.float32)
        names = self.task.info_names
        self._extremes = [(names.index(name), reduce) for name, reduce in _COMBINED.items()]
        self._n_combined = names.index(AGENT_METRICS[-1].name) + 1  # what agents' outages are is the first one's alone
        self._reading = CentralActions(self.task.agents, actions, levels)
        self.action_space: gym.spaces.Space[Any] = self._reading.space

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
        problems = self._reading.write_one(action, task.action_buffer()[0])
        if problems:
            raise ActionError("action", problems)
        task.step()
        terminated = bool(task.terminated[0])
        truncated = bool(task.truncated[0]) and not terminated
        self._over = terminated or truncated
        return self._observe(), float(task.rewards[0].sum()), terminated, truncated, self._info()

    def neutral_action(self) -> Any:
        """Return the action that leaves every device to itself, as in ``action_space``."""
        return self._reading.read_one(self.task.simulation.neutral()[0])

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices, agent by agent."""
        return describe(self.task)

    def render(self) -> None:
        """Draw nothing: there is no render mode."""

    def close(self) -> None:
        """Release the engine."""
        self.task.close()

    # -- parts of a step

    def _observe(self) -> Observation:
        seen: Observation = self._view.look(self.task.channels.values)[0][0]
        return seen

    def _info(self) -> dict[str, Any]:
        """Return every term and metric once, agents' own added up or taken at their extreme."""
        own, shared = self.task.info_parts(0)
        combined = np.add.reduce(own)
        for column, reduce in self._extremes:
            combined[column] = reduce(own[:, column])
        combined[self._n_combined :] = own[0, self._n_combined :]
        info = dict(zip(self.task.info_keys, combined.tolist() + shared, strict=True))
        info["cost_usd"] = sum([info[term] for term in MONEY_TERMS])
        return info

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scenario, self._form, self._levels)


def combine_infos(infos: FloatArray, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return every term and metric of many environments once, agents' own added up or taken at their extreme.

    Args:
        infos: Infos by agent, shape (n_envs, n_agents, n_infos).
        names: Names of the last axis.

    Returns:
        Fresh arrays of shape (n_envs,), as ``CentralGridEnv`` has them for one; without what is not a number.
    """
    n_own = names.index(AGENT_METRICS[-1].name) + 1
    combined = infos[:, 0].T.copy()
    np.add.reduce(infos[:, :, :n_own], axis=1, out=combined[:n_own].T)
    for name, reduce in _COMBINED.items():
        column = names.index(name)
        reduce(infos[:, :, column], axis=1, out=combined[column])
    told = dict(zip(names, combined, strict=True))
    told["cost_usd"] = np.add.reduce([told[term] for term in MONEY_TERMS])
    return told


def set_battery_levels(scenario: Scenario, battery: str | None, levels: int) -> Scenario:
    """Return a scenario whose storage has ``levels`` powers (``discrete``), any (``continuous``), or as it was (None).

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
